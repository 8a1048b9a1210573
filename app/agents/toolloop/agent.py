"""The loop: ask the model, run the tools it asks for, until it answers in words."""

import contextlib
from typing import Any
from uuid import UUID

import msgspec

from app.agents.port import Outcome, RunContext, Step, ToolIntent
from app.agents.toolloop.answer import Answer
from app.agents.toolloop.calls import Toolbox, key_of
from app.agents.toolloop.drawing import GRAPH, SCHEMAS
from app.agents.toolloop.inputs import read_input
from app.base.errors import StepLimit, TokenLimit
from app.domain.events import MessageAdded
from app.domain.messages import AIMessage, InvalidToolCall, Message, ToolCall, ToolMessage
from app.domain.state import MESSAGES
from app.llm.port import Model, ModelRequest

MODEL_NODE = "agent"
TOOLS_NODE = "tools"

_decode = msgspec.json.Decoder(Message).decode
encode = msgspec.json.Encoder().encode


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one run may take: model and tool steps, seconds, tokens of all its model calls."""

    steps: int = 50
    seconds: float = 600.0
    tokens: int = 1_000_000


class Manner(msgspec.Struct, frozen=True, kw_only=True):
    """How an agent speaks: its system prompt, its bounds, and what it asks of the model (None: the model's own)."""

    instructions: str = ""
    limits: Limits = Limits()
    temperature: float | None = None
    max_tokens: int | None = None


class ToolLoop:
    """An agent out of a model, instructions and tools (``app.agents.port.Agent``)."""

    nodes: tuple[str, ...] = (MODEL_NODE, TOOLS_NODE)

    def __init__(
        self,
        name: str,
        model: Model,
        toolbox: Toolbox,
        manner: Manner = Manner(),
        description: str = "",
    ) -> None:
        self.name = name
        self.description = description
        self.limits = manner.limits
        self.seconds = manner.limits.seconds
        self._model = model
        self._toolbox = toolbox
        self._manner = manner

    def read_input(self, value: Any, run_id: UUID) -> dict[str, Any]:
        """Messages in any of the usual forms."""
        return read_input(value, run_id)

    def schemas(self) -> dict[str, Any]:
        """Of a conversation."""
        return SCHEMAS

    def graph(self) -> dict[str, Any]:
        """Model and tools, in a circle."""
        return GRAPH

    async def run(self, context: RunContext) -> Outcome:
        """Go on from where the state stands: with the tools that the last message asks for, or with the model."""
        messages = [_decode(element) for element in context.state.elements(MESSAGES)]
        steps = min(self.limits.steps, context.config.recursion_limit)
        tokens = 0
        while True:
            if steps <= 0:
                raise StepLimit(
                    "The run took more steps than its limit: raise the agent's limits.steps or its recursion_limit."
                )
            steps -= 1
            calls = unanswered(messages)
            if calls:
                messages += await self._run_tools(calls, context)
                continue
            if tokens >= self.limits.tokens:
                raise TokenLimit(f"The run used {tokens} tokens; its limit is {self.limits.tokens} (limits.tokens).")
            message = await self._ask_model(messages, context)
            tokens += message.usage_metadata.total_tokens if message.usage_metadata else 0
            step = self._model_step(message, context)
            if not step.next:
                return Outcome(step=step)
            await context.commit(step)
            messages.append(message)

    async def _ask_model(self, messages: list[Message], context: RunContext) -> AIMessage:
        request = ModelRequest(
            messages=messages,
            instructions=self._manner.instructions,
            tools=self._toolbox.specs,
            temperature=self._manner.temperature,
            max_tokens=self._manner.max_tokens,
        )
        answer = Answer(context, MODEL_NODE)
        stream = self._model.stream(request)
        async with contextlib.aclosing(stream) as events:  # type: ignore[type-var]
            async for event in events:
                answer.take(event)
        return answer.message()

    def _model_step(self, message: AIMessage, context: RunContext) -> Step:
        calls = [*message.tool_calls, *message.invalid_tool_calls]
        return Step(
            node=MODEL_NODE,
            update={MESSAGES: [msgspec.Raw(encode(message))]},
            next=(TOOLS_NODE,) if calls else (),
            usage=message.usage_metadata,
            intents=tuple(
                ToolIntent(
                    call_id=call.id,
                    tool=call.name,
                    tool_class=self._toolbox.tool_class(call.name),
                    key=key_of(context, call),
                    args=encode(call.args),
                )
                for call in message.tool_calls
            ),
        )

    async def _run_tools(self, calls: list[ToolCall | InvalidToolCall], context: RunContext) -> list[Message]:
        answers, update = await self._toolbox.run(calls, context)
        raw = [msgspec.Raw(encode(answer)) for answer in answers]
        number = context.step
        await context.commit(Step(node=TOOLS_NODE, update={MESSAGES: raw, **update}, next=(MODEL_NODE,)))
        for message in raw:
            context.emit(MessageAdded(node=TOOLS_NODE, step=number, message=message))
        return list(answers)


def unanswered(messages: list[Message]) -> list[ToolCall | InvalidToolCall]:
    """The calls of the last model message that no tool message answers yet."""
    answered: set[str] = set()
    for message in reversed(messages):
        if isinstance(message, ToolMessage):
            answered.add(message.tool_call_id)
        elif isinstance(message, AIMessage):
            calls: list[ToolCall | InvalidToolCall] = [*message.tool_calls, *message.invalid_tool_calls]
            return [call for call in calls if call.id not in answered]
        else:
            return []
    return []
