"""The thread's conversation as the function sees it: what was there when it began, and what it has said since."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid5

import msgspec

from app.agents.functions.step_journal import StepJournal
from app.agents.port import RunContext
from app.agents.tool_loop.inputs import read_input
from app.base.errors import Invalid
from app.domain.events import MessageAdded
from app.domain.messages import AIMessage, HumanMessage, Message, SystemMessage, ToolMessage, text_of
from app.domain.state import MESSAGES

MESSAGE = (HumanMessage, AIMessage, SystemMessage, ToolMessage)

_decode = msgspec.json.Decoder(Message).decode
_encode = msgspec.json.Encoder().encode


class FunctionMessages:
    """Messages there, messages said. What is said is committed with the next step."""

    def __init__(self, run: RunContext, journal: StepJournal) -> None:
        self._run = run
        self._journal = journal
        self._there: list[Message] | None = None
        self._said: dict[str, Message] = {}
        self._streamed: dict[str, AIMessage] = {}
        self._out: list[str] = []

    def messages(self) -> list[Message]:
        """All of them, oldest first."""
        if self._there is None:
            there = [_decode(element) for element in self._run.state.elements(MESSAGES)]
            self._there = [message for message in there if message.id not in self._journal.said]
        return [*(message for message in self._there if message.id not in self._said), *self._said.values()]

    def say(self, messages: Sequence[Message], place: str) -> None:
        """Add ``messages``; one without an id gets one that is the same whenever ``place`` says it again."""
        for number, message in enumerate(messages):
            id_ = message.id or str(self.id_at(place, number))
            self._said[id_] = msgspec.structs.replace(message, id=id_)

    def id_at(self, place: str, number: int) -> UUID:
        """The id of the message ``number`` that is said at ``place``."""
        return uuid5(UUID(self._journal.begun.run), f"{place} {number}")

    def streamed(self, message: AIMessage) -> None:
        """A model's answer that clients have seen, under its id."""
        if message.id is not None:
            self._streamed[message.id] = message

    def answer_with(self, text: str) -> AIMessage | None:
        """The latest answer of a model that says ``text``: a function that returns the text means that message."""
        for message in reversed(self._streamed.values()):
            if not message.tool_calls and text_of(message.content) == text:
                return message
        return None

    def new(self) -> list[Message]:
        """What is said and not committed."""
        return [message for id_, message in self._said.items() if id_ not in self._journal.said]

    def take_out(self, ids: Sequence[str]) -> None:
        """Take messages out of the conversation, with the next step."""
        self._out += ids

    def update(self, messages: Sequence[Message]) -> dict[str, Any]:
        """The update of the state that adds ``messages``, after what is taken out."""
        out = [{"type": "remove", "id": id_} for id_ in self._out]
        self._out = []
        changes = [*out, *(msgspec.Raw(_encode(message)) for message in messages)]
        return {MESSAGES: changes} if changes else {}

    def announce(self, messages: Sequence[Message], node: str, step: int) -> None:
        """Tell clients of those ``messages`` that they have not seen as a model said them."""
        for message in messages:
            if message.id not in self._streamed:
                raw = msgspec.Raw(_encode(message))
                self._run.emit(MessageAdded(node=node, step=step, message=raw))


def structs(given: Any, seed: UUID) -> list[Message]:
    """Messages in any of the usual forms: a text of a person, a message, an object with a role, or a list of those.

    Raises ``ValueError``.
    """
    if isinstance(given, MESSAGE):
        return [given]
    if not isinstance(given, list | tuple) or (len(given) == 2 and all(isinstance(one, str) for one in given)):
        given = [given]
    messages: list[Message] = []
    for number, one in enumerate(given):
        if isinstance(one, MESSAGE):
            messages.append(one)
            continue
        try:
            (raw,) = read_input([list(one) if isinstance(one, tuple) else one], uuid5(seed, str(number)))[MESSAGES]
            messages.append(_decode(raw))
        except (Invalid, msgspec.ValidationError) as error:
            raise ValueError(f"message {number} is none: {str(error).removeprefix('input.0 ')}") from error
    return messages
