"""States of the subgraphs of hosted graphs: the newest checkpoint of each, at every checkpoint of its thread."""

from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Row

from app.agents.port import Agents, NestedStates, StateQuestion
from app.base.errors import NotFound, Unavailable
from app.base.offload import offload
from app.domain.state import State
from app.engine.checkpoints.snapshot import read, size_of
from app.features.threads import queries
from app.features.threads.queries import HistoryRange
from app.features.threads.structs import HistoryQuery, ThreadState
from app.features.threads.views import is_partly_done, parsed_state
from app.infra.db.engine import Database
from app.security.access.structs import Principal

PAGE = 20
MAX_CHECKPOINTS = 1000
"""Checkpoints of a thread that one request reads at once, and those among which it looks for a subgraph's."""


class Place(NamedTuple):
    """A state in the ``namespace`` of a subgraph: its newest, or the one with the id that LangGraph has given it."""

    namespace: str
    checkpoint_id: str | None = None


def place_of(reference: dict[str, Any] | None) -> Place | None:
    """Return the place that a client's ``checkpoint`` names; None if that is no subgraph's."""
    about = reference or {}
    inner: dict[str, Any] = about["configurable"] if isinstance(about.get("configurable"), dict) else about
    namespace, checkpoint_id = inner.get("checkpoint_ns"), inner.get("checkpoint_id")
    if not isinstance(namespace, str) or not namespace:
        return None
    return Place(namespace, None if checkpoint_id is None else str(checkpoint_id))


class SubgraphStates:
    """Reads what threads hold of subgraphs. The graph's own code decodes it, in its worker."""

    def __init__(self, database: Database, agents: Agents) -> None:
        self._database = database
        self._agents = agents

    async def at(self, principal: Principal, thread_id: UUID, place: Place, *, subgraphs: bool = False) -> ThreadState:
        """Return the state at ``place``. Raises ``NotFound``."""
        recorded = place.checkpoint_id is not None
        async for state in self._states(principal, thread_id, place.namespace, recorded=recorded, subgraphs=subgraphs):
            if not recorded or str(state.checkpoint_id) == place.checkpoint_id:
                return state
        what = f"checkpoint {place.checkpoint_id}" if recorded else "state"
        raise NotFound(f"Thread {thread_id} has no {what} of the subgraph {place.namespace[:100]!r}.")

    async def history(
        self, principal: Principal, thread_id: UUID, place: Place, wanted: HistoryQuery
    ) -> list[ThreadState]:
        """Return the states of a subgraph, newest first. Raises ``NotFound`` for an unknown thread."""
        last = wanted.before
        if isinstance(last, dict):
            last = (last.get("configurable") or last).get("checkpoint_id")
        found: list[ThreadState] = []
        async for state in self._states(principal, thread_id, place.namespace, recorded=True):
            if len(found) >= wanted.limit:
                break
            id_, about = str(state.checkpoint_id), state.metadata or {}
            fits = all(about.get(name) == value for name, value in (wanted.metadata or {}).items())
            if fits and (last is None or id_ < str(last)) and place.checkpoint_id in {None, id_}:
                found.append(state)
        return found

    async def add_tasks(
        self, principal: Principal, state: ThreadState, row: Row[Any], *, recorded: bool, subgraphs: bool
    ) -> None:
        """Complete ``state``, which is that of ``row``, by what the graph itself says about its tasks.

        ``subgraphs``: with the states of their subgraphs. In a superstep that is partly done, each has its own result,
        error and interrupts, and ``values`` and ``next`` count those that have finished, unless ``recorded``.
        """
        snapshot = await offload(size_of(row), read, row, row.last_number)
        agent, partly = self._agent(row.thread_metadata), is_partly_done(row)
        if agent is None or not (partly or agent.nested(snapshot.state)):
            return
        asked = StateQuestion(
            thread_id=row.of_thread, recorded=recorded, subgraphs=subgraphs, configurable=principal.configurable()
        )
        try:
            found = await agent.read_states([snapshot.state], asked)
        except (NotFound, Unavailable):
            if subgraphs:
                raise
            return  # as the checkpoint alone shows it, while the graph's process is starting
        for text in found:
            whole = await offload(len(text), parsed_state, text)
            state.tasks = whole.tasks if subgraphs else [_with_place(one, state) for one in whole.tasks]
            if partly:
                _show_questions(state)
                state.next = whole.next
                if bytes(whole.values).startswith(b"{"):
                    state.values = whole.values

    def _agent(self, metadata: dict[str, Any]) -> NestedStates | None:
        agent = self._agents.get(str(metadata.get("graph_id")))
        if agent is None or not isinstance(agent, NestedStates):
            return None
        return agent

    async def _states(
        self, principal: Principal, thread_id: UUID, namespace: str, *, recorded: bool, subgraphs: bool = False
    ) -> AsyncIterator[ThreadState]:
        """Yield the states in a subgraph's ``namespace``, newest first, each once."""
        seen: set[UUID | None] = set()
        before = b""
        async for agent, states in self._pages(principal, thread_id):
            held: dict[str, list[State]] = {}
            for state in states:
                nested = agent.nested(state)
                name = namespace if namespace in nested else _without_tasks(namespace)
                stored = nested.get(name)
                if stored is not None and stored != before:
                    held.setdefault(name, []).append(state)
                    before = stored
            for name, found in held.items():
                asked = StateQuestion(
                    thread_id=thread_id,
                    namespace=name,
                    recorded=recorded,
                    subgraphs=subgraphs,
                    configurable=principal.configurable(),
                )
                for text in await agent.read_states(found, asked):
                    shown = await offload(len(text), parsed_state, text)
                    if shown.checkpoint_id not in seen:
                        seen.add(shown.checkpoint_id)
                        yield shown

    async def _pages(
        self, principal: Principal, thread_id: UUID
    ) -> AsyncIterator[tuple[NestedStates, Sequence[State]]]:
        """Yield the thread's states, newest first; none if its agent has no subgraphs. Raises ``NotFound``."""
        owned = await principal.permit("threads", "read", thread_id=thread_id)
        span = HistoryRange(limit=PAGE)
        for _ in range(MAX_CHECKPOINTS // PAGE):
            async with self._database.reading(principal.tenant_id, owned) as session:
                rows = await queries.history(session, principal.tenant_id, thread_id, span)
                known = rows[-1] if rows else await queries.latest_state(session, principal.tenant_id, thread_id)
            if known is None:
                raise NotFound(f"Thread with ID {thread_id} not found")
            agent = self._agent(known.thread_metadata)
            if not rows or agent is None:
                return
            yield agent, await offload(sum(map(size_of, rows)), _read, rows)
            span = span._replace(before=rows[-1].checkpoint_id)


def _with_place(task: dict[str, Any], state: ThreadState) -> dict[str, Any]:
    """Return ``task`` with the place of its subgraph's state, if ``state`` knows that it has one."""
    known = next((one["checkpoint"] for one in state.tasks if one["name"] == task["name"]), None)
    return {**task, "checkpoint": known and task["checkpoint"]}


def _show_questions(state: ThreadState) -> None:
    """Give tasks the interrupts that the server has open, by id; the graph's own forms of others stay."""
    known = {one["id"]: one for one in state.interrupts}
    for task in state.tasks:
        task["interrupts"] = [known.get(one["id"], one) for one in task["interrupts"]]


def _read(rows: Sequence[Row[Any]]) -> list[State]:
    return [read(row, row.last_number).state for row in rows]


def _without_tasks(namespace: str) -> str:
    """Return the namespace of a subgraph with a history for the whole thread (``checkpointer=True``)."""
    return "|".join(part.split(":")[0] for part in namespace.split("|"))
