"""The conversation as a function agent sees it: the stored messages and those it has added since."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid5

import msgspec

from app.agents.functions.step_journal import StepJournal
from app.agents.port import RunContext
from app.agents.tool_loop.inputs import read_input
from app.base.errors import Invalid
from app.domain.messages import AIMessage, HumanMessage, Message, SystemMessage, ToolMessage, text_of
from app.domain.state import MESSAGES

MESSAGE = (HumanMessage, AIMessage, SystemMessage, ToolMessage)

_decode = msgspec.json.Decoder(Message).decode
_encode = msgspec.json.Encoder().encode


class FunctionMessages:
    """Stored and added messages. Added messages are committed with the next step."""

    def __init__(self, run: RunContext, journal: StepJournal) -> None:
        self._run = run
        self._journal = journal
        self._stored: list[Message] | None = None
        self._added: dict[str, Message] = {}
        self._streamed: dict[str, AIMessage] = {}
        self._removed: list[str] = []

    def messages(self) -> list[Message]:
        """Return all messages, oldest first."""
        if self._stored is None:
            stored = [_decode(element) for element in self._run.state.elements(MESSAGES)]
            self._stored = [message for message in stored if message.id not in self._journal.said]
        return [*(message for message in self._stored if message.id not in self._added), *self._added.values()]

    def say(self, messages: Sequence[Message], position: str) -> None:
        """Add ``messages``; a missing id is derived from ``position``, so it is the same on every replay."""
        for number, message in enumerate(messages):
            id_ = message.id or str(self.id_at(position, number))
            self._added[id_] = msgspec.structs.replace(message, id=id_)

    def id_at(self, position: str, number: int) -> UUID:
        """Return the id of the message ``number`` added at ``position``."""
        return uuid5(UUID(self._journal.begun.run), f"{position} {number}")

    def add_streamed(self, message: AIMessage) -> None:
        """Note a model's answer that was streamed to clients under its id."""
        if message.id is not None:
            self._streamed[message.id] = message

    def streamed_answer(self, text: str) -> AIMessage | None:
        """Return the latest streamed answer with this ``text``: a function that returns the text means that message."""
        for message in reversed(self._streamed.values()):
            if not message.tool_calls and text_of(message.content) == text:
                return message
        return None

    def uncommitted(self) -> list[Message]:
        """Return added messages that are not committed yet."""
        return [message for id_, message in self._added.items() if id_ not in self._journal.said]

    def remove(self, ids: Sequence[str]) -> None:
        """Remove messages from the conversation, with the next step."""
        self._removed += ids

    def update(self, messages: Sequence[Message]) -> dict[str, Any]:
        """Return the update of the state that applies the removals, then adds ``messages``."""
        removals = [{"type": "remove", "id": id_} for id_ in self._removed]
        self._removed = []
        changes = [*removals, *(msgspec.Raw(_encode(message)) for message in messages)]
        return {MESSAGES: changes} if changes else {}

    def unstreamed(self, messages: Sequence[Message]) -> tuple[msgspec.Raw, ...]:
        """Return those ``messages``, encoded, that no model has streamed already."""
        return tuple(msgspec.Raw(_encode(message)) for message in messages if message.id not in self._streamed)


def to_messages(given: Any, seed: UUID) -> list[Message]:
    """Convert to messages: a person's text, a message, an object with a role, or a list of those.

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
            raise ValueError(f"message {number} is invalid: {str(error).removeprefix('input.0 ')}") from error
    return messages
