"""A LangGraph graph as an agent (``app.agents.port.Agent``)."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec

from app.agents.langgraph.quarantine import RunAttempts
from app.agents.langgraph.session import COMMAND, INPUT, GraphSession, update_of, values_of
from app.agents.langgraph.store import GraphStore
from app.agents.langgraph.wire import ENDED, NAMESPACE, GraphDescription
from app.agents.langgraph.worker import GraphRefused, GraphWorker, WorkerEnded
from app.agents.port import START_NODE, GraphShape, RunContext, RunOutcome, StateQuestion, ToolDescription
from app.agents.tool_loop.calls import Toolbox
from app.base.errors import AgentError, BadRequest, NotFound, Unavailable
from app.domain.state import State

encode = msgspec.json.Encoder().encode


class GraphAgent:
    """The graph ``name`` of a project, run by the project's ``worker``."""

    def __init__(
        self,
        name: str,
        worker: GraphWorker,
        store: GraphStore,
        *,
        seconds: float,
        description: str = "",
        toolbox: Toolbox | None = None,
    ) -> None:
        """``toolbox``: the tools of the agents file that the graph uses."""
        self.name = name
        self.seconds = seconds
        self._worker = worker
        self._store = store
        self._own_description = description
        self._toolbox = toolbox or Toolbox([], lambda *_: None)
        if toolbox is not None:
            worker.toolboxes[name] = toolbox

    @property
    def _graph(self) -> GraphDescription:
        return self._worker.graphs.get(self.name) or GraphDescription(error="it is still being loaded")

    @property
    def broken(self) -> str:
        """Why the graph cannot be used; empty if it can."""
        return self._graph.error

    @property
    def description(self) -> str:
        """What the graph does."""
        return self._own_description or self._graph.description

    @property
    def nodes(self) -> tuple[str, ...]:
        """The graph's nodes; none if a function makes it, as each run may have others."""
        return () if self._graph.is_factory else tuple(self._graph.nodes)

    def tools(self) -> list[ToolDescription]:
        """Return the tools of the agents file, and those of its own code that it gives its nodes."""
        found = {one.name: one for one in (*self._graph.tools, *self._toolbox.describe())}
        return list(found.values())

    def peers(self) -> frozenset[str]:
        """Return the names of its tools that are other agents."""
        return self._toolbox.peers

    def read_input(self, value: Any, run_id: UUID) -> dict[str, Any]:
        """Keep the input for the graph, which reads it itself. Raises ``Unavailable`` if the graph is broken."""
        self._check()
        return {INPUT: msgspec.Raw(encode(value))}

    def read_update(self, value: Any, run_id: UUID) -> dict[str, Any]:
        """Keep the update of a command for the graph. Raises ``Unavailable`` if the graph is broken."""
        self._check()
        return {COMMAND: msgspec.Raw(encode(value))}

    def after(self, node: str, state: State) -> tuple[str, ...]:
        """Return the start node for an input, else none: the graph names what follows with each of its steps."""
        return (START_NODE,) if node == START_NODE else ()

    async def run(self, context: RunContext) -> RunOutcome:
        """Run the graph to its end, its pause or its questions."""
        self._check()
        session, attempts = GraphSession(self.name, context, self._store, self._toolbox), RunAttempts()
        while not attempts.exhausted:
            try:
                return await session.run(self._worker, attempts)
            except WorkerEnded:
                session.retract()
        raise AgentError(
            f"The process that runs the graph {self.name!r} ended {attempts.total} times during this run, which "
            "is to blame; its exit codes are in the server's log."
        )

    def schemas(self) -> dict[str, Any]:
        """Return the graph's JSON Schemas."""
        return self._graph.schemas

    def graph(self) -> dict[str, Any]:
        """Return the graph's nodes and edges."""
        return self._graph.graph

    async def shape(self, configurable: dict[str, Any], xray: bool | int = False) -> GraphShape:
        """Return the shape of the graph for ``configurable``, drawn ``xray`` levels of subgraphs deep (True: all).

        Raises ``Unavailable``, and ``BadRequest`` if the function that makes the graph refuses ``configurable``.
        """
        self._check()
        known = self._graph
        if not xray and not known.undescribed and not (configurable and known.is_factory):
            return GraphShape(graph=known.graph, schemas=known.schemas, subgraphs=known.subgraphs)
        try:
            found = await self._worker.request("shape", graph_id=self.name, configurable=configurable, xray=xray)
        except GraphRefused as error:
            name, message = error.args
            raise BadRequest(
                f"The graph {self.name!r} cannot be made with this configuration: {name}: {message}"
            ) from error
        return msgspec.convert(found, GraphShape)

    async def write_state(
        self,
        state: State,
        thread_id: UUID,
        updates: Sequence[tuple[str | None, Any]],
        configurable: dict[str, Any],
    ) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Write ``updates`` as one superstep; return the update of the state, and the nodes that follow.

        ``configurable`` names the caller.

        Raises ``BadRequest`` for what LangGraph refuses, ``Unavailable``.
        """
        written = await self._write(state, StateQuestion(thread_id=thread_id, configurable=configurable), updates)
        return update_of(written["changes"]), tuple(dict.fromkeys(written["next"]))

    async def write_nested(
        self, state: State, at: StateQuestion, updates: Sequence[tuple[str | None, Any]]
    ) -> tuple[dict[str, Any], str]:
        """Write ``updates`` in a subgraph's namespace; return the update of the state, and LangGraph's checkpoint id.

        Raises as ``write_state``.
        """
        if f"{NAMESPACE}{at.namespace}" not in state.channels:
            raise BadRequest(
                f"The subgraph {at.namespace[:100]!r} is not running at this checkpoint, so its state is not written: "
                "write that of the thread, or continue from a checkpoint at which the subgraph waits."
            )
        written = await self._write(state, at, updates)
        return update_of(written["changes"]), str(written["checkpoint_id"])

    async def _write(
        self, state: State, at: StateQuestion, updates: Sequence[tuple[str | None, Any]]
    ) -> dict[str, Any]:
        self._check()
        try:
            return await self._worker.request(
                "write",
                graph_id=self.name,
                thread_id=str(at.thread_id),
                values=values_of(state),
                namespace=at.namespace,
                checkpoint_id=at.checkpoint_id,
                configurable=at.configurable,
                updates=[(node, None if values is None else encode(values)) for node, values in updates],
            )
        except GraphRefused as error:
            name, message = error.args
            raise BadRequest(f"The graph does not accept this update: {name}: {message}") from error

    def nested(self, state: State) -> dict[str, bytes]:
        """Return the stored checkpoints of subgraphs in ``state``, by namespace."""
        return {
            name.removeprefix(prefix): channel.json()
            for prefix in (ENDED, NAMESPACE)
            for name, channel in state.channels.items()
            if name.startswith(prefix)
        }

    async def read_states(self, states: Sequence[State], asked: StateQuestion) -> list[bytes]:
        """Return the states that ``states`` hold in a namespace. Raises ``NotFound``, ``Unavailable``."""
        self._check()
        try:
            found = await self._worker.request(
                "states",
                graph_id=self.name,
                thread_id=str(asked.thread_id),
                stored=[values_of(state) for state in states],
                namespace=asked.namespace,
                recorded=asked.recorded,
                subgraphs=asked.subgraphs,
                configurable=asked.configurable,
            )
        except GraphRefused as error:
            name, message = error.args
            raise NotFound(f"The graph does not show the state of {asked.namespace!r}: {name}: {message}") from error
        states_found: list[bytes] = found["states"]
        return states_found

    def _check(self) -> None:
        if self.broken:
            raise Unavailable(f"The graph {self.name!r} cannot run: {self.broken}.")
        self._toolbox.check()
