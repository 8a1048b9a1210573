"""The messages of a thread, and their tool calls: unanswered calls, used ids, and pairing calls with answers."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

import msgspec

from app.domain.messages import WAITING_CALLS, AIMessage, InvalidToolCall, Message, ToolCall, ToolMessage
from app.domain.state import MESSAGES, ListChannel, State

AnyToolCall = ToolCall | InvalidToolCall

UNANSWERED = "This call has no answer: the run ended before the tool did."


_decode = msgspec.json.Decoder(Message).decode


class Conversation(Sequence[Message]):
    """Lazily decoded messages of a thread: a run of a long thread reads few of them.

    ``plain``: there are no tool calls and no tool messages, so nothing has to be paired.
    """

    def __init__(self, elements: Sequence[bytes], *, plain: bool = False) -> None:
        self.plain = plain
        self._elements = elements[:]
        self._decoded: list[Message | None] = [None] * len(elements)

    @classmethod
    def of(cls, state: State) -> "Conversation":
        """Load the conversation from ``state``. Each message is checked for tool calls once, not once per run."""
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
        if message is not None:  # keep the last decoded message: it may be large
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
            return [self[index] for index in range(*at.indices(len(self)))]
        found = self._decoded[at]
        if found is None:
            found = self._decoded[at] = _decode(self._elements[at if at >= 0 else at + len(self)])
        return found

    def __iter__(self) -> Iterator[Message]:
        return (self[index] for index in range(len(self)))

    def replace(self, index: int, message: Message) -> None:
        """Replace the message at ``index``."""
        self._decoded[index] = message
        self.plain = self.plain and _is_plain(message)

    def extend(self, messages: Iterable[Message]) -> None:
        """Append ``messages``."""
        for message in messages:
            self._decoded.append(message)
            self.plain = self.plain and _is_plain(message)


def _is_plain(message: Message) -> bool:
    return not isinstance(message, ToolMessage) and not (isinstance(message, AIMessage) and calls_of(message))


class PendingCalls(msgspec.Struct, frozen=True):
    """The unanswered calls of the model's message ``message_id``; ``client``: ids of calls that its caller runs."""

    message_id: str
    calls: list[AnyToolCall]
    client: frozenset[str] = frozenset()


def calls_of(message: AIMessage) -> list[AnyToolCall]:
    """Return all calls of ``message``, invalid ones last."""
    return [*message.tool_calls, *message.invalid_tool_calls]


def unanswered(newest_first: Iterable[Message]) -> PendingCalls | None:
    """Return the unanswered calls of the model's last message, if only tool messages follow it."""
    answered: set[str] = set()
    for message in newest_first:
        if isinstance(message, ToolMessage):
            answered.add(message.tool_call_id)
        elif isinstance(message, AIMessage):
            calls = [call for call in calls_of(message) if call.id not in answered]
            return PendingCalls(message.id or "", calls, _client_calls(message)) if calls else None
        else:
            return None
    return None


def _client_calls(message: AIMessage) -> frozenset[str]:
    waiting = message.response_metadata.get(WAITING_CALLS)
    kinds = waiting if isinstance(waiting, dict) else {}
    return frozenset(call_id for call_id, kind in kinds.items() if kind == "client")


def call_ids(messages: Iterable[Message]) -> set[str]:
    """Return the ids of all calls in ``messages``."""
    return {call.id for message in messages if isinstance(message, AIMessage) for call in calls_of(message)}


def paired(messages: Iterable[Message]) -> Sequence[Message]:
    """Pair tool calls with their answers, as providers require: each answer right after the message with its call.

    A person may write after a run that was cancelled between the two, or remove one of them; providers reject such a
    conversation. A call without an answer gets an error message as its answer; an answer without a call is dropped.
    """
    if isinstance(messages, Conversation) and messages.plain:
        return messages
    completed: list[Message] = []
    answer_indexes: dict[str, int] = {}
    for message in messages:
        if isinstance(message, ToolMessage):
            if (index := answer_indexes.pop(message.tool_call_id, None)) is not None:
                completed[index] = message
            continue
        completed.append(message)
        if isinstance(message, AIMessage):
            for call in calls_of(message):
                answer_indexes[call.id] = len(completed)
                completed.append(ToolMessage(content=UNANSWERED, name=call.name, tool_call_id=call.id, status="error"))
    return completed
