"""Threads: their checkpoints as the process that runs graphs reads them, written, then compared with their rows."""

import contextlib
from uuid import UUID, uuid5

from app.agents.langgraph.session import update_of, values_of
from app.agents.langgraph.worker import GraphRefused, GraphWorker
from app.base.errors import AgentServiceError, Conflict
from app.base.offload import offload
from app.cli.langgraph_import.source import Source
from app.domain.state import State
from app.engine.checkpoints.codec import pack
from app.engine.checkpoints.entry import FIRST_STEP, CheckpointEntry
from app.engine.checkpoints.snapshot import read
from app.features.threads import queries
from app.features.threads.queries import NewCheckpoint
from app.infra.db.engine import Database
from app.infra.db.session import Writer

OLD_ID = "langgraph_thread_id"
"""The metadata of an imported thread that has its id in LangGraph's tables."""
BATCH = 50
"""Checkpoints that are written at once."""
SOURCES = frozenset({"input", "loop", "update", "fork"})


class ThreadRefused(Exception):
    """A thread cannot be imported: the reason. Nothing of it is stored."""


class ThreadImporter:
    """Brings threads of ``source`` into a tenant; those without a known graph in their metadata are of ``graph``."""

    def __init__(self, database: Database, worker: GraphWorker, source: Source, tenant_id: UUID, graph: str) -> None:
        self._database = database
        self._worker = worker
        self._source = source
        self._tenant_id = tenant_id
        self._graph = graph
        self.checkpoints = 0
        """Checkpoints written and found equal."""

    async def bring(self, old_id: str) -> bool:
        """Import a thread in one transaction; return False if it had been already. Raises ``ThreadRefused``."""
        thread_id = new_thread_id(self._tenant_id, old_id)
        graph = await self._graph_of(old_id)
        keys = f"write {old_id}", f"compare {old_id}"
        try:
            async with self._database.writing(self._tenant_id) as session:
                await session.allow_pauses()  # the graphs' process may take long for checkpoints of many megabytes
                found = await queries.get(session, self._tenant_id, thread_id)
                if found is not None:
                    if found.metadata.get(OLD_ID) == old_id:
                        return False
                    raise ThreadRefused(f"there is a thread {thread_id} that does not come from this import")
                about = {"graph_id": graph, OLD_ID: old_id}
                await queries.create_thread(session, self._tenant_id, thread_id, about)
                written = await self._write(session, thread_id, old_id, graph)
                await self._compare(session, thread_id, old_id, graph, written)
        except GraphRefused as error:
            raise ThreadRefused(": ".join(error.args)) from error
        except AgentServiceError as error:
            raise ThreadRefused(str(error)) from error
        finally:
            for key in keys:
                await self._worker.request("import", graph_id=graph, key=key, stored=None, values=None)
        self.checkpoints += len(written)
        return True

    async def _graph_of(self, old_id: str) -> str:
        named = await self._source.graph_of(old_id)
        graph = named if named in self._worker.graphs else self._graph
        if graph not in self._worker.graphs:
            raise ThreadRefused(
                f"its graph {named!r} is not in the agents file: name one with --graph"
                if named
                else "its checkpoints name no graph: name one with --graph"
            )
        return graph

    async def _write(self, session: Writer, thread_id: UUID, old_id: str, graph: str) -> dict[str, UUID]:
        """Write the checkpoints; return their new ids by the old ones."""
        state, ids, batch = State(), dict[str, UUID](), list[NewCheckpoint]()
        thread = (self._tenant_id, thread_id)
        async with contextlib.aclosing(self._source.checkpoints(old_id)) as checkpoints:
            async for stored in checkpoints:
                read_ = await self._worker.request(
                    "import", graph_id=graph, key=f"write {old_id}", stored=stored, values=None
                )
                update = update_of(read_["changes"])
                await offload(state.effort(update), state.apply, update)
                about = stored["about"]
                entry = CheckpointEntry.of(
                    state,
                    parent_id=ids.get(stored["parent"] or ""),
                    source=about["source"] if about.get("source") in SOURCES else "loop",
                    step=about["step"] if isinstance(about.get("step"), int) else FIRST_STEP,
                    following=tuple(dict.fromkeys(read_["next"])),
                )
                ids[stored["id"]] = entry.checkpoint_id
                items = [(number, pack(body)) for number, body in state.take_items()]
                batch.append(NewCheckpoint.of(entry, items, state))
                if len(batch) == BATCH:
                    await queries.add_checkpoints(session, thread, batch)
                    batch = []
        if batch:
            await queries.add_checkpoints(session, thread, batch)
        return ids

    async def _compare(
        self, session: Writer, thread_id: UUID, old_id: str, graph: str, written: dict[str, UUID]
    ) -> None:
        """Read both sides again. Raises ``ThreadRefused`` with what is not equal."""
        left = dict(written)
        async with contextlib.aclosing(self._source.checkpoints(old_id)) as checkpoints:
            async for stored in checkpoints:
                checkpoint_id = left.pop(stored["id"], None)
                row = checkpoint_id and await queries.base(session, self._tenant_id, thread_id, checkpoint_id)
                if not row:
                    raise Conflict("a checkpoint has been added meanwhile: run the import again")
                values = values_of(read(row, 0).state)
                compared = await self._worker.request(
                    "import", graph_id=graph, key=f"compare {old_id}", stored=stored, values=values
                )
                if compared["differences"]:
                    raise ThreadRefused(f"what was written is not what was read: {', '.join(compared['differences'])}")
        if left:
            raise Conflict("checkpoints have been deleted meanwhile: run the import again")


def new_thread_id(tenant_id: UUID, old_id: str) -> UUID:
    """Return the id of an imported thread: the same if it is a UUID, else that by which graphs of the tenant name it.

    The name of a thread that is no UUID is kept in its metadata.
    """
    try:
        return UUID(old_id)
    except ValueError:
        return uuid5(tenant_id, old_id)
