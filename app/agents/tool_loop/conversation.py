"""What a conversation holds of tool calls: which wait for an answer, which ids are taken, which pairs are broken."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

import msgspec

from app.domain.messages import AIMessage, InvalidToolCall, Message, ToolCall, ToolMessage
from app.domain.state import MESSAGES, ListChannel, State

AnyToolCall = ToolCall | InvalidToolCall

LOST = "This call has no answer: the run ended before the tool did."


_decode = msgspec.json.Decoder(Message).decode


class Conversation(Sequence[Message]):
    """The messages of a thread, each decoded when it is read: a turn of a long thread needs few of them.

    ``plain``: no message asks for a tool, and none is a tool's answer, so all calls and answers are paired.
    """

    def __init__(self, elements: Sequence[bytes], *, plain: bool = False) -> None:
        self.plain = plain
        self._elements = elements[:]
        self._decoded: list[Message | None] = [None] * len(elements)

    @classmethod
    def of(cls, state: State) -> "Conversation":
        """The conversation in ``state``. What is plain is found out once for each message, not once a run."""
        channel = state.channels.get(MESSAGES)
        if not isinstance(channel, ListChannel):
            return cls([], plain=True)
        checked, elements = channel.checked, channel.elements
        message: Message | None = None
        while checked < len(elements) and _is_plain(message := _decode(elements[checked])):
            checked += 1
        channel.checked = checked
        plain = checked == len(elements)
        found = cls(elements, plain=plain)
        if message is not None:  # the last one read, which may be large: it is not decoded again
            found.replace(checked - 1 if plain else checked, message)
        return found

    def __len__(self) -> int:
        return len(self._decoded)

    @overload
    def __getitem__(self, at: int) -> Message: ...
    @overload
    def __getitem__(self, at: slice) -> list[Message]: ...

    def __getitem__(self, at: int | slice) -> Any:
        if isinstance(at, slice):
            return [self[place] for place in range(*at.indices(len(self)))]
        found = self._decoded[at]
        if found is None:
            found = self._decoded[at] = _decode(self._elements[at if at >= 0 else at + len(self)])
        return found

    def __iter__(self) -> Iterator[Message]:
        return (self[place] for place in range(len(self)))

    def replace(self, place: int, message: Message) -> None:
        """Put ``message`` in the place of another."""
        self._decoded[place] = message
        self.plain = self.plain and _is_plain(message)

    def extend(self, messages: Iterable[Message]) -> None:
        """Add ``messages`` at the end."""
        for message in messages:
            self._decoded.append(message)
            self.plain = self.plain and _is_plain(message)


def _is_plain(message: Message) -> bool:
    return not isinstance(message, ToolMessage) and not (isinstance(message, AIMessage) and calls_of(message))


class PendingCalls(msgspec.Struct, frozen=True):
    """The calls that the model's message ``message_id`` asks for and that nothing answers yet."""

    message_id: str
    calls: list[AnyToolCall]


def calls_of(message: AIMessage) -> list[AnyToolCall]:
    """Every call that ``message`` asks for, the broken ones last."""
    return [*message.tool_calls, *message.invalid_tool_calls]


def unanswered(newest_first: Iterable[Message]) -> PendingCalls | None:
    """The open calls of the model's last message, if nothing but tools' answers follow it."""
    answered: set[str] = set()
    for message in newest_first:
        if isinstance(message, ToolMessage):
            answered.add(message.tool_call_id)
        elif isinstance(message, AIMessage):
            calls = [call for call in calls_of(message) if call.id not in answered]
            return PendingCalls(message.id or "", calls) if calls else None
        else:
            return None
    return None


def call_ids(messages: Iterable[Message]) -> set[str]:
    """The id of every call so far."""
    return {call.id for message in messages if isinstance(message, AIMessage) for call in calls_of(message)}


def paired(messages: Iterable[Message]) -> Sequence[Message]:
    """``messages`` as a provider takes them: every call is answered right after the message that asks for it.

    A person may speak after a run that was cancelled between the two, or take one of them out; providers refuse such a
    conversation, and would for ever. A call without an answer gets one that says so; an answer without a call is left
    out.
    """
    if isinstance(messages, Conversation) and messages.plain:
        return messages
    completed: list[Message] = []
    places: dict[str, int] = {}
    for message in messages:
        if isinstance(message, ToolMessage):
            if (place := places.pop(message.tool_call_id, None)) is not None:
                completed[place] = message
            continue
        completed.append(message)
        if isinstance(message, AIMessage):
            for call in calls_of(message):
                places[call.id] = len(completed)
                completed.append(ToolMessage(content=LOST, name=call.name, tool_call_id=call.id, status="error"))
    return completed
