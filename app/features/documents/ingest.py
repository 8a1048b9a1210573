"""The agent that ingests documents. Ingestion is a run like any other: durable, streamed, cancellable, resumable.

Its steps: extract the text of the document (``extract``), then chunk and embed it (``index``). A batch of chunks, their
vectors and the position that they reach are one commit, fenced by the position where the batch begins: a process that
resumes after a crash continues there, and two processes that both believe to own the run cannot both write.
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
from app.base.tasks import run_to_completion
from app.domain.events import Custom
from app.domain.state import State
from app.features.documents import queries, sql
from app.features.documents.chunking import WINDOW, breaks_of_markdown, breaks_of_text, next_chunk
from app.features.documents.extraction import DocumentSource, TextExtractor
from app.features.documents.formats import FORMATS, MARKDOWN
from app.features.documents.queries import CONTENT, TEXT, Part
from app.features.documents.sql import ADVANCED, IngestProgress
from app.features.documents.structs import Chunk
from app.features.documents.text_window import TextWindow
from app.features.store.index.indexing import IndexData, ItemIndexer, PutEntry, put_items
from app.infra.db.engine import Database

INGEST = "_ingest"
"""Reserved: names in an agents file begin with a letter or a digit."""
EXTRACT, INDEX = "extract", "index"
DOCUMENT = "document"
DOCUMENT_ID = "document_id"
FIELD = "text"

BATCH_SIZE = 64
"""Chunks in one commit."""
ANALYZE_CHUNKS = 200
"""The statistics of the tables are refreshed after a document with this many chunks."""
LOOKAHEAD = 8 * WINDOW
"""Characters loaded for the next chunk, with room for leading space."""
PROGRESS_SECONDS = 0.5
STEP_SECONDS = 2.0
"""After this time a batch also ends a step of the run, which stores its events and allows a hand-over."""
TIMEOUT_SECONDS = 24 * 3600.0
MAX_WAIT_SECONDS = 60.0
"""Longest wait for the tenant's token budget of the next minute."""

encode = msgspec.json.Encoder().encode


class DocumentDeleted(Exception):
    """The document was deleted during its ingestion."""


class IngestAgent:
    """Ingests one document (``app.agents.port.Agent``)."""

    name = INGEST
    description = "Extracts the text of a document, chunks it and embeds it."
    nodes: tuple[str, ...] = (EXTRACT, INDEX)
    seconds = TIMEOUT_SECONDS

    def __init__(self, database: Database, indexing: ItemIndexer, extraction: TextExtractor) -> None:
        self._database = database
        self._indexing = indexing
        self._extraction = extraction

    def read_input(self, value: Any, run_id: UUID) -> dict[str, Any]:
        """Validate ``{"document_id": UUID}``. Raises ``Invalid``."""
        try:
            document_id = UUID(value[DOCUMENT_ID])
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise Invalid("Only uploads start this agent: POST /documents.", (("/input", "no document ID"),)) from error
        return {DOCUMENT_ID: str(document_id)}

    def read_update(self, value: Any, run_id: UUID) -> dict[str, Any]:
        """Validate an update like an input."""
        return self.read_input(value, run_id)

    def after(self, node: str, state: State) -> tuple[str, ...]:
        """Return the node that follows: extract, then index."""
        return {START_NODE: (EXTRACT,), EXTRACT: (INDEX,)}.get(node, ())

    def schemas(self) -> dict[str, Any]:
        """Return the schemas: a document's ID in, its progress out."""
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
        """Return the graph: two nodes in sequence."""
        ids = ("__start__", EXTRACT, INDEX)
        nodes: list[dict[str, Any]] = [{"id": one, "type": "runnable", "data": {"name": one}} for one in ids]
        edges = [("__start__", EXTRACT), (EXTRACT, INDEX), (INDEX, "__end__")]
        return {
            "nodes": [*nodes, {"id": "__end__"}],
            "edges": [{"source": source, "target": target} for source, target in edges],
        }

    async def run(self, context: RunContext) -> RunOutcome:
        """Continue the ingestion from its position. Raises ``AgentError`` if the document cannot be ingested."""
        if not {*self.nodes} & {*context.next}:
            return RunOutcome()
        try:
            return RunOutcome(step=await self._run(context))
        except DocumentDeleted:
            return RunOutcome(step=Step(node=INDEX, update={DOCUMENT: {"phase": "deleted"}}))

    async def _run(self, context: RunContext) -> Step:
        progress = await self._progress(context)
        if progress.run_id != context.run_id:
            raise AgentError("Another run ingests this document now: upload it again to restart its ingestion.")
        try:
            if progress.characters is None:
                progress = await self._extract(context, progress)
                await context.commit(Step(node=EXTRACT, update={DOCUMENT: progress.view(INDEX)}, next=(INDEX,)))
            progress = await Chunker(self._database, self._indexing, context, progress).run()
            if not progress.chunks:
                raise Unreadable("The document holds no text: run character recognition (OCR) on a scanned one first.")
        except Unreadable as error:
            await self._write(sql.FAILED, *progress.fence, str(error))
            raise
        except Limited as error:
            detail = f"{error} Chunks that are indexed are kept; upload the document again to continue."
            await self._write(sql.FAILED, *progress.fence, detail)
            raise BudgetSpent(detail) from error
        if progress.chunks >= ANALYZE_CHUNKS:
            await self._write(sql.ANALYZE, progress.chunks)
        await self._write(sql.READY, *progress.fence, progress.position)
        _emit(context, progress, "ready")
        return Step(node=INDEX, update={DOCUMENT: progress.view("ready")})

    async def _progress(self, context: RunContext) -> IngestProgress:
        document_id = UUID(str(context.state.get(DOCUMENT_ID)))
        found = await run_to_completion(sql.load_progress(self._database, context.tenant_id, document_id))
        if found is None:
            raise DocumentDeleted
        return found

    async def _extract(self, context: RunContext, progress: IngestProgress) -> IngestProgress:
        """Extract the text of the document; parts stored by an earlier attempt are identical."""
        _emit(context, progress, EXTRACT)
        content = queries.read_parts(self._database, progress.tenant_id, progress.document_id, CONTENT)
        source = DocumentSource(
            content, progress.content_type, progress.charset or "", progress.tenant_id, progress.size
        )
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
                        queries.ADD_PARTS, progress.tenant_id, progress.document_id, TEXT, *queries.columns_of([part])
                    )
                    number, characters = number + 1, characters + len(line.text)
        await self._write(sql.EXTRACTED, *progress.fence, characters, encode(pages).decode(), title)
        return await self._progress(context)

    async def _write(self, statement: str, *values: object) -> None:
        await run_to_completion(sql.execute(self._database, statement, *values))


class Chunker:
    """Chunks and embeds the text of one document, from its position to the end."""

    def __init__(
        self, database: Database, indexing: ItemIndexer, context: RunContext, progress: IngestProgress
    ) -> None:
        self._database = database
        self._indexing = indexing
        self._context = context
        self._progress = progress
        document_format = FORMATS[progress.content_type]
        self._find = breaks_of_markdown if document_format is MARKDOWN else breaks_of_text
        self._text = TextWindow(progress.tenant_id, progress.document_id, TEXT if document_format.parsed else CONTENT)
        self._reported_at = self._stepped_at = time.monotonic()

    async def run(self) -> IngestProgress:
        """Index all remaining chunks in batches. Return the progress. Raises ``DocumentDeleted``."""
        await run_to_completion(self._seek(self._progress.position))
        while not self._text.exhausted:
            chunks = await self._next_chunks()
            await self._store(chunks)
            await self._report()
        return self._progress

    async def _seek(self, position: int) -> None:
        async with self._database.engine_connection() as connection:
            await self._text.seek(connection, position)
            await self._text.load(connection, LOOKAHEAD)

    async def _load(self) -> None:
        async with self._database.engine_connection() as connection:
            await self._text.load(connection, LOOKAHEAD)

    async def _next_chunks(self) -> list[Chunk]:
        """Cut the next batch of chunks."""
        chunks: list[Chunk] = []
        while len(chunks) < BATCH_SIZE and not self._text.exhausted:
            if not self._text.is_loaded(LOOKAHEAD):
                await run_to_completion(self._load())
            window, final = self._text.peek(LOOKAHEAD)
            cut = next_chunk(window, final, self._find)
            if cut.end > cut.start:
                start = self._text.position + cut.start
                page = bisect.bisect_right(self._progress.pages, start) or msgspec.UNSET
                number = self._progress.chunks + len(chunks)
                text = window[cut.start : cut.end]
                chunks.append(Chunk(chunk=number, start=start, end=start + len(text), text=text, page=page))
            self._text.advance(cut.after)
            await asyncio.sleep(0)
        return chunks

    async def _store(self, chunks: list[Chunk]) -> None:
        """Commit ``chunks`` with the position they reach; if another process has done so, continue from there."""
        progress, position = self._progress, self._text.position
        values = [msgspec.to_builtins(one) for one in chunks]
        indexed = await self._index(values) if chunks else []
        puts = [
            PutEntry(
                tenant_id=progress.tenant_id,
                namespace=progress.namespace,
                key=f"{chunk.chunk:09}",
                item_id=new_id(),
                value=encode({DOCUMENT_ID: progress.document_id, **value}).decode(),
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
        # a cancellation must not leave an open transaction on a pooled connection
        committed = await run_to_completion(self._commit(puts, position))
        crash_point("after_commit")
        if committed:
            self._progress = msgspec.structs.replace(progress, position=position, chunks=progress.chunks + len(chunks))
        else:
            await self._reload()

    async def _index(self, values: list[dict[str, Any]]) -> list[IndexData]:
        """Embed chunks; waits for the tenant's rate limit. Raises ``Limited`` if its budget is spent."""
        while True:
            try:
                return await self._indexing.index_items(
                    self._progress.namespace, values, [FIELD], self._progress.tenant_id
                )
            except Limited as error:
                if error.retry_after > MAX_WAIT_SECONDS:
                    raise
                await asyncio.sleep(error.retry_after)

    async def _commit(self, puts: list[PutEntry], position: int) -> bool:
        """Store ``puts`` and ``position`` if the document is still at their start. Return whether it was."""
        progress = self._progress
        async with self._database.engine_connection() as connection, connection.transaction():
            done = await connection.execute(sql.ADVANCE, *progress.fence, position, len(puts), progress.position)
            if done == ADVANCED and puts:
                await put_items(connection, puts)
        return bool(done == ADVANCED)

    async def _reload(self) -> None:
        """Load the progress that another owner of the run has made. Raises ``DocumentDeleted``."""
        self._context.check_lease()
        found = await run_to_completion(
            sql.load_progress(self._database, self._progress.tenant_id, self._progress.document_id)
        )
        if found is None or found.run_id != self._context.run_id or found.status != "accepted":
            raise DocumentDeleted
        self._progress = found
        await run_to_completion(self._seek(found.position))

    async def _report(self) -> None:
        """Emit the progress every ``PROGRESS_SECONDS``, and end a step of the run every ``STEP_SECONDS``."""
        now = time.monotonic()
        if now - self._reported_at >= PROGRESS_SECONDS:
            self._reported_at = now
            _emit(self._context, self._progress, INDEX)
        if now - self._stepped_at >= STEP_SECONDS:
            self._stepped_at = now
            update = {DOCUMENT: self._progress.view(INDEX)}
            await self._context.commit(Step(node=INDEX, update=update, next=(INDEX,)))


def _emit(context: RunContext, progress: IngestProgress, phase: str) -> None:
    context.emit(Custom(msgspec.Raw(encode(progress.view(phase)))))
