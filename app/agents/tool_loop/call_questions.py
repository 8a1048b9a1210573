"""One call of a tool: its identity across attempts, and the questions that it asks people."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from typing import Any, Protocol
from uuid import UUID, uuid5

import msgspec

from app.agents.port import Interrupt, RunContext, UnresolvedCall, interrupt_id
from app.agents.tool_loop.client_tools import is_client_tool
from app.agents.tool_loop.conversation import AnyToolCall, PendingCalls
from app.agents.tools.port import NeedsAnswer
from app.domain.state import HIDDEN

KEPT = f"{HIDDEN}tool:"
"""Beginning of the names of hidden values that calls keep for their later attempts."""

Amend = Callable[[dict[str, Any]], Awaitable[None]]
"""Makes hidden values durable without a step."""


class AwaitingAnswers(msgspec.Struct, frozen=True):
    """The outcome of a call that waits for answers to these questions."""

    interrupts: list[Interrupt]


class ReadableValues(Protocol):
    """The thread's values as a tool reads them."""

    def get(self, name: str) -> Any:
        """Return the value ``name``, None if there is none."""
        ...


class CallQuestions:
    """One call of the message ``message_id``: the answers it has ``used``, and its ``open_interrupts``.

    ``edited``: arguments that a person substituted for its own; ``aborted``: a person ends the run here.
    """

    def __init__(
        self, call: AnyToolCall, pending: PendingCalls, context: RunContext, values: ReadableValues, amend: Amend
    ) -> None:
        self.call = call
        self.message_id = pending.message_id
        self.of_client = call.id in pending.client or is_client_tool(call.name, context.instructions.model_options)
        self.context = context
        self.values = values
        self._amend = amend
        self.used: dict[str, Any] = {}
        self.open_interrupts: list[Interrupt] = []
        self.edited: dict[str, Any] | None = None
        self.aborted = False
        self._question_count = 0

    def ask(self, value: Any, expects: dict[str, Any] | None = None, name: str = "") -> Any:
        """Return the answer to the call's next question. Thread-safe.

        Raises ``NeedsAnswer`` if it is unanswered, ``TypeError`` if ``value`` is not valid JSON. A question is
        identified by the call, its arguments, and its ``name``, or its index among the call's unnamed questions.
        """
        call = self.call
        id_ = interrupt_id("tool", self.message_id, call.id, call.name, call.args, name or self._question_count)
        self._question_count += not name
        if id_ in self.context.answers:
            answer = self.used[id_] = self.context.answers[id_]
            return answer
        shown = msgspec.json.decode(msgspec.json.encode(value))
        self.open_interrupts.append(Interrupt(id_, shown, call_id=call.id, expects=expects))
        raise NeedsAnswer(value)

    @property
    def kept(self) -> Any:
        """What an earlier attempt of this call has kept; None if nothing."""
        return self.context.state.get(kept_in(self.context, self.message_id, self.call))

    async def keep(self, value: Any) -> None:
        """Make ``value`` durable for later attempts of this call."""
        await self._amend({kept_in(self.context, self.message_id, self.call): value})


def idempotency_key(context: RunContext, message_id: str, call: AnyToolCall) -> str:
    """Return the idempotency key of a call: the same for every attempt, in later runs of the thread too."""
    return _key_on(context.thread_id, message_id, call)


def _key_on(thread_id: UUID, message_id: str, call: AnyToolCall) -> str:
    return str(uuid5(thread_id, f"{message_id} {call.id}"))


def intent_id(message_id: str, call: AnyToolCall) -> str:
    """Return the id of a call's intent where ids of calls repeat in a run: in graphs and functions.

    ``app.engine.execution.sql`` reads the call's own id from it.
    """
    return f"{call.id} {hashlib.blake2b(message_id.encode(), digest_size=8).hexdigest()}"


def kept_in(context: RunContext, message_id: str, call: AnyToolCall) -> str:
    """Return the name of the hidden value for what attempts of ``call`` keep: those of this thread alone."""
    return f"{KEPT}{idempotency_key(context, message_id, call)}"


def amend_in_turn(context: RunContext) -> Amend:
    """Return how calls that run concurrently amend the run one after the other."""
    lock = asyncio.Lock()

    async def amend(update: dict[str, Any]) -> None:
        async with lock:
            await context.amend(update)

    return amend


def unresolved_call(context: RunContext, message_id: str, call: AnyToolCall) -> UnresolvedCall | None:
    """Return the latest attempt that may have made ``call``; the same id in another message is another call.

    None if an attempt has kept something, by which the next one continues.
    """
    of = context.unresolved_calls
    attempts = [*of.get(call.id, ()), *of.get(intent_id(message_id, call), ())]
    if attempts and context.state.get(kept_in(context, message_id, call)) is not None:
        return None
    return next((one for one in reversed(attempts) if one.key == _key_on(one.thread_id, message_id, call)), None)
