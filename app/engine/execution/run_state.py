"""State of a run: the thread that it loads, its settings, its input, and its writes that are not committed yet."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import msgspec
import zstandard
from msgspec import UNSET

from app.agents.open_calls import open_calls
from app.agents.port import (
    END_NODE,
    RESUME_NODE,
    START_NODE,
    UNLIMITED,
    Agent,
    ModelOptions,
    RunConfig,
    RunInstructions,
    Step,
    ToolIntent,
)
from app.base.errors import DamagedCheckpoint, NotFound
from app.base.ids import origin_id
from app.base.offload import offload
from app.domain.caller import AUTH_NAMES, AUTH_USER_ID
from app.domain.state import FIRST_VALUE, State
from app.engine.checkpoints.codec import pack
from app.engine.checkpoints.entry import FIRST_STEP, AmendedCheckpoint, CheckpointEntry
from app.engine.checkpoints.snapshot import read, size_of
from app.engine.checkpoints.state_cache import StateCache
from app.engine.entries import ClaimedRun, EndEntry, IntentEntry, JournalEntry, StepEntry
from app.engine.execution.questions import ResumeState, load_resume_state
from app.engine.execution.sql import LOAD_CHECKPOINT, LOAD_REQUEST
from app.engine.structs import RunRequest, goto_nodes
from app.infra.db.engine import Database


class LoadedThread(msgspec.Struct, kw_only=True):
    """The thread as loaded for a run: its state and the position of its last checkpoint (None: a new thread).

    ``written``: a client wrote that checkpoint, not a run.
    """

    request: RunRequest
    state: State
    checkpoint_id: UUID | None = None
    run_id: UUID | None = None
    step: int = FIRST_STEP - 1
    next: tuple[str, ...] = ()
    written: bool = False
    past: ResumeState = ResumeState()


DAMAGE = zstandard.ZstdError, msgspec.MsgspecError, LookupError, TypeError, ValueError
"""What decoding a damaged checkpoint raises."""


async def load_thread(database: Database, cache: StateCache, claimed: ClaimedRun, request: RunRequest) -> LoadedThread:
    """Load the state that the run starts or resumes from, from the cache or in one round trip.

    It is the thread's head, or the fork's checkpoint for a run that forks and has not committed yet. A run that resumes
    earlier work also gets its questions, answers and unresolved calls. Raises ``NotFound`` if the checkpoint was
    deleted, ``DamagedCheckpoint`` if it cannot be read.
    """
    loaded = await _load(database, cache, claimed, request)
    if claimed.crashed_mid_step or request.answers or (loaded.next and loaded.run_id != claimed.run_id):
        branches = loaded.written or request.checkpoint_id is not None
        changes = request.has_values and loaded.run_id != claimed.run_id
        try:
            calls = None if changes else open_calls(loaded.state)
        except DAMAGE as error:
            raise _damaged(loaded.checkpoint_id) from error
        loaded.past = await load_resume_state(
            database, claimed, request.answers, calls, branches=branches, base=loaded.checkpoint_id
        )
    return loaded


def nothing_loaded(claimed: ClaimedRun, request: RunRequest) -> LoadedThread:
    """Return what a run has whose thread cannot be loaded: enough to end it, and no state that others could read."""
    return LoadedThread(request=request, state=State(claimed.last_number, claimed.last_value_number))


def _damaged(checkpoint_id: UUID | None) -> DamagedCheckpoint:
    return DamagedCheckpoint(
        f"Checkpoint {checkpoint_id} of the thread is damaged in the database and cannot be read. Fork from an older"
        " one, or restore the database."
    )


async def _load(database: Database, cache: StateCache, claimed: ClaimedRun, request: RunRequest) -> LoadedThread:
    fork = request.checkpoint_id
    start = fork == origin_id(claimed.thread_id)
    numbers = (claimed.last_number, claimed.last_value_number)
    if claimed.head is None:
        return LoadedThread(request=request, state=State(*numbers))
    cached = cache.take(claimed.tenant_id, claimed.thread_id, claimed.head)
    if cached is not None and (cached.state.last_number, cached.state.last_value_number) != numbers:
        cached = None  # another process has amended the checkpoint
    if cached is not None and fork is None:
        return LoadedThread(
            request=request, state=cached.state, checkpoint_id=claimed.head, step=cached.step, next=cached.next
        )
    async with database.tenant_connection(claimed.tenant_id) as connection:
        row = await connection.fetchrow(LOAD_CHECKPOINT, claimed.tenant_id, claimed.thread_id, claimed.head)
        if fork is not None and (row is None or row["run_id"] != claimed.run_id):
            if start:
                return LoadedThread(request=request, state=State(*numbers))
            row = await connection.fetchrow(LOAD_CHECKPOINT, claimed.tenant_id, claimed.thread_id, fork)
    if row is None:
        raise NotFound(f"Checkpoint {fork or claimed.head} no longer exists.")
    try:
        snapshot = await offload(size_of(row), read, row, *numbers)
    except DAMAGE as error:
        raise _damaged(row["checkpoint_id"]) from error
    return LoadedThread(
        request=request,
        state=snapshot.state,
        checkpoint_id=snapshot.checkpoint_id,
        run_id=snapshot.run_id,
        written=snapshot.run_id is None,
        step=snapshot.step,
        next=snapshot.next,
    )


async def load_request(database: Database, claimed: ClaimedRun) -> RunRequest:
    """Return what the caller of the run asked for. Raises ``NotFound`` if the run was deleted."""
    text = claimed.request
    if not text:
        async with database.tenant_connection(claimed.tenant_id) as connection:
            text = await connection.fetchval(LOAD_REQUEST, claimed.tenant_id, claimed.run_id)
    if text is None:
        raise NotFound("The run was deleted.")
    return await offload(len(text), msgspec.json.decode, text, type=RunRequest)


def settings_of(claimed: ClaimedRun, request: RunRequest) -> tuple[RunConfig, dict[str, Any]]:
    """Return the configuration and context of a run: its assistant's, overridden by its own."""
    assistant = msgspec.json.decode(claimed.assistant_config)
    own = msgspec.to_builtins(request.config) if request.config else {}
    configurable = {**(assistant.get("configurable") or {}), **(own.get("configurable") or {})}
    for name in AUTH_NAMES:
        configurable.pop(name, None)
    if (user := request.langgraph_auth_user) is not msgspec.UNSET:
        configurable |= dict(zip(AUTH_NAMES, (user, user["identity"], user["permissions"]), strict=True))
    elif (user_id := request.langgraph_auth_user_id) is not msgspec.UNSET:
        configurable[AUTH_USER_ID] = user_id
    limit = own.get("recursion_limit") or assistant.get("recursion_limit") or UNLIMITED
    config = RunConfig(configurable=configurable, recursion_limit=limit, tags=own.get("tags") or [])
    return config, {**msgspec.json.decode(claimed.assistant_context), **request.context}


def instructions_of(request: RunRequest, run_metadata: str) -> RunInstructions:
    """Return what the caller asked of the run, for agents that follow it themselves."""
    command, config = request.command, request.config
    return RunInstructions(
        goto=None if command is None else command.goto,
        fork=request.checkpoint_id is not None,
        durability=request.durability,
        stream_modes=tuple(request.stream_mode),
        subgraphs=request.subgraphs,
        interrupt_before=request.interrupt_before,
        interrupt_after=request.interrupt_after,
        metadata=(config and config.metadata) or {},
        model_options=ModelOptions() if request.model_options is UNSET else request.model_options,
        run_metadata=run_metadata,
    )


encode = msgspec.json.Encoder().encode


class PendingWrites:
    """Writes of a run since its last commit. ``step`` numbers the next checkpoint, ``head`` is the newest one."""

    def __init__(self, claimed: ClaimedRun, loaded: LoadedThread) -> None:
        self._claimed = claimed
        self.state: State = loaded.state
        self.head = loaded.checkpoint_id
        self.next = loaded.next
        self.step = loaded.step + 1
        self._checkpoints: list[CheckpointEntry] = []
        self._amended: AmendedCheckpoint | None = None
        self._unamended: AmendedCheckpoint | None = None
        self._amendments = range(0)
        self._dropped: list[int] = []
        self._steps: list[StepEntry] = []
        self._intents: list[IntentEntry] = []

    @property
    def pending(self) -> bool:
        """Whether there is a checkpoint to write."""
        return bool(self._checkpoints)

    def checkpoint(self, source: str, following: tuple[str, ...]) -> UUID:
        """Add the state as the thread's next checkpoint, with ``following`` as its next nodes; return its id."""
        self._drop_amendments()
        entry = CheckpointEntry.of(self.state, parent_id=self.head, source=source, step=self.step, following=following)
        self._checkpoints.append(entry)
        self.head = entry.checkpoint_id
        self.next = following
        self.step += 1
        return entry.checkpoint_id

    def amend(self, update: Mapping[str, Any]) -> None:
        """Merge hidden values into the newest checkpoint, which stays the newest, until the next one is made."""
        assert self.head is not None
        first = self._amendments.start
        if self._unamended is None:
            self._unamended = AmendedCheckpoint.of(self.head, self.state)
            first = self.state.last_value_number + 1
        self.state.amend(update)
        self._amendments = range(first, self.state.last_value_number + 1)
        self._rewrite(AmendedCheckpoint.of(self.head, self.state))

    def _rewrite(self, amended: AmendedCheckpoint) -> None:
        if self._checkpoints:
            self._checkpoints[-1] = self._checkpoints[-1].amended(amended)
        else:
            self._amended = amended

    def _drop_amendments(self) -> None:
        """Take back this run's amendments of the newest checkpoint: the next one has what still counts of them."""
        if self._unamended is None:
            return
        self._rewrite(self._unamended)
        self._unamended = None
        used = self.state.value_numbers()
        unused = {number for one in self._amendments if (number := FIRST_VALUE + one) not in used}
        unwritten = {number for number, _ in self.state.pending} & unused
        self.state.pending = [item for item in self.state.pending if item[0] not in unwritten]
        self._dropped += sorted(unused - unwritten)

    def take(self, step: Step) -> UUID:
        """Merge the update of ``step`` and add it as completed; return the id of its checkpoint."""
        self.state.apply(step.update)
        number = self.step
        checkpoint_id = self.checkpoint("loop", step.next)
        usage = None if step.usage is None else encode(step.usage).decode()
        self._steps.append(StepEntry(step=number, node=step.node, checkpoint_id=checkpoint_id, usage=usage))
        self.intend(step.intents, number)
        return checkpoint_id

    def intend(self, intents: tuple[ToolIntent, ...], number: int) -> None:
        """Add the tool calls requested by step ``number`` that may start."""
        self._intents += [
            IntentEntry(call_id=i.call_id, step=number, tool=i.tool, tool_class=i.tool_class, key=i.key, args=i.args)
            for i in intents
        ]

    def entry(self, events: list[tuple[int, bytes]], end: EndEntry | None = None) -> JournalEntry:
        """Return and clear everything added since the last entry, to be written at once."""
        checkpoints, self._checkpoints = self._checkpoints, []
        amended, self._amended = self._amended, None
        dropped, self._dropped = self._dropped, []
        steps, self._steps = self._steps, []
        intents, self._intents = self._intents, []
        claimed = self._claimed
        return JournalEntry(
            tenant_id=claimed.tenant_id,
            thread_id=claimed.thread_id,
            run_id=claimed.run_id,
            epoch=claimed.epoch,
            owner=claimed.owner,
            head=self.head if checkpoints else None,
            last_number=self.state.last_number,
            last_value_number=self.state.last_value_number,
            checkpoints=checkpoints,
            amended=amended,
            dropped=dropped,
            items=[(number, pack(body)) for number, body in self.state.take_items()],
            steps=steps,
            intents=intents,
            events=events,
            end=end,
        )


def update_of(request: RunRequest, agent: Agent, run_id: UUID) -> dict[str, Any]:
    """Return the update that the input or the command makes to the thread's values. Raises ``Invalid``."""
    if request.command is not None:
        return {} if request.command.update is None else agent.read_update(request.command.update, run_id)
    return {} if request.input is None else agent.read_input(request.input, run_id)


def source_of(request: RunRequest, head: UUID | None) -> str:
    """Return the source of the checkpoint that the input makes; empty for a run that only resumes."""
    if request.command is not None and request.command.update is not None:
        return "update"
    if head is None or (request.command is None and request.input is not None):
        return "input"
    return "" if request.checkpoint_id is None else "fork"


def nodes(request: RunRequest, source: str, agent: Agent, writes: PendingWrites) -> tuple[str, ...]:
    """Return the first nodes: where the command or the input leads, or where the thread stopped."""
    command = request.command
    if command is not None and command.goto is not None:
        return tuple(node for node in goto_nodes(command.goto) if node != END_NODE)
    if source == "input":
        return agent.after(START_NODE, writes.state)
    if command is not None and not writes.next:
        only_answers = command.resume is not UNSET and command.update is None
        return agent.after(RESUME_NODE if only_answers else START_NODE, writes.state)
    return writes.next
