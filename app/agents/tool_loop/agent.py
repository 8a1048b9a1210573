"""The tool loop: call the model, run the tools it requests, and repeat until it answers without tool calls."""

import contextlib
from collections.abc import Sequence
from typing import Annotated, Any
from uuid import UUID

import msgspec

from app.agents.port import (
    RESUME_NODE,
    START_NODE,
    ModelOptions,
    RunContext,
    RunOutcome,
    Step,
    ToolDescription,
    ToolIntent,
)
from app.agents.tool_loop.answer_stream import AnswerAssembler, answered_by
from app.agents.tool_loop.call_questions import idempotency_key
from app.agents.tool_loop.calls import Toolbox
from app.agents.tool_loop.client_tools import (
    after_first_call,
    check_options,
    check_output,
    enforce_choice,
    offered_tools,
)
from app.agents.tool_loop.conversation import Conversation, PendingCalls, call_ids, calls_of, paired, unanswered
from app.agents.tool_loop.conversation_window import ConversationWindow, SummaryMemory
from app.agents.tool_loop.graph import MEMORY_NODE, MODEL_NODE, SCHEMAS, TOOLS_NODE, graph_of
from app.agents.tool_loop.inputs import read_input
from app.base.errors import StepLimit, TokenLimit
from app.domain.messages import WAITING_CALLS, AIMessage, Message
from app.domain.state import MESSAGES, State
from app.providers.llm.port import Model, ModelRequest

_decode = msgspec.json.Decoder(Message).decode
encode = msgspec.json.Encoder().encode


class RunLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits of one run: model and tool steps, seconds, tokens of all its model calls."""

    steps: Annotated[int, msgspec.Meta(ge=1)] = 50
    seconds: Annotated[float, msgspec.Meta(gt=0)] = 600.0
    tokens: Annotated[int, msgspec.Meta(ge=1)] = 1_000_000


class ToolLoopConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of an agent: system prompt, limits, and model parameters (None: the model's default)."""

    instructions: str = ""
    limits: RunLimits = RunLimits()
    temperature: float | None = None
    max_tokens: int | None = None


class ToolLoop:
    """An agent made of a model, instructions and tools (``app.agents.port.Agent``)."""

    def __init__(
        self,
        name: str,
        model: Model,
        toolbox: Toolbox,
        config: ToolLoopConfig = ToolLoopConfig(),
        description: str = "",
        memory: SummaryMemory | None = None,
    ) -> None:
        """``memory`` keeps long conversations within a token budget. Raises ``UsageError`` if it is too small."""
        self.name = name
        self.description = description
        self.limits = config.limits
        self.seconds = config.limits.seconds
        self._model = model
        self._toolbox = toolbox
        self._config = config
        self._memory = memory
        self._fixed_tokens = 0 if memory is None else memory.fixed_tokens(config.instructions, toolbox.specs)
        self.nodes: tuple[str, ...] = (MODEL_NODE, TOOLS_NODE, *([] if memory is None else [MEMORY_NODE]))

    def tools(self) -> list[ToolDescription]:
        """Return its tools."""
        return self._toolbox.describe()

    def peers(self) -> frozenset[str]:
        """Return the names of its tools that are other agents."""
        return self._toolbox.peers

    def read_input(self, value: Any, run_id: UUID) -> dict[str, Any]:
        """Read messages in any supported form. Raises ``Unavailable`` if its tools cannot be used."""
        self._toolbox.check()
        return read_input(value, run_id)

    def read_update(self, value: Any, run_id: UUID) -> dict[str, Any]:
        """Read messages and values, as ``read_input``."""
        return read_input(value, run_id)

    def check_options(self, options: ModelOptions) -> None:
        """Validate the tools and instructions that a caller adds."""
        check_options(options, self.name, [spec.name for spec in self._toolbox.specs])

    def schemas(self) -> dict[str, Any]:
        """Return the JSON Schemas of a conversation."""
        return SCHEMAS

    def graph(self) -> dict[str, Any]:
        """Return the graph of model and tools."""
        return graph_of(tools=bool(self._toolbox.specs), memory=self._memory is not None)

    def after(self, node: str, state: State) -> tuple[str, ...]:
        """Return the tools node if the last message has open calls, else the model, or nothing after the model."""
        if node not in {START_NODE, RESUME_NODE, *self.nodes}:
            return ()
        if unanswered(map(_decode, reversed(state.elements(MESSAGES)))):
            return (TOOLS_NODE,)
        return () if node == MODEL_NODE else (MODEL_NODE,)

    async def run(self, context: RunContext) -> RunOutcome:
        """Resume at the next node, the open tool calls or the model, and loop until the run ends."""
        messages = Conversation.of(context.state)
        pending = unanswered(reversed(messages)) if TOOLS_NODE in context.next else None
        if pending is None and MODEL_NODE not in context.next and TOOLS_NODE not in context.next:
            return RunOutcome()
        if pending is not None:
            await context.intend(self._intents(pending, context))
        options = context.instructions.model_options
        window = self._window(options)
        steps = tokens = 0
        while True:
            self._check_steps(steps, context)
            steps += 1
            if pending is not None:
                waiting = await self._run_tools(pending, messages, context)
                if waiting is not None:
                    return waiting
                pending = None
                continue
            self._check_tokens(tokens)
            while window is not None and (summary := await window.step(messages, context)) is not None:
                await context.commit(summary)
                tokens += summary.usage.total_tokens if summary.usage else 0
                self._check_tokens(tokens)
            shown = window.select(messages, context) if window else messages
            message = await self._ask_model(messages, shown, options, context)
            options = after_first_call(options)
            tokens += message.usage_metadata.total_tokens if message.usage_metadata else 0
            step = self._model_step(message, context)
            if not step.next:
                check_output(message, options)
                return RunOutcome(step=step)
            await context.commit(step)
            messages.extend([message])
            pending = unanswered(reversed(messages))

    def _check_steps(self, steps: int, context: RunContext) -> None:
        if steps >= context.config.recursion_limit:
            raise StepLimit(f"The run took {steps} steps, its recursion_limit; send a higher one in its config.")
        if steps >= self.limits.steps:
            raise StepLimit(f"The run took {steps} steps, the limit of agent {self.name!r}; raise its limits.steps.")

    def _check_tokens(self, tokens: int) -> None:
        if tokens >= self.limits.tokens:
            raise TokenLimit(
                f"The run used {tokens} tokens, agent {self.name!r} may use {self.limits.tokens}: raise its "
                "limits.tokens."
            )

    def _window(self, options: ModelOptions) -> ConversationWindow | None:
        if self._memory is None:
            return None
        fixed_tokens = self._fixed_tokens
        if options.tools or options.instructions:
            specs = offered_tools(self._toolbox.specs, options)
            fixed_tokens = self._memory.fixed_tokens(self._instructions(options), specs)
        return ConversationWindow(self._memory, fixed_tokens)

    def _instructions(self, options: ModelOptions) -> str:
        return "\n\n".join(text for text in (self._config.instructions, options.instructions) if text)

    async def _ask_model(
        self, messages: Sequence[Message], window: Sequence[Message], options: ModelOptions, context: RunContext
    ) -> AIMessage:
        """Call the model with the ``window`` of the conversation's ``messages``. Raises ``ModelError``."""
        request = ModelRequest(
            messages=paired(window),
            instructions=self._instructions(options),
            tools=offered_tools(self._toolbox.specs, options),
            tool_choice=options.tool_choice,
            parallel_tool_calls=options.parallel_tool_calls,
            output_schema=options.output_schema,
            temperature=self._config.temperature,
            max_tokens=self._config.max_tokens,
            tenant=str(context.tenant_id),
        )
        context.check_lease()
        answer = AnswerAssembler(context, MODEL_NODE, lambda: call_ids(messages))
        stream = self._model.stream(request)
        async with contextlib.aclosing(stream) as events:  # type: ignore[type-var]
            async for event in events:
                answer.add(event)
        message = enforce_choice(answer.message(), options)
        if waiting := self._toolbox.waiting(message, options):
            message.response_metadata = {**message.response_metadata, WAITING_CALLS: waiting}
        return message

    def _model_step(self, message: AIMessage, context: RunContext) -> Step:
        pending = PendingCalls(message.id or "", calls_of(message))
        return Step(
            node=MODEL_NODE,
            update={MESSAGES: [msgspec.Raw(encode(message))]},
            next=(TOOLS_NODE,) if pending.calls else (),
            usage=message.usage_metadata,
            model=answered_by(message),
            intents=self._intents(pending, context),
        )

    def _intents(self, pending: PendingCalls, context: RunContext) -> tuple[ToolIntent, ...]:
        return tuple(
            ToolIntent(
                call_id=call.id,
                tool=call.name,
                tool_class=self._toolbox.tool_class(call.name),
                key=idempotency_key(context, pending.message_id, call),
                args=encode(call.args),
            )
            for call in pending.calls
            if self._toolbox.may_start(call, pending.message_id, context)
        )

    async def _run_tools(self, pending: PendingCalls, messages: Conversation, context: RunContext) -> RunOutcome | None:
        """Run the calls and add their answers to ``messages``. Return an outcome if some wait for a person."""
        answers = await self._toolbox.run(pending, context)
        new: list[Message] = [*_revised(messages, pending.message_id, answers.edited), *answers.messages]
        raw = [msgspec.Raw(encode(message)) for message in new]
        next_node = TOOLS_NODE if answers.interrupts else MODEL_NODE
        step = Step(
            node=TOOLS_NODE,
            update={MESSAGES: raw, **answers.update, **answers.forget},
            next=(next_node,),
            added=tuple(raw[len(raw) - len(answers.messages) :]),
        )
        if not answers.interrupts:
            await context.commit(step)
        messages.extend(answers.messages)
        if not answers.interrupts:
            return None
        return RunOutcome(
            step=step if answers.messages else None,
            interrupts=tuple(answers.interrupts),
            answered=answers.answered,
        )


def _revised(messages: Conversation, message_id: str, edited: dict[str, dict[str, Any]]) -> list[Message]:
    """Return the requesting message with the calls that people edited, so that the model sees the calls that ran."""
    if not edited:
        return []
    index = next(n for n, message in enumerate(messages) if message.id == message_id)
    message = messages[index]
    assert isinstance(message, AIMessage)
    calls = [msgspec.structs.replace(c, args=edited[c.id]) if c.id in edited else c for c in message.tool_calls]
    messages.replace(index, msgspec.structs.replace(message, tool_calls=calls))
    return [messages[index]]
