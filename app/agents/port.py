"""The agent port: an agent, the context of its run, and its steps.

An agent is driven by its thread's state and keeps none of its own: ``run`` reads the state and the caller's request,
takes steps, and passes each finished step to ``RunContext.commit``. After a crash another process calls ``run`` with
the state of the last committed step, and the agent resumes from there.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NoReturn, Protocol, runtime_checkable
from uuid import UUID, uuid5

import msgspec

from app.agents.tools.port import ToolClass
from app.domain.events import Event
from app.domain.messages import Usage
from app.domain.state import State
from app.providers.llm.port import ANY_TOOL, OutputSchema, ToolChoice, ToolSpec

UNLIMITED = 2**31

START_NODE = "__start__"
RESUME_NODE = "__resume__"
"""The node of an answer that resumes a finished thread: agents that must not start over name no node after it."""
END_NODE = "__end__"
_INTERRUPTS = UUID("8f9c2c57-6c0b-5d0e-9a41-0d5b0f6a2f11")


class RunConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The caller's settings for this run: ``configurable`` values reach tools; ``recursion_limit`` bounds its steps."""

    configurable: dict[str, Any] = {}
    recursion_limit: int = UNLIMITED
    tags: list[str] = []


class ToolIntent(msgspec.Struct, frozen=True, kw_only=True):
    """A tool call that may start once the step that asked for it is committed.

    ``key`` is the same for every attempt of this call; ``args`` is the JSON of its arguments.
    """

    call_id: str
    tool: str
    tool_class: ToolClass
    key: str
    args: bytes


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One step: the ``node`` that ran, its ``update`` of the state, and the ``next`` nodes (none: the run is done).

    ``update`` maps a channel to its new value; for ``messages`` it is the list of messages to merge (each with an id),
    as structs or already encoded as ``msgspec.Raw``. ``usage``: the tokens of ``model`` (vendor:model). ``outputs``:
    the updates that clients see, a JSON ``{node: update}`` for each node; None derives them from ``update``. A step
    that is not ``interruptible`` belongs to an agent that pauses and drains by itself. ``added``: messages of the step,
    encoded, that no chunks have shown: streams of messages show them before the values that hold them.
    """

    node: str
    update: dict[str, Any]
    next: tuple[str, ...] = ()
    usage: Usage | None = None
    model: str = ""
    intents: tuple[ToolIntent, ...] = ()
    outputs: tuple[msgspec.Raw, ...] | None = None
    interruptible: bool = True
    added: tuple[msgspec.Raw, ...] = ()


QuestionKind = Literal["question", "approval", "review"]
"""Kind of a question. Approvals of calls and reviews of their outcome need the scope ``approve``."""


class Interrupt(msgspec.Struct, frozen=True):
    """A question to a person with the key ``id`` (``interrupt_id``); ``value``, any JSON, is shown to the person.

    ``call_id`` is the tool call that waits for it, ``expects`` the JSON Schema of an answer. With ``others_only`` the
    person who started the work may not answer. The engine assigns a separate id each time, which clients answer by.
    """

    id: str
    value: Any
    kind: QuestionKind = "question"
    call_id: str = ""
    expects: dict[str, Any] | None = None
    others_only: bool = False


def interrupt_id(*what: Any) -> str:
    """Return the key of the question about ``what`` (JSON values): 32 hexadecimal digits, deterministic.

    Include everything that an answer is valid for (a call's id and its arguments, say): an agent finds an answer by
    this key, so it cannot be applied to anything else.
    """
    return uuid5(_INTERRUPTS, msgspec.json.encode(what, order="sorted").decode()).hex


class RunOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a successful run: its last ``step``, committed together with the end, and its open ``interrupts``.

    ``answered``: answers (by question key) that were used by unfinished work; the resuming run gets them again.
    ``amendment``: hidden values to store without a step (``RunContext.amend``). ``paused``: the run stopped where its
    caller's ``interrupt_before`` or ``interrupt_after`` asks for it. ``usage``: tokens beyond those of the steps.
    """

    step: Step | None = None
    usage: Usage | None = None
    interrupts: tuple[Interrupt, ...] = ()
    answered: dict[str, Any] = {}
    amendment: dict[str, Any] = {}
    paused: bool = False


class ModelOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the caller asks of the model calls of one run, in addition to the agent's own settings.

    ``tools`` are run by the caller: the model is offered them, and a call to one is a question that its result answers
    (``app.agents.tool_loop.client_tools``). ``tool_choice`` covers them and the agent's own; ``required`` holds for the
    first model call of the run. ``instructions`` follow the agent's. An answer that does not fit ``output_schema``
    fails the run.
    """

    tools: tuple[ToolSpec, ...] = ()
    tool_choice: ToolChoice = ANY_TOOL
    parallel_tool_calls: bool = True
    instructions: str = ""
    output_schema: OutputSchema | None = None


class RunInstructions(msgspec.Struct, frozen=True, kw_only=True):
    """What the caller asked of the run, for agents that follow it themselves.

    ``goto``: targets of a command (names, or objects with ``node`` and ``input``). ``fork``: the run goes back to an
    earlier checkpoint. ``durability``: ``sync``, ``async`` or ``exit``. ``metadata``: that of the caller's
    ``config``. ``run_metadata``: that of the run, as JSON. ``model_options``: see ``AcceptsModelOptions``.
    """

    goto: Any = None
    fork: bool = False
    durability: str = "async"
    stream_modes: tuple[str, ...] = ("values",)
    subgraphs: bool = False
    interrupt_before: str | list[str] | None = None
    interrupt_after: str | list[str] | None = None
    metadata: dict[str, Any] = {}
    model_options: ModelOptions = ModelOptions()
    run_metadata: str = "{}"


class UnresolvedCall(msgspec.Struct, frozen=True):
    """A call that an earlier ``attempt`` may have made, on ``thread_id`` (this thread, or one it was copied from).

    ``key`` is the call's idempotency key there.
    """

    attempt: str
    thread_id: UUID
    key: str


class RunContext(Protocol):
    """An agent's view of its run: its state, its writes, its events and people's answers.

    ``state`` already holds the input. ``answers`` maps the keys of questions to people's answers; an agent asks by
    ending with ``RunOutcome.interrupts``. ``unresolved_calls``: calls that an earlier attempt, or another branch or
    copy of the thread, may have made: call id → the attempts, oldest first. ``cancelled``: a client has cancelled the
    run, so that no other process continues with it.

    Every write is fenced by the run's lease. A cancel, the time limit and a process that ends cancel the agent's task
    (``asyncio.CancelledError``); to hand the run over or pause it, ``commit`` raises after the step is durable. Let
    both pass.
    """

    tenant_id: UUID
    thread_id: UUID
    run_id: UUID
    assistant_id: UUID
    state: State
    config: RunConfig
    context: dict[str, Any]
    answers: dict[str, Any]
    unresolved_calls: dict[str, list[UnresolvedCall]]
    instructions: RunInstructions
    cancelled: bool

    @property
    def step(self) -> int:
        """The number of the step in progress."""
        ...

    @property
    def next(self) -> tuple[str, ...]:
        """The nodes to run: from the thread's last checkpoint, from the caller's command, or after the last step."""
        ...

    def emit(self, event: Event) -> None:
        """Publish an event immediately: a piece of text, a custom value. Never blocks."""
        ...

    def message_id(self) -> str:
        """Return a new id for a model's message, unique to this attempt."""
        ...

    def check_lease(self) -> None:
        """Check the lease; call it right before every external side effect. Raises ``LeaseLost``."""
        ...

    async def intend(self, intents: tuple[ToolIntent, ...]) -> None:
        """Record durably that these calls may start, unless a step of this run already did. Raises ``LeaseLost``."""
        ...

    async def commit(self, step: Step) -> None:
        """Make ``step`` durable, then announce it. Raises ``LeaseLost`` if another worker owns the run now."""
        ...

    async def amend(self, update: dict[str, Any]) -> None:
        """Make hidden values durable with the newest checkpoint, without a step. Raises ``LeaseLost``."""
        ...

    def on_drain(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once the process drains; at once if it already does."""
        ...

    def hand_over(self) -> NoReturn:
        """Leave the run to another process, which resumes it from the last commit."""
        ...


class Agent(Protocol):
    """An agent that the engine can run.

    ``name``: its name in the agents file; ``seconds``: time limit of one run.
    """

    name: str
    seconds: float

    @property
    def description(self) -> str:
        """What the agent does."""
        ...

    @property
    def nodes(self) -> tuple[str, ...]:
        """The node names of its steps."""
        ...

    def read_input(self, value: Any, run_id: UUID) -> dict[str, Any]:
        """Convert a caller's input (decoded JSON, not None) to an update of the state. Raises ``Invalid``.

        Deterministic for one ``run_id``, so that a crash between acceptance and the first step has no effect.
        """
        ...

    def read_update(self, value: Any, run_id: UUID) -> dict[str, Any]:
        """Convert values that a caller writes directly into the state to an update. Raises ``Invalid``.

        Unlike an input they do not restart the agent's work. Deterministic as ``read_input``.
        """
        ...

    def after(self, node: str, state: State) -> tuple[str, ...]:
        """Return the nodes that follow ``node`` in ``state``; ``__start__`` stands for the input."""
        ...

    async def run(self, context: RunContext) -> RunOutcome:
        """Take steps until the work is done or waits for a person. Raises on failure."""
        ...

    def schemas(self) -> dict[str, Any]:
        """Return JSON Schemas by name: ``input_schema``, ``output_schema``, ``state_schema``, ``config_schema``, …"""
        ...

    def graph(self) -> dict[str, Any]:
        """The graph: ``{"nodes": [{"id", "type", "data"}], "edges": [{"source", "target", "conditional"?}]}``."""
        ...


@runtime_checkable
class StateWriting(Protocol):
    """An agent that merges values written to its state itself, and knows which nodes follow."""

    async def write_state(
        self,
        state: State,
        thread_id: UUID,
        updates: Sequence[tuple[str | None, Any]],
        configurable: dict[str, Any],
    ) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Write ``updates`` (node or None, and values) as one step; return the state's update and the nodes after it.

        ``configurable`` names the caller. Raises ``BadRequest`` for updates that the agent does not accept.
        """
        ...


@runtime_checkable
class AcceptsModelOptions(Protocol):
    """An agent that follows ``RunInstructions.model_options``."""

    def check_options(self, options: ModelOptions) -> None:
        """Validate ``options`` before a run is accepted. Raises ``Invalid``."""
        ...


@runtime_checkable
class WithSubgraphs(Protocol):
    """An agent whose nodes may be graphs themselves."""

    async def shape(self, configurable: dict[str, Any], xray: bool | int = False) -> "GraphShape":
        """Return the shape of the graph for ``configurable``, drawn ``xray`` levels of subgraphs deep (True: all).

        Raises ``Unavailable``, and ``BadRequest`` if there is no graph for ``configurable``.
        """
        ...


class GraphShape(msgspec.Struct, frozen=True, kw_only=True):
    """The drawing of a graph, its JSON Schemas, and those of its subgraphs by namespace."""

    graph: dict[str, Any] = {}
    schemas: dict[str, Any] = {}
    subgraphs: dict[str, Any] = {}


class StateQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """Which state an agent shows: of the thread, in a subgraph's ``namespace`` (empty: of the graph itself).

    ``checkpoint_id``: LangGraph's of the one to write to, if it must be the newest.
    ``recorded``: as it was when its step began, not as it is now. ``subgraphs``: with those of the subgraphs of its
    tasks. ``configurable``: names the caller.
    """

    thread_id: UUID
    namespace: str = ""
    checkpoint_id: str | None = None
    recorded: bool = False
    subgraphs: bool = False
    configurable: dict[str, Any] = {}


@runtime_checkable
class NestedStates(Protocol):
    """An agent whose subgraphs have states of their own."""

    def nested(self, state: State) -> dict[str, bytes]:
        """Return what ``state`` holds of subgraphs, by namespace: equal bytes are the same checkpoint."""
        ...

    async def read_states(self, states: Sequence[State], asked: StateQuestion) -> list[bytes]:
        """Return the states (JSON of ``ThreadState``) that ``states`` hold in the namespace.

        Raises ``NotFound`` if the graph cannot read them, ``Unavailable``.
        """
        ...

    async def write_nested(
        self, state: State, at: StateQuestion, updates: Sequence[tuple[str | None, Any]]
    ) -> tuple[dict[str, Any], str]:
        """Write ``updates`` in a namespace; return the update of the state's hidden values, and the checkpoint's id.

        Raises as ``StateWriting.write_state``.
        """
        ...


class ToolDescription(msgspec.Struct, frozen=True, kw_only=True):
    """A tool of an agent: how a model sees it, its class, and whether a person approves each call.

    ``tool_class``: None for a tool of a graph's own code that declares none.
    """

    name: str
    description: str
    parameters: dict[str, Any]
    tool_class: ToolClass | None
    approval: bool


@runtime_checkable
class WithTools(Protocol):
    """An agent that has tools."""

    def tools(self) -> list[ToolDescription]:
        """Return its tools as they are now."""
        ...


@runtime_checkable
class WithPeers(Protocol):
    """An agent some of whose tools may be other agents."""

    def peers(self) -> frozenset[str]:
        """Return the names of those tools."""
        ...


class Agents(Protocol):
    """Registry of the agents that this process can run, by name."""

    def get(self, name: str) -> Agent | None:
        """Return the agent ``name``, or None."""
        ...

    def names(self) -> list[str]:
        """Return all names, in the order of the agents file."""
        ...
