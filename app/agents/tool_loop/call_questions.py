"""One call of a tool: its identity across attempts, and the questions that it asks people."""

from typing import Any, Protocol
from uuid import UUID, uuid5

import msgspec

from app.agents.port import Interrupt, RunContext, UnresolvedCall, interrupt_id
from app.agents.tool_loop.client_tools import is_client_tool
from app.agents.tool_loop.conversation import AnyToolCall, PendingCalls
from app.agents.tools.port import NeedsAnswer


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

    def __init__(self, call: AnyToolCall, pending: PendingCalls, context: RunContext, values: ReadableValues) -> None:
        self.call = call
        self.message_id = pending.message_id
        self.of_client = call.id in pending.client or is_client_tool(call.name, context.instructions.model_options)
        self.context = context
        self.values = values
        self.used: dict[str, Any] = {}
        self.open_interrupts: list[Interrupt] = []
        self.edited: dict[str, Any] | None = None
        self.aborted = False
        self._question_count = 0

    def ask(self, value: Any) -> Any:
        """Return the answer to the call's next question. Thread-safe.

        Raises ``NeedsAnswer`` if it is unanswered, ``TypeError`` if ``value`` is not valid JSON. A question is
        identified by the call, its arguments, and its index among the call's questions.
        """
        call = self.call
        id_ = interrupt_id("tool", self.message_id, call.id, call.name, call.args, self._question_count)
        self._question_count += 1
        if id_ in self.context.answers:
            answer = self.used[id_] = self.context.answers[id_]
            return answer
        self.open_interrupts.append(Interrupt(id_, msgspec.json.decode(msgspec.json.encode(value)), call_id=call.id))
        raise NeedsAnswer(value)


def idempotency_key(context: RunContext, message_id: str, call: AnyToolCall) -> str:
    """Return the idempotency key of a call: the same for every attempt, in later runs of the thread too."""
    return _key_on(context.thread_id, message_id, call)


def _key_on(thread_id: UUID, message_id: str, call: AnyToolCall) -> str:
    return str(uuid5(thread_id, f"{message_id} {call.id}"))


def unresolved_call(context: RunContext, message_id: str, call: AnyToolCall) -> UnresolvedCall | None:
    """Return the latest attempt that may have made ``call``; the same id in another message is another call."""
    attempts = reversed(context.unresolved_calls.get(call.id, ()))
    return next((one for one in attempts if one.key == _key_on(one.thread_id, message_id, call)), None)
