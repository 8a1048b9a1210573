"""Write a thread's state outside a run: as a node, as a fork, or as an imported history."""

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import Row

from app.agents.port import END_NODE, START_NODE, Agent, Agents, NestedStates, StateQuestion, StateWriting
from app.base.errors import BadRequest, Conflict, Invalid, NotFound, TooLarge
from app.base.ids import new_id, origin_id
from app.base.offload import body_bytes, offload
from app.domain.caller import AUTH_NAMES
from app.domain.state import State
from app.engine.checkpoints.codec import pack
from app.engine.checkpoints.entry import FIRST_STEP, AmendedCheckpoint, CheckpointEntry
from app.engine.checkpoints.snapshot import read, size_of
from app.features.assistants.queries import last_configurable
from app.features.threads import queries
from app.features.threads.queries import NewCheckpoint
from app.features.threads.structs import CheckpointRef, NodeUpdate, StateUpdate, StateUpdated, Superstep
from app.features.threads.subgraphs import Place, place_of
from app.infra.db.session import Writer
from app.security.access.structs import Principal

INPUT_NODE = "__input__"
"""The name of the input node in state updates of LangGraph clients; same as ``__start__``."""


MAX_SUPERSTEPS = 1000
MAX_HISTORY_UPDATES = 5000
MAX_HISTORY_BYTES = 64 << 20
"""Bounds of an imported history: supersteps, updates in all of them, bytes of their checkpoints."""


class BaseState(msgspec.Struct, kw_only=True):
    """The state that an update applies to, and its checkpoint (no id: the thread has none)."""

    state: State
    checkpoint_id: UUID | None = None
    step: int = FIRST_STEP - 1
    next: tuple[str, ...] = ()
    node: str | None = None
    thread_id: UUID = UUID(int=0)
    configurable: dict[str, Any] = {}


class StateWriter:
    """Writes the state of a thread without a live run, in the caller's transaction."""

    def __init__(self, agents: Agents, state_bytes: int = 0) -> None:
        """``state_bytes``: maximum bytes of a thread's values (``State.max_bytes``)."""
        self._agents = agents
        self._state_bytes = state_bytes

    async def apply(self, session: Writer, principal: Principal, thread_id: UUID, body: StateUpdate) -> StateUpdated:
        """Apply ``body`` and return the new checkpoint.

        Raises ``NotFound``, ``Conflict`` if a run is live or queued, ``BadRequest`` for a thread without an agent or an
        unknown node, ``Invalid`` for values that the agent does not accept, ``TooLarge``.
        """
        tenant_id, place = principal.tenant_id, place_of(body.checkpoint)
        update = NodeUpdate(values=body.values, as_node=body.as_node)
        reference = body.checkpoint_id or (body.checkpoint or {}).get("checkpoint_id")
        at = None if reference is None or place is not None else checkpoint_id_of(reference)
        thread = await queries.lock(session, tenant_id, thread_id)
        if thread is None:
            raise NotFound(f"Thread with ID {thread_id} not found")
        if thread.live_run is not None or thread.queued:
            raise Conflict("This thread has a live or queued run: write its state when all runs have ended.")
        agent = self._agent(thread.metadata)
        base = BaseState(state=State(thread.last_number, thread.last_value_number))
        if at != origin_id(thread_id) and (at is not None or thread.head is not None):
            base = await self._base(session, tenant_id, thread_id, at or thread.head, thread)
        base.thread_id, base.configurable = thread_id, principal.configurable()
        if isinstance(agent, StateWriting):
            of_assistant = await last_configurable(session, tenant_id, thread_id)
            base.configurable = {k: v for k, v in of_assistant.items() if k not in AUTH_NAMES} | base.configurable
        if place is not None:
            checkpoint_id = await self._write_nested(session, tenant_id, agent, base, place, update)
        else:
            checkpoint = await self._checkpoint(agent, base, [update])
            await queries.add_checkpoints(session, (tenant_id, thread_id), [checkpoint])
            checkpoint_id = checkpoint.entry.checkpoint_id
        namespace = "" if place is None else place.namespace
        ref = CheckpointRef(checkpoint_id=checkpoint_id, thread_id=thread_id, checkpoint_ns=namespace)
        return StateUpdated(checkpoint=ref, configurable=ref, checkpoint_id=checkpoint_id)

    async def _write_nested(
        self, session: Writer, tenant_id: UUID, agent: Agent, base: BaseState, place: Place, update: NodeUpdate
    ) -> UUID:
        """Write ``update`` to the subgraph at ``place``, with the thread's newest checkpoint; return LangGraph's id."""
        if not isinstance(agent, NestedStates) or base.checkpoint_id is None:
            raise BadRequest(f"This thread has no subgraph {place.namespace[:100]!r}: write the state of the thread.")
        at = StateQuestion(
            thread_id=base.thread_id,
            namespace=place.namespace,
            checkpoint_id=place.checkpoint_id,
            configurable=base.configurable,
        )
        updates = [(update.as_node, one) for one in _values_of(update)]
        changed, checkpoint_id = await agent.write_nested(base.state, at, updates)
        base.state.max_bytes = self._state_bytes
        await offload(base.state.effort(changed), base.state.amend, changed)
        items = await offload(body_bytes.get(), _packed, base.state.take_items())
        amended = AmendedCheckpoint.of(base.checkpoint_id, base.state)
        await queries.amend(session, (tenant_id, base.thread_id), amended, items, base.state)
        return UUID(checkpoint_id)

    async def history(
        self, principal: Principal, metadata: dict[str, Any], supersteps: Sequence[Superstep]
    ) -> list[NewCheckpoint]:
        """Build the checkpoints of a new thread, one per superstep. Raises as ``apply``."""
        updates = sum(len(superstep.updates) for superstep in supersteps)
        if len(supersteps) > MAX_SUPERSTEPS or updates > MAX_HISTORY_UPDATES:
            raise Invalid(
                f"A thread is created with at most {MAX_SUPERSTEPS} supersteps and {MAX_HISTORY_UPDATES} updates in "
                "them; write the others with POST /threads/{thread_id}/state.",
                (("/supersteps", "too many"),),
            )
        agent = self._agent(metadata)
        base = BaseState(state=State(), configurable=principal.configurable())
        checkpoints: list[NewCheckpoint] = []
        size = 0
        for superstep in supersteps:
            checkpoint = await self._checkpoint(agent, base, superstep.updates)
            checkpoints.append(checkpoint)
            size += len(checkpoint.entry.head) + sum(len(body) for _, body in checkpoint.items)
            if size > MAX_HISTORY_BYTES:
                max_mebibytes = MAX_HISTORY_BYTES >> 20
                raise TooLarge(
                    f"The supersteps take more than {max_mebibytes} MiB: create the thread with fewer supersteps."
                )
            base = msgspec.structs.replace(base, checkpoint_id=checkpoint.entry.checkpoint_id, step=base.step + 1)
            if len(checkpoints) % 10 == 0:
                await asyncio.sleep(0)  # yield to the event loop
        return checkpoints

    def _agent(self, metadata: dict[str, Any]) -> Agent:
        name = metadata.get("graph_id")
        agent = self._agents.get(name) if isinstance(name, str) else None
        if agent is None:
            raise BadRequest(
                "This thread has no agent yet, which defines how its state is written: run an assistant on it first, "
                "or create it with metadata.graph_id, one of " + ", ".join(self._agents.names()) + "."
            )
        return agent

    async def _base(self, session: Writer, tenant_id: UUID, thread_id: UUID, at: UUID, thread: Row[Any]) -> BaseState:
        row = await queries.base(session, tenant_id, thread_id, at)
        if row is None:
            raise NotFound(f"Checkpoint {at} not found in thread {thread_id}")
        snapshot = await offload(size_of(row), read, row, thread.last_number, thread.last_value_number)
        return BaseState(state=snapshot.state, checkpoint_id=at, step=snapshot.step, next=snapshot.next, node=row.node)

    async def _checkpoint(self, agent: Agent, base: BaseState, updates: Sequence[NodeUpdate]) -> NewCheckpoint:
        base.state.max_bytes = self._state_bytes
        if isinstance(agent, StateWriting):
            following = await _written_by(agent, base, updates)
        else:
            following = await _written(agent, base, updates)
        source = "update"
        if updates and all(update.as_node == INPUT_NODE for update in updates):
            source = "input"
        elif all(update.values is None and update.as_node is None for update in updates):
            source = "fork"
        entry = CheckpointEntry.of(
            base.state,
            parent_id=base.checkpoint_id,
            source=source,
            step=base.step + 1,
            following=following,
        )
        items = await offload(body_bytes.get(), _packed, base.state.take_items())
        return NewCheckpoint.of(entry, items, base.state)


def _checkpoint_id(reference: dict[str, Any]) -> Any:
    inner = reference.get("configurable") or reference
    return inner.get("checkpoint_id") if isinstance(inner, dict) else None


def has_checkpoint_id(reference: dict[str, Any]) -> bool:
    """Return whether ``reference`` has a checkpoint id; without one it refers to the latest checkpoint."""
    return _checkpoint_id(reference) is not None


def _packed(items: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    return [(number, pack(body)) for number, body in items]


def checkpoint_id_of(value: Any) -> UUID:
    """Parse a checkpoint id in any of the forms that clients send. Raises ``Invalid``."""
    if isinstance(value, dict):
        value = _checkpoint_id(value)
    try:
        return UUID(str(value))
    except ValueError as error:
        raise Invalid("Invalid checkpoint ID: must be a UUID") from error


async def _written_by(agent: StateWriting, base: BaseState, updates: Sequence[NodeUpdate]) -> tuple[str, ...]:
    """Let ``agent`` write ``updates`` to the state of ``base``; return the nodes that follow."""
    given = [(update.as_node, one) for update in updates for one in _values_of(update)]
    if not given or all(node is None and values is None for node, values in given):
        return base.next  # a fork
    changed, following = await agent.write_state(base.state, base.thread_id, given, base.configurable)
    await offload(max(body_bytes.get(), base.state.effort(changed)), base.state.apply, changed)
    return following


def _values_of(update: NodeUpdate) -> list[Any]:
    return update.values if isinstance(update.values, list) else [update.values]


async def _written(agent: Agent, base: BaseState, updates: Sequence[NodeUpdate]) -> tuple[str, ...]:
    """Write ``updates`` to the state of ``base``; return the nodes that follow."""
    following = base.next
    nodes = [START_NODE if update.as_node == INPUT_NODE else update.as_node for update in updates]
    for number, update in enumerate(updates):
        node = nodes[number] or (START_NODE if base.node is None else base.node)
        if node not in {*agent.nodes, START_NODE, END_NODE}:
            raise BadRequest(f"Node {node[:100]} does not exist; this agent has {', '.join(agent.nodes)}.")
        if update.command is not None:
            raise Invalid("An update must have values, not a command.", ((f"/{number}/command", "not accepted"),))
        for values in _values_of(update):
            if values is not None:
                parse = agent.read_input if node == START_NODE else agent.read_update
                changed = await offload(body_bytes.get(), parse, values, new_id())
                size = max(body_bytes.get(), base.state.effort(changed))
                await offload(size, base.state.apply, changed)
        if update.values is not None or update.as_node is not None:
            following = () if node == END_NODE else agent.after(node, base.state)
    return following
