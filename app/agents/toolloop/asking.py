"""A tool call that may ask a person while it runs."""

from typing import Any

import msgspec

from app.agents.port import Interrupt, RunContext, interrupt_id
from app.agents.toolloop.conversation import Call
from app.tools.port import NeedsAnswer


class Waiting(msgspec.Struct, frozen=True):
    """A call that cannot end before these questions are answered."""

    interrupts: list[Interrupt]


class Asking:
    """One call of the message ``message_id``: the answers that it has ``used``, and the questions that are ``open``.

    ``edited`` are the arguments that a person gave it in place of its own; ``aborted``: a person ends the run here.
    """

    def __init__(self, call: Call, message_id: str, context: RunContext) -> None:
        self.call = call
        self.message_id = message_id
        self.context = context
        self.used: dict[str, Any] = {}
        self.open: list[Interrupt] = []
        self.edited: dict[str, Any] | None = None
        self.aborted = False
        self._asked = 0

    def ask(self, value: Any) -> Any:
        """The answer to the call's next question, from any thread.

        Raises ``NeedsAnswer`` while there is none, ``TypeError`` for a ``value`` that is no JSON. A question is known
        by its place among the call's questions, and belongs to the call with these arguments.
        """
        call = self.call
        id_ = interrupt_id("tool", self.message_id, call.id, call.name, call.args, self._asked)
        self._asked += 1
        if id_ in self.context.answers:
            answer = self.used[id_] = self.context.answers[id_]
            return answer
        self.open.append(Interrupt(id_, msgspec.json.decode(msgspec.json.encode(value)), call_id=call.id))
        raise NeedsAnswer(value)
