"""Models that play a script: the offline default, the models that checks and benchmarks use, and the tests' double."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence

import msgspec

from app.base.errors import ModelRejected
from app.domain.messages import AIMessage, HumanMessage, Message, ToolCall, Usage, text_of
from app.providers.llm.demo import scripted_reply
from app.providers.llm.port import Finished, ModelEvent, ModelRequest, TextDelta, ToolCallDelta

VENDOR = "scripted"
STREAM100 = tuple(TextDelta(f"tok{number} ") for number in range(100))

ScriptLine = str | ToolCall | ModelEvent | BaseException | asyncio.Event
"""One thing of a turn: a piece of text, a call, any event, an error to raise, or an event to wait for."""

ScriptTurn = str | Sequence[ScriptLine]


class ScriptedModel:
    """Plays ``turns``, one for each call of ``stream``, and keeps what it was asked in ``requests``.

    A ``Finished`` is added where a turn has none. With no turn left it raises ``ModelRejected``.
    """

    def __init__(self, turns: Iterable[ScriptTurn], *, name: str = "test", vendor: str = VENDOR) -> None:
        self.vendor = vendor
        self.name = name
        self.requests: list[ModelRequest] = []
        self._turns = iter(turns)

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """Play the next turn (``app.providers.llm.port.Model``)."""
        self.requests.append(request)
        turn = next(self._turns, None)
        if turn is None:
            raise ModelRejected("the script has no more turns", vendor=self.vendor)
        said: list[ModelEvent] = []
        calls = 0
        for line in (turn,) if isinstance(turn, str) else turn:
            if isinstance(line, BaseException):
                raise line
            if isinstance(line, asyncio.Event):
                await line.wait()
                continue
            event: ModelEvent
            if isinstance(line, str):
                event = TextDelta(line)
            elif isinstance(line, ToolCall):
                event = delta_of(calls, line)
                calls += 1
            else:
                event = line
            said.append(event)
            yield event
        if not said or not isinstance(said[-1], Finished):
            yield finish(self.name, request, said, vendor=self.vendor)


class EchoModel:
    """Says the last human text again, in one piece. It reads nothing else, and its tokens are those of that text."""

    vendor = VENDOR
    name = "echo"

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """Say ``echo:`` and the text (``app.providers.llm.port.Model``)."""
        text = last_human_text(request.messages)
        event = TextDelta("echo: " + text)
        yield event
        yield finish(self.name, msgspec.structs.replace(request, messages=[HumanMessage(content=text)]), (event,))


class Stream100Model:
    """Says a hundred tokens at once."""

    vendor = VENDOR
    name = "stream100"

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """Say ``tok0`` to ``tok99`` (``app.providers.llm.port.Model``)."""
        for event in STREAM100:
            yield event
        yield finish(self.name, request, STREAM100)


class DemoModel:
    """The offline default: it says that it is a script, calls the tools it is offered and shows what they gave."""

    vendor = VENDOR
    name = "demo"

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """Perform the demonstration (``app.providers.llm.port.Model``)."""
        text, calls = scripted_reply(request)
        said: list[ModelEvent] = [TextDelta(piece) for piece in pieces(text)]
        said += [delta_of(index, call) for index, call in enumerate(calls)]
        for event in said:
            yield event
        yield finish(self.name, request, said)


MODELS: dict[str, Callable[[], DemoModel | EchoModel | Stream100Model]] = {
    "demo": DemoModel,
    "echo": EchoModel,
    "stream100": Stream100Model,
}


def last_human_text(messages: Sequence[Message]) -> str:
    """The text of the last human message, empty where there is none."""
    for message in reversed(messages):
        if isinstance(message, HumanMessage):
            return text_of(message.content)
    return ""


def delta_of(index: int, call: ToolCall) -> ToolCallDelta:
    """The call number ``index``, whole."""
    return ToolCallDelta(index, call.id, call.name, msgspec.json.encode(call.args).decode())


def pieces(text: str) -> list[str]:
    """``text`` in pieces of a word, each with the space that follows it, as a model streams it."""
    words = text.split(" ")
    return [word + " " for word in words[:-1]] + [word for word in words[-1:] if word]


def finish(name: str, request: ModelRequest, said: Sequence[ModelEvent], vendor: str = VENDOR) -> Finished:
    """The end of a scripted answer. Its tokens are words, counted by the spaces between them."""
    asked = words_in(request.instructions)
    for message in request.messages:
        asked += words_in(text_of(message.content))
        if isinstance(message, AIMessage):
            asked += len(message.tool_calls)
    calls = sum(1 for event in said if isinstance(event, ToolCallDelta) and event.name)
    answered = calls + words_in("".join(event.text for event in said if isinstance(event, TextDelta)))
    usage = Usage(asked, answered, asked + answered)
    return Finished(reason="tool_calls" if calls else "stop", model=name, vendor=vendor, usage=usage)


def words_in(text: str) -> int:
    """The number of words in ``text``, by its spaces: exact enough, and cheap for long conversations."""
    text = text.strip()
    return text.count(" ") + 1 if text else 0
