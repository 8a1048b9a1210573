"""The agent that ingests documents: a run like any other, so it is durable, streamed, cancelled and taken over alike.

Its steps: the text is taken out of the document (``extract``), then cut up and embedded (``index``). A batch of chunks,
their vectors and the place in the text that they reach are one commit, fenced by the place they begin at: whoever goes
on after a crash begins there, and two who believe that the run is theirs cannot both write.
"""

import asyncio
import bisect
import contextlib
import time
from typing import Any
from uuid import UUID

import msgspec
import zstandard

from app.agents.port import START_NODE, RunContext, RunOutcome, Step
from app.base.crash_points import crash_point
from app.base.errors import AgentError, BudgetSpent, Invalid, Limited, Unreadable
from app.base.ids import new_id
from app.base.tasks import to_the_end
from app.domain.events import Custom
from app.domain.state import State
from app.features.documents import queries, sql
from app.features.documents.chunking import WINDOW, breaks_of_markdown, breaks_of_text, next_piece
from app.features.documents.extraction import DocumentSource, TextExtractor
from app.features.documents.formats import FORMATS, MARKDOWN
from app.features.documents.queries import CONTENT, TEXT, Part
from app.features.documents.sql import DONE, IngestProgress
from app.features.documents.structs import Chunk
from app.features.documents.text_window import TextWindow
from app.features.store.index.indexing import IndexData, ItemIndexer, PutEntry, put
from app.infra.db.engine import Database

INGEST = "_ingest"
"""No agents file can define an agent of this name: a name begins with a letter or a digit."""
EXTRACT, INDEX = "extract", "index"
DOCUMENT = "document"
DOCUMENT_ID = "document_id"
FIELD = "text"

BATCH = 64
"""Chunks in one commit."""
MANY = 200
"""Chunks of a document after which the database looks anew at what it has."""
SEEN = 8 * WINDOW
"""Characters in sight: a chunk of them, and space before it."""
SAY_SECONDS = 0.5
STEP_SECONDS = 2.0
"""After so long a batch also ends a step of the run: what was said is kept, and a drain finds its boundary."""
SECONDS = 24 * 3600.0
MAX_WAIT_SECONDS = 60.0
"""How long an ingestion waits for the tokens of its tenant's next minute."""

encode = msgspec.json.Encoder().encode


class DocumentDeleted(Exception):
    """The document was deleted meanwhile."""


class IngestAgent:
    """Ingests one document (``app.agents.port.Agent``)."""

    name = INGEST
    description = "Takes the text out of a document, cuts it up and embeds it."
    nodes: tuple[str, ...] = (EXTRACT, INDEX)
    seconds = SECONDS

    def __init__(self, database: Database, indexing: ItemIndexer, extraction: TextExtractor) -> None:
        self._database = database
        self._indexing = indexing
        self._extraction = extraction

    def read_input(self, value: Any, run_id: UUID) -> dict[str, Any]:
        """``{"document_id": UUID}``."""
        try:
            given = UUID(value[DOCUMENT_ID])
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise Invalid("Uploads start this agent: POST /documents.", (("/input", "no document"),)) from error
        return {DOCUMENT_ID: str(given)}

    def read_update(self, value: Any, run_id: UUID) -> dict[str, Any]:
        """The same."""
        return self.read_input(value, run_id)

    def after(self, node: str, state: State) -> tuple[str, ...]:
        """Extract, then index."""
        return {START_NODE: (EXTRACT,), EXTRACT: (INDEX,)}.get(node, ())

    def schemas(self) -> dict[str, Any]:
        """A document's id in, its progress out."""
        one = {"type": "object", "properties": {DOCUMENT_ID: {"type": "string", "format": "uuid"}}}
        schema = {"type": "object", "properties": {DOCUMENT: {"type": "object"}}}
        return {
            "input_schema": {"title": "Input", "required": [DOCUMENT_ID], **one},
            "output_schema": {"title": "Output", **schema},
            "state_schema": {"title": "State", **schema},
            "config_schema": {"title": "Configurable", "type": "object", "properties": {}},
            "context_schema": None,
        }

    def graph(self) -> dict[str, Any]:
        """Two nodes in a line."""
        ids = ("__start__", EXTRACT, INDEX)
        nodes: list[dict[str, Any]] = [{"id": one, "type": "runnable", "data": {"name": one}} for one in ids]
        edges = [("__start__", EXTRACT), (EXTRACT, INDEX), (INDEX, "__end__")]
        return {
            "nodes": [*nodes, {"id": "__end__"}],
            "edges": [{"source": source, "target": target} for source, target in edges],
        }

    async def run(self, context: RunContext) -> RunOutcome:
        """Go on with the document where it stands. Raises ``AgentError`` for one that cannot be ingested."""
        if not {*self.nodes} & {*context.next}:
            return RunOutcome()
        try:
            return RunOutcome(step=await self._run(context))
        except DocumentDeleted:
            return RunOutcome(step=Step(node=INDEX, update={DOCUMENT: {"phase": "deleted"}}))

    async def _run(self, context: RunContext) -> Step:
        now = await self._progress(context)
        if now.run_id != context.run_id:
            raise AgentError("This document is another run's: upload it again to have it ingested anew.")
        try:
            if now.characters is None:
                now = await self._extract(context, now)
                await context.commit(Step(node=EXTRACT, update={DOCUMENT: now.shown(INDEX)}, next=(INDEX,)))
            now = await Chunker(self._database, self._indexing, context, now).all()
            if not now.chunks:
                raise Unreadable("The document holds no text: a scanned one needs its characters recognised first.")
        except Unreadable as error:
            await self._write(sql.FAILED, *now.which, str(error))
            raise
        except Limited as error:
            words = f"{error} What is indexed stays; upload the document again to go on."
            await self._write(sql.FAILED, *now.which, words)
            raise BudgetSpent(words) from error
        if now.chunks >= MANY:
            await self._write(sql.ANALYZE, now.chunks)
        await self._write(sql.READY, *now.which, now.position)
        _say(context, now, "ready")
        return Step(node=INDEX, update={DOCUMENT: now.shown("ready")})

    async def _progress(self, context: RunContext) -> IngestProgress:
        document_id = UUID(str(context.state.get(DOCUMENT_ID)))
        found = await to_the_end(sql.loaded(self._database, context.tenant_id, document_id))
        if found is None:
            raise DocumentDeleted
        return found

    async def _extract(self, context: RunContext, now: IngestProgress) -> IngestProgress:
        """Take the text out of the document; parts that an attempt before has stored are the same."""
        _say(context, now, EXTRACT)
        content = queries.stored(self._database, now.tenant_id, now.document_id, CONTENT)
        source = DocumentSource(content, now.content_type, now.charset or "", now.tenant_id, now.size)
        number = characters = 0
        pages: list[int] = []
        title = ""
        async with contextlib.aclosing(self._extraction.lines(source)) as lines:
            async for line in lines:
                title = line.title or title
                if line.page:
                    pages.append(characters)
                if line.text:
                    context.check_lease()
                    part = Part(number, characters, zstandard.compress(line.text.encode(), 1))
                    await self._write(
                        queries.ADD_PARTS, now.tenant_id, now.document_id, TEXT, *queries.columns_of([part])
                    )
                    number, characters = number + 1, characters + len(line.text)
        await self._write(sql.EXTRACTED, *now.which, characters, encode(pages).decode(), title)
        return await self._progress(context)

    async def _write(self, statement: str, *values: object) -> None:
        await to_the_end(sql.written(self._database, statement, *values))


class Chunker:
    """Cuts the text of one document up, from the place it has reached to its end."""

    def __init__(self, database: Database, indexing: ItemIndexer, context: RunContext, now: IngestProgress) -> None:
        self._database = database
        self._indexing = indexing
        self._context = context
        self._now = now
        of = FORMATS[now.content_type]
        self._find = breaks_of_markdown if of is MARKDOWN else breaks_of_text
        self._text = TextWindow(now.tenant_id, now.document_id, TEXT if of.parsed else CONTENT)
        self._said = self._stepped = time.monotonic()

    async def all(self) -> IngestProgress:
        """Batch after batch. Raises ``DocumentDeleted``."""
        await to_the_end(self._go_to(self._now.position))
        while not self._text.over:
            chunks = await self._cut()
            await self._store(chunks)
            await self._tell()
        return self._now

    async def _go_to(self, position: int) -> None:
        async with self._database.engine_connection() as connection:
            await self._text.go_to(connection, position)
            await self._text.see(connection, SEEN)

    async def _see(self) -> None:
        async with self._database.engine_connection() as connection:
            await self._text.see(connection, SEEN)

    async def _cut(self) -> list[Chunk]:
        """The next chunks of the text."""
        chunks: list[Chunk] = []
        while len(chunks) < BATCH and not self._text.over:
            if not self._text.sees(SEEN):
                await to_the_end(self._see())
            window, final = self._text.window(SEEN)
            piece = next_piece(window, final, self._find)
            if piece.end > piece.start:
                start = self._text.position + piece.start
                page = bisect.bisect_right(self._now.pages, start) or msgspec.UNSET
                number = self._now.chunks + len(chunks)
                text = window[piece.start : piece.end]
                chunks.append(Chunk(chunk=number, start=start, end=start + len(text), text=text, page=page))
            self._text.move(piece.after)
            await asyncio.sleep(0)
        return chunks

    async def _store(self, chunks: list[Chunk]) -> None:
        """Commit ``chunks`` with the place that they reach; where somebody else has, go on from there."""
        now, reached = self._now, self._text.position
        values = [msgspec.to_builtins(one) for one in chunks]
        indexed = await self._indexed(values) if chunks else []
        puts = [
            PutEntry(
                tenant_id=now.tenant_id,
                namespace=now.namespace,
                key=f"{chunk.chunk:09}",
                item_id=new_id(),
                value=encode({DOCUMENT_ID: now.document_id, **value}).decode(),
                index=encode([FIELD]).decode(),
                words=one.words,
                version=one.version,
                ttl_minutes=None,
                vectors=one.vectors,
            )
            for chunk, value, one in zip(chunks, values, indexed, strict=True)
        ]
        self._context.check_lease()
        crash_point("before_commit")
        # a cancellation must not cut a transaction in two on a connection that others use after it
        mine = await to_the_end(self._commit(puts, reached))
        crash_point("after_commit")
        if mine:
            self._now = msgspec.structs.replace(now, position=reached, chunks=now.chunks + len(chunks))
        else:
            await self._look_again()

    async def _indexed(self, values: list[dict[str, Any]]) -> list[IndexData]:
        """Waits while the tenant has used its tokens of the minute. Raises ``Limited`` once it has spent its budget."""
        while True:
            try:
                return await self._indexing.items(self._now.namespace, values, [FIELD], self._now.tenant_id)
            except Limited as error:
                if error.retry_after > MAX_WAIT_SECONDS:
                    raise
                await asyncio.sleep(error.retry_after)

    async def _commit(self, puts: list[PutEntry], reached: int) -> bool:
        """Store ``puts`` and the place that they reach, if the place is still where they begin; whether it was."""
        now = self._now
        async with self._database.engine_connection() as connection, connection.transaction():
            done = await connection.execute(sql.ADVANCE, *now.which, reached, len(puts), now.position)
            if done == DONE and puts:
                await put(connection, puts)
        return bool(done == DONE)

    async def _look_again(self) -> None:
        """Somebody else was there: the run's new owner, or who deleted the document."""
        self._context.check_lease()
        found = await to_the_end(sql.loaded(self._database, self._now.tenant_id, self._now.document_id))
        if found is None or found.run_id != self._context.run_id or found.status != "accepted":
            raise DocumentDeleted
        self._now = found
        await to_the_end(self._go_to(found.position))

    async def _tell(self) -> None:
        """Say how far it is, now and then; less often as a step of the run, which keeps what was said."""
        at = time.monotonic()
        if at - self._said >= SAY_SECONDS:
            self._said = at
            _say(self._context, self._now, INDEX)
        if at - self._stepped >= STEP_SECONDS:
            self._stepped = at
            update = {DOCUMENT: self._now.shown(INDEX)}
            await self._context.commit(Step(node=INDEX, update=update, next=(INDEX,)))


def _say(context: RunContext, now: IngestProgress, phase: str) -> None:
    context.emit(Custom(msgspec.Raw(encode(now.shown(phase)))))
