"""What a conversation holds of tool calls: which wait for an answer, which ids are taken, which pairs are broken."""

from collections.abc import Iterable

import msgspec

from app.domain.messages import AIMessage, InvalidToolCall, Message, ToolCall, ToolMessage

Call = ToolCall | InvalidToolCall

LOST = "This call has no answer: the run ended before the tool did."


class Asked(msgspec.Struct, frozen=True):
    """The calls that the model's message ``message_id`` asks for and that nothing answers yet."""

    message_id: str
    calls: list[Call]


def calls_of(message: AIMessage) -> list[Call]:
    """Every call that ``message`` asks for, the broken ones last."""
    return [*message.tool_calls, *message.invalid_tool_calls]


def unanswered(newest_first: Iterable[Message]) -> Asked | None:
    """The open calls of the model's last message, if nothing but tools' answers follow it."""
    answered: set[str] = set()
    for message in newest_first:
        if isinstance(message, ToolMessage):
            answered.add(message.tool_call_id)
        elif isinstance(message, AIMessage):
            calls = [call for call in calls_of(message) if call.id not in answered]
            return Asked(message.id or "", calls) if calls else None
        else:
            return None
    return None


def call_ids(messages: Iterable[Message]) -> set[str]:
    """The id of every call so far."""
    return {call.id for message in messages if isinstance(message, AIMessage) for call in calls_of(message)}


def paired(messages: Iterable[Message]) -> list[Message]:
    """``messages`` as a provider takes them: every call is answered right after the message that asks for it.

    A person may speak after a run that was cancelled between the two, or take one of them out; providers refuse such a
    conversation, and would for ever. A call without an answer gets one that says so; an answer without a call is left
    out.
    """
    told: list[Message] = []
    places: dict[str, int] = {}
    for message in messages:
        if isinstance(message, ToolMessage):
            if (place := places.pop(message.tool_call_id, None)) is not None:
                told[place] = message
            continue
        told.append(message)
        if isinstance(message, AIMessage):
            for call in calls_of(message):
                places[call.id] = len(told)
                told.append(ToolMessage(content=LOST, name=call.name, tool_call_id=call.id, status="error"))
    return told
