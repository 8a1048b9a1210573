"""The loop: ask the model, run the tools it asks for, until it answers in words."""

import contextlib
from typing import Annotated, Any
from uuid import UUID

import msgspec

from app.agents.port import START_NODE, Outcome, RunContext, Step, ToolIntent
from app.agents.toolloop.answer import Answer
from app.agents.toolloop.calls import Toolbox, key_of
from app.agents.toolloop.conversation import Asked, call_ids, calls_of, paired, unanswered
from app.agents.toolloop.drawing import GRAPH, GRAPH_WITHOUT_TOOLS, SCHEMAS
from app.agents.toolloop.inputs import read_input
from app.base.errors import StepLimit, TokenLimit
from app.domain.events import MessageAdded
from app.domain.messages import AIMessage, InvalidToolCall, Message
from app.domain.state import MESSAGES, State
from app.llm.port import Model, ModelRequest

MODEL_NODE = "agent"
TOOLS_NODE = "tools"

_decode = msgspec.json.Decoder(Message).decode
encode = msgspec.json.Encoder().encode


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one run may take: model and tool steps, seconds, tokens of all its model calls."""

    steps: Annotated[int, msgspec.Meta(ge=1)] = 50
    seconds: Annotated[float, msgspec.Meta(gt=0)] = 600.0
    tokens: Annotated[int, msgspec.Meta(ge=1)] = 1_000_000


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
        """Model and tools, in a circle; the model alone where there are no tools."""
        return GRAPH if self._toolbox.specs else GRAPH_WITHOUT_TOOLS

    def after(self, node: str, state: State) -> tuple[str, ...]:
        """The model after input and tools; the tools after an answer that asks for them."""
        if node in {START_NODE, TOOLS_NODE}:
            return (MODEL_NODE,)
        waits = node == MODEL_NODE and unanswered([_decode(element) for element in state.elements(MESSAGES)])
        return (TOOLS_NODE,) if waits else ()

    async def run(self, context: RunContext) -> Outcome:
        """Go on from where the state stands: with the tools that the last message asks for, or with the model."""
        messages = [_decode(element) for element in context.state.elements(MESSAGES)]
        asked = unanswered(messages)
        if asked is not None and TOOLS_NODE not in context.next:
            await self._take_over(asked, context)
        steps = tokens = 0
        while True:
            self._check_steps(steps, context)
            steps += 1
            if asked is not None:
                messages += await self._run_tools(asked, context)
                asked = None
                continue
            if tokens >= self.limits.tokens:
                raise TokenLimit(
                    f"The run used {tokens} tokens, agent {self.name!r} may use {self.limits.tokens}: raise its "
                    "limits.tokens."
                )
            message = await self._ask_model(messages, context)
            tokens += message.usage_metadata.total_tokens if message.usage_metadata else 0
            step = self._model_step(message, context)
            if not step.next:
                return Outcome(step=step)
            await context.commit(step)
            messages.append(message)
            asked = unanswered(messages)

    def _check_steps(self, steps: int, context: RunContext) -> None:
        if steps >= context.config.recursion_limit:
            raise StepLimit(f"The run took {steps} steps, its recursion_limit; send a higher one in its config.")
        if steps >= self.limits.steps:
            raise StepLimit(f"The run took {steps} steps, the limit of agent {self.name!r}; raise its limits.steps.")

    async def _ask_model(self, messages: list[Message], context: RunContext) -> AIMessage:
        request = ModelRequest(
            messages=paired(messages),
            instructions=self._manner.instructions,
            tools=self._toolbox.specs,
            temperature=self._manner.temperature,
            max_tokens=self._manner.max_tokens,
        )
        answer = Answer(context, MODEL_NODE, lambda: call_ids(messages))
        stream = self._model.stream(request)
        async with contextlib.aclosing(stream) as events:  # type: ignore[type-var]
            async for event in events:
                answer.take(event)
        return answer.message()

    def _model_step(self, message: AIMessage, context: RunContext) -> Step:
        asked = Asked(message.id or "", calls_of(message))
        return Step(
            node=MODEL_NODE,
            update={MESSAGES: [msgspec.Raw(encode(message))]},
            next=(TOOLS_NODE,) if asked.calls else (),
            usage=message.usage_metadata,
            intents=self._intents(asked, context),
        )

    async def _take_over(self, asked: Asked, context: RunContext) -> None:
        """Commit what may start now: these calls came with the input, so no step of the model's has done it."""
        await context.commit(
            Step(node=MODEL_NODE, update={}, next=(TOOLS_NODE,), intents=self._intents(asked, context))
        )

    def _intents(self, asked: Asked, context: RunContext) -> tuple[ToolIntent, ...]:
        return tuple(
            ToolIntent(
                call_id=call.id,
                tool=call.name,
                tool_class=self._toolbox.tool_class(call.name),
                key=key_of(context, asked.message_id, call),
                args=encode(call.args),
            )
            for call in asked.calls
            if not isinstance(call, InvalidToolCall)
        )

    async def _run_tools(self, asked: Asked, context: RunContext) -> list[Message]:
        answers, update = await self._toolbox.run(asked, context)
        raw = [msgspec.Raw(encode(answer)) for answer in answers]
        number = context.step
        await context.commit(Step(node=TOOLS_NODE, update={MESSAGES: raw, **update}, next=(MODEL_NODE,)))
        for message in raw:
            context.emit(MessageAdded(node=TOOLS_NODE, step=number, message=message))
        return list(answers)
