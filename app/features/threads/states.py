"""Writing a thread's state from outside: as one of its nodes would, as a fork, as the import of a past."""

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec

from app.agents.port import END_NODE, START_NODE, Agent, Agents
from app.base.errors import BadRequest, Conflict, Invalid, NotFound, TooLarge
from app.base.ids import new_id, origin_id
from app.base.offload import body_bytes, offload
from app.domain.state import State
from app.engine.checkpoints.codec import pack
from app.engine.checkpoints.entry import FIRST_STEP, CheckpointEntry
from app.engine.checkpoints.snapshot import read, size_of
from app.features.threads import queries
from app.features.threads.queries import NewCheckpoint
from app.features.threads.structs import CheckpointRef, NodeUpdate, StateUpdate, StateUpdated, Superstep
from app.infra.db.session import Writer

INPUT_NODE = "__input__"
"""What LangGraph's clients call the input where they write a state: ``__start__`` is its other name."""


MAX_SUPERSTEPS = 1000
MAX_PAST_UPDATES = 5000
MAX_PAST_BYTES = 64 << 20
"""What a thread may be created with: supersteps, updates in all of them, bytes that their checkpoints take."""


class BaseState(msgspec.Struct, kw_only=True):
    """The state that is written on, and where it stands (without an id: a thread that has none)."""

    state: State
    checkpoint_id: UUID | None = None
    step: int = FIRST_STEP - 1
    next: tuple[str, ...] = ()
    node: str | None = None


class StateWriter:
    """Writes the state of a thread that no run is changing, in a transaction of the caller's."""

    def __init__(self, agents: Agents) -> None:
        self._agents = agents

    async def written(self, session: Writer, tenant_id: UUID, thread_id: UUID, body: StateUpdate) -> StateUpdated:
        """The checkpoint that ``body`` makes. Raises as ``update`` does."""
        place = body.checkpoint_id or (body.checkpoint or {}).get("checkpoint_id")
        at = None if place is None else checkpoint_id_of(place)
        update = NodeUpdate(values=body.values, as_node=body.as_node)
        made = await self.update(session, tenant_id, thread_id, [update], at)
        reference = CheckpointRef(checkpoint_id=made, thread_id=thread_id)
        return StateUpdated(checkpoint=reference, configurable=reference, checkpoint_id=made)

    async def update(
        self, session: Writer, tenant_id: UUID, thread_id: UUID, updates: Sequence[NodeUpdate], at: UUID | None
    ) -> UUID:
        """One checkpoint with ``updates`` on the state at ``at`` (None: the newest); its id.

        Raises ``NotFound``, ``Conflict`` while a run lives or waits there, ``BadRequest`` for a thread without an
        agent or a node that it does not have, ``Invalid`` for values that the agent does not take.
        """
        thread = await queries.lock(session, tenant_id, thread_id)
        if thread is None:
            raise NotFound(f"Thread with ID {thread_id} not found")
        if thread.live_run is not None or thread.queued:
            raise Conflict("A run lives on this thread, or waits for its turn: its state can be written when they end.")
        agent = self._agent(thread.metadata)
        base = BaseState(state=State(thread.last_number))
        if at != origin_id(thread_id) and (at is not None or thread.head is not None):
            base = await self._base(session, tenant_id, thread_id, at or thread.head, thread.last_number)
        return await self._write(session, (tenant_id, thread_id), agent, base, updates)

    async def past(self, metadata: dict[str, Any], supersteps: Sequence[Superstep]) -> list[NewCheckpoint]:
        """The checkpoints of a new thread, one for each superstep. Raises as ``update`` does, and ``TooLarge``."""
        updates = sum(len(superstep.updates) for superstep in supersteps)
        if len(supersteps) > MAX_SUPERSTEPS or updates > MAX_PAST_UPDATES:
            raise Invalid(
                f"A thread is created with at most {MAX_SUPERSTEPS} supersteps and {MAX_PAST_UPDATES} updates in them; "
                "write the others with POST /threads/{thread_id}/state.",
                (("/supersteps", "too many"),),
            )
        agent = self._agent(metadata)
        base = BaseState(state=State())
        made: list[NewCheckpoint] = []
        size = 0
        for superstep in supersteps:
            checkpoint = await self._checkpoint(agent, base, superstep.updates)
            made.append(checkpoint)
            size += len(checkpoint.entry.head) + sum(len(body) for _, body in checkpoint.items)
            if size > MAX_PAST_BYTES:
                max_mebibytes = MAX_PAST_BYTES >> 20
                raise TooLarge(
                    f"The past of this thread takes more than {max_mebibytes} MiB: create it with fewer supersteps."
                )
            base = msgspec.structs.replace(base, checkpoint_id=checkpoint.entry.checkpoint_id, step=base.step + 1)
            if len(made) % 10 == 0:
                await asyncio.sleep(0)  # others have their turn
        return made

    def _agent(self, metadata: dict[str, Any]) -> Agent:
        name = metadata.get("graph_id")
        agent = self._agents.get(name) if isinstance(name, str) else None
        if agent is None:
            raise BadRequest(
                "This thread belongs to no agent yet, so nobody can tell how its state is written: run an assistant on "
                "it first, or create it with metadata.graph_id, one of " + ", ".join(self._agents.names()) + "."
            )
        return agent

    async def _base(self, session: Writer, tenant_id: UUID, thread_id: UUID, at: UUID, last_number: int) -> BaseState:
        row = await queries.base(session, tenant_id, thread_id, at)
        if row is None:
            raise NotFound(f"Checkpoint {at} not found in thread {thread_id}")
        snapshot = await offload(size_of(row), read, row, last_number)
        return BaseState(state=snapshot.state, checkpoint_id=at, step=snapshot.step, next=snapshot.next, node=row.node)

    async def _write(
        self, session: Writer, place: tuple[UUID, UUID], agent: Agent, base: BaseState, updates: Sequence[NodeUpdate]
    ) -> UUID:
        checkpoint = await self._checkpoint(agent, base, updates)
        await queries.add_checkpoints(session, place, [checkpoint])
        return checkpoint.entry.checkpoint_id

    async def _checkpoint(self, agent: Agent, base: BaseState, updates: Sequence[NodeUpdate]) -> NewCheckpoint:
        following = base.next
        given = [START_NODE if update.as_node == INPUT_NODE else update.as_node for update in updates]
        for number, update in enumerate(updates):
            node = given[number] or (START_NODE if base.node is None else base.node)
            if node not in {*agent.nodes, START_NODE, END_NODE}:
                raise BadRequest(f"Node {node[:100]} does not exist; this agent has {', '.join(agent.nodes)}.")
            if update.command is not None:
                raise Invalid("An update is given by its values.", ((f"/{number}/command", "is not taken here"),))
            for values in update.values if isinstance(update.values, list) else [update.values]:
                if values is not None:
                    understand = agent.read_input if node == START_NODE else agent.read_update
                    changed = await offload(body_bytes.get(), understand, values, new_id())
                    size = max(body_bytes.get(), base.state.effort(changed))
                    await offload(size, base.state.apply, changed)
            if update.values is not None or update.as_node is not None:
                following = () if node == END_NODE else agent.after(node, base.state)
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
        return NewCheckpoint(entry, items, base.state.last_number)


def _named(reference: dict[str, Any]) -> Any:
    inner = reference.get("configurable") or reference
    return inner.get("checkpoint_id") if isinstance(inner, dict) else None


def has_checkpoint_id(reference: dict[str, Any]) -> bool:
    """Whether ``reference`` names a checkpoint: one that names its thread alone stands for the latest."""
    return _named(reference) is not None


def _packed(items: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    return [(number, pack(body)) for number, body in items]


def checkpoint_id_of(value: Any) -> UUID:
    """The checkpoint id in any of the forms that clients send. Raises ``Invalid``."""
    if isinstance(value, dict):
        value = _named(value)
    try:
        return UUID(str(value))
    except ValueError as error:
        raise Invalid("Invalid checkpoint ID: must be a UUID") from error
