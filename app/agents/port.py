"""The port to what can run: an agent, the context a run gives it, and the steps it takes.

An agent is driven by its thread's state, not by memory of its own: ``run`` looks at the state (and at what the caller
asked for), takes steps, and hands each finished step to ``RunContext.commit``. After a crash another process calls
``run`` again with the state of the last committed step, and the agent goes on from there.
"""

from typing import Any, Literal, Protocol
from uuid import UUID, uuid5

import msgspec

from app.agents.tools.port import ToolClass
from app.domain.events import Event
from app.domain.messages import Usage
from app.domain.state import State

UNLIMITED = 2**31

START_NODE = "__start__"
RESUME_NODE = "__resume__"
"""Stands for an answer where nothing is left to go on with: agents that must not begin again name no node after it."""
END_NODE = "__end__"
_INTERRUPTS = UUID("8f9c2c57-6c0b-5d0e-9a41-0d5b0f6a2f11")


class RunConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What the caller set for this run: ``configurable`` values reach tools; ``recursion_limit`` bounds its steps."""

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
    """One step: the ``node`` that worked, what it changed, and which nodes come ``next`` (none: the run is done).

    ``update`` maps a channel to its new value; for ``messages`` it is the list of messages to merge (each with an id),
    as structs or, encoded once and for all, as ``msgspec.Raw``. ``usage``: the tokens of ``model`` (vendor:model).
    """

    node: str
    update: dict[str, Any]
    next: tuple[str, ...] = ()
    usage: Usage | None = None
    model: str = ""
    intents: tuple[ToolIntent, ...] = ()


QuestionKind = Literal["question", "approval", "review"]
"""What is asked: approvals of calls and reviews of their outcome need the scope ``approve``."""


class Interrupt(msgspec.Struct, frozen=True):
    """A question to a person about ``id`` (``interrupt_id``); ``value``, any JSON, is what the person is shown.

    ``call_id`` is the tool call that waits for it, ``expects`` the JSON Schema of an answer. With ``others_only`` the
    person who began the work may not answer. The engine gives each asking an id of its own, which clients answer by.
    """

    id: str
    value: Any
    kind: QuestionKind = "question"
    call_id: str = ""
    expects: dict[str, Any] | None = None
    others_only: bool = False


def interrupt_id(*what: Any) -> str:
    """The key of the question about ``what`` (JSON values): 32 hexadecimal digits, the same whenever it is asked again.

    Put in everything that an answer is good for (a call's id and its arguments, say): an agent finds an answer by this
    key, so it can never count for anything else.
    """
    return uuid5(_INTERRUPTS, msgspec.json.encode(what, order="sorted").decode()).hex


class RunOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ended well: its last step, which the engine commits together with the end, and what it waits for.

    ``answered`` are answers (by question key) that went into work which could not be finished: the run that continues
    here finds them in its ``answers`` again.
    """

    step: Step | None = None
    interrupts: tuple[Interrupt, ...] = ()
    answered: dict[str, Any] = {}


class UnresolvedCall(msgspec.Struct, frozen=True):
    """A call that an earlier ``attempt`` may have made, on ``thread_id`` (this one, or one it was copied with).

    ``key`` is the call's idempotency key there.
    """

    attempt: str
    thread_id: UUID
    key: str


class RunContext(Protocol):
    """What a running agent sees of its run.

    ``state`` already holds the input. ``step`` is the number of the step the agent is about to finish; ``commit``
    raises it. ``next`` are the nodes whose turn it is: those that the thread's last checkpoint named, or those that the
    caller sends the run to. ``answers`` maps the keys of questions to what people answered. ``unresolved_calls`` are
    calls that an attempt before this one, or another branch or copy of the thread, may have made: call id → the
    attempts, oldest first.
    """

    tenant_id: UUID
    thread_id: UUID
    run_id: UUID
    assistant_id: UUID
    state: State
    config: RunConfig
    context: dict[str, Any]
    answers: dict[str, Any]
    next: tuple[str, ...]
    unresolved_calls: dict[str, list[UnresolvedCall]]

    @property
    def step(self) -> int:
        """The number of the step that the agent is about to finish."""
        ...

    def emit(self, event: Event) -> None:
        """Say something at once: a piece of text, a custom value. Never blocks."""
        ...

    def message_id(self) -> str:
        """An id for the next message that a model says in this attempt: a later attempt has others."""
        ...

    def check_lease(self) -> None:
        """Stand right before every effect outside. Raises ``LeaseLost`` when there may be none any more."""
        ...

    async def intend(self, intents: tuple[ToolIntent, ...]) -> None:
        """Make durable that these calls may start now, where no step of this run has said so. Raises ``LeaseLost``."""
        ...

    async def commit(self, step: Step) -> None:
        """Make ``step`` durable, then announce it. Raises ``LeaseLost`` when the run is no longer ours."""
        ...


class Agent(Protocol):
    """Something that can run.

    ``name`` is its name in the agents file; ``nodes`` are the names its steps carry; ``seconds`` bounds one run.
    """

    name: str
    description: str
    nodes: tuple[str, ...]
    seconds: float

    def read_input(self, value: Any, run_id: UUID) -> dict[str, Any]:
        """Turn a caller's input (decoded JSON, not None) into an update of the state. Raises ``Invalid``.

        Deterministic for one ``run_id``, so that a crash between accepting and the first step changes nothing.
        """
        ...

    def read_update(self, value: Any, run_id: UUID) -> dict[str, Any]:
        """Turn values that a caller writes into the state beside an agent's work into an update. Raises ``Invalid``.

        Unlike an input they begin nothing anew. Deterministic as ``read_input``.
        """
        ...

    def after(self, node: str, state: State) -> tuple[str, ...]:
        """The nodes that come after ``node`` has brought about ``state``; ``__start__`` stands for the input."""
        ...

    async def run(self, context: RunContext) -> RunOutcome:
        """Take steps until the work is done or a person is asked. Raises on failure."""
        ...

    def schemas(self) -> dict[str, Any]:
        """JSON Schemas by name: ``input_schema``, ``output_schema``, ``state_schema``, ``config_schema``, …"""
        ...

    def graph(self) -> dict[str, Any]:
        """The agent drawn: ``{"nodes": [{"id", "type", "data"}], "edges": [{"source", "target", "conditional"?}]}``."""
        ...


class Agents(Protocol):
    """The agents that this process can run, by name."""

    def get(self, name: str) -> Agent | None:
        """The agent ``name``, or None."""
        ...

    def names(self) -> list[str]:
        """Every name, in the order of the agents file."""
        ...
