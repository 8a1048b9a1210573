"""Scripted models: the offline default, and models for checks and benchmarks."""

from collections.abc import AsyncIterator, Callable, Sequence

import msgspec

from app.domain.messages import AIMessage, HumanMessage, Message, ToolCall, Usage, text_of
from app.providers.llm.demo import scripted_reply
from app.providers.llm.port import Finished, ModelEvent, ModelRequest, TextDelta, ToolCallDelta

VENDOR = "scripted"
STREAM100 = tuple(TextDelta(f"tok{number} ") for number in range(100))


class EchoModel:
    """Repeat the last human text as one delta. It reads nothing else, and counts the tokens of that text only."""

    vendor = VENDOR
    name = "echo"

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """Yield ``echo:`` and the text (``app.providers.llm.port.Model``)."""
        text = last_human_text(request.messages)
        event = TextDelta("echo: " + text)
        yield event
        yield finish(self.name, msgspec.structs.replace(request, messages=[HumanMessage(content=text)]), (event,))


class Stream100Model:
    """Send a hundred tokens without delay."""

    vendor = VENDOR
    name = "stream100"

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """Yield ``tok0`` to ``tok99`` (``app.providers.llm.port.Model``)."""
        for event in STREAM100:
            yield event
        yield finish(self.name, request, STREAM100)


class DemoModel:
    """The offline default: it introduces itself as a script, calls the offered tools and shows their results."""

    vendor = VENDOR
    name = "demo"

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """Perform the demonstration (``app.providers.llm.port.Model``)."""
        text, calls = scripted_reply(request)
        events: list[ModelEvent] = [TextDelta(piece) for piece in pieces(text)]
        events += [delta_of(index, call) for index, call in enumerate(calls)]
        for event in events:
            yield event
        yield finish(self.name, request, events)


MODELS: dict[str, Callable[[], DemoModel | EchoModel | Stream100Model]] = {
    "demo": DemoModel,
    "echo": EchoModel,
    "stream100": Stream100Model,
}


def last_human_text(messages: Sequence[Message]) -> str:
    """Return the text of the last human message; empty if there is none."""
    for message in reversed(messages):
        if isinstance(message, HumanMessage):
            return text_of(message.content)
    return ""


def delta_of(index: int, call: ToolCall) -> ToolCallDelta:
    """Return the whole call number ``index`` as one delta."""
    return ToolCallDelta(index, call.id, call.name, msgspec.json.encode(call.args).decode())


def pieces(text: str) -> list[str]:
    """Split ``text`` into words, each with the space that follows it, as a model streams it."""
    words = text.split(" ")
    return [word + " " for word in words[:-1]] + [word for word in words[-1:] if word]


def finish(name: str, request: ModelRequest, events: Sequence[ModelEvent], vendor: str = VENDOR) -> Finished:
    """Return the end of a scripted answer. Its tokens are words, counted by the spaces between them."""
    input_tokens = words_in(request.instructions)
    for message in request.messages:
        input_tokens += words_in(text_of(message.content))
        if isinstance(message, AIMessage):
            input_tokens += len(message.tool_calls)
    calls = sum(1 for event in events if isinstance(event, ToolCallDelta) and event.name)
    output_tokens = calls + words_in("".join(event.text for event in events if isinstance(event, TextDelta)))
    usage = Usage(input_tokens, output_tokens, input_tokens + output_tokens)
    return Finished(reason="tool_calls" if calls else "stop", model=name, vendor=vendor, usage=usage)


def words_in(text: str) -> int:
    """Return the number of words in ``text``, counted by spaces: cheap for long conversations."""
    text = text.strip()
    return text.count(" ") + 1 if text else 0
