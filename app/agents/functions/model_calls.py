"""``context.model``: questions to the agent's model. Every answer is a step: asked once, read back ever after."""

import contextlib
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec

from app.agents.functions.messages import structs
from app.agents.functions.session import FunctionSession, ModelUsage
from app.agents.functions.step_journal import RecordedFailure, StepRecord, encode
from app.agents.tool_loop.agent import ToolLoopConfig
from app.agents.tool_loop.answer_stream import AnswerAssembler, answered_by
from app.agents.tool_loop.calls import Toolbox
from app.agents.tool_loop.conversation import call_ids, paired
from app.base import errors
from app.base.errors import ModelError
from app.domain.messages import AIMessage, text_of
from app.providers.llm.port import Model, ModelRequest, ToolSpec

KIND = "model"

_decode = msgspec.json.Decoder(AIMessage).decode


class ModelCalls:
    """What the function asks of its model. Answers stream to clients' ``messages-tuple`` streams as they come."""

    def __init__(self, session: FunctionSession, model: Model, toolbox: Toolbox, manner: ToolLoopConfig) -> None:
        self._session = session
        self._model = model
        self._toolbox = toolbox
        self._manner = manner

    async def ask(
        self,
        messages: Any = None,
        *,
        instructions: str = "",
        tools: bool | Sequence[str] = False,
        name: str = "",
        temperature: float | None = None,
        max_tokens: int | None = None,
    ) -> AIMessage:
        """The model's whole answer to ``messages``: a text, a message, a list of them; the conversation if left out.

        ``instructions`` are the system prompt (the agent's own if left out). ``tools`` offers the agent's tools to the
        model: all of them, or those named; ``context.tools.run(answer)`` then runs what it asks for. ``name`` is the
        node that the answer streams under. The answer is not added to the conversation: return it, or ``say`` it.

        Raises ``ModelError`` when the model and its fallbacks fail, ``StepLimit``, ``TokenLimit``; ``ValueError`` for
        messages that are none and tools that the agent does not have.
        """
        session = self._session
        _, at = session.enter()
        place = session.locate(at, KIND, name or KIND)
        if place.was is not None:
            return self._again(place.was)
        seed = UUID(session.journal.begun.run)
        asked = session.conversation.messages() if messages is None else structs(messages, seed)
        session.count(asks=True)
        request = ModelRequest(
            messages=paired(asked),
            instructions=instructions or self._manner.instructions,
            tools=self._specs(tools),
            temperature=self._manner.temperature if temperature is None else temperature,
            max_tokens=self._manner.max_tokens if max_tokens is None else max_tokens,
            tenant=str(session.run.tenant_id),
        )
        session.run.check_lease()
        answer = AnswerAssembler(session.run, name or session.node, lambda: call_ids(asked))
        with session.working():
            try:
                async with contextlib.aclosing(self._model.stream(request)) as events:  # type: ignore[type-var]
                    async for event in events:
                        answer.take(event)
            except ModelError as error:
                session.journal.later(place.entry(failure=RecordedFailure(type(error).__name__, str(error))))
                raise
            message = answer.message()
            session.conversation.streamed(message)
            spent = ModelUsage(message.usage_metadata, answered_by(message))
            await session.commit([place.entry(encode(message))], node=name, spent=spent)
        return message

    async def text(
        self,
        messages: Any = None,
        *,
        instructions: str = "",
        name: str = "",
        temperature: float | None = None,
        max_tokens: int | None = None,
    ) -> str:
        """The text of the model's answer; everything else as in ``ask``."""
        answer = await self.ask(
            messages, instructions=instructions, name=name, temperature=temperature, max_tokens=max_tokens
        )
        return text_of(answer.content)

    def _again(self, entry: StepRecord) -> AIMessage:
        if entry.failure is not None:
            kind = getattr(errors, entry.failure.kind, ModelError)
            raise kind(entry.failure.words)
        message = _decode(entry.result)
        self._session.conversation.streamed(message)
        return message

    def _specs(self, wanted: bool | Sequence[str]) -> list[ToolSpec]:
        if isinstance(wanted, bool):
            return self._toolbox.specs if wanted else []
        known = {spec.name: spec for spec in self._toolbox.specs}
        for name in [wanted] if isinstance(wanted, str) else wanted:
            if name not in known:
                raise ValueError(f"the agent has no tool {name!r}; its tools are {', '.join(known) or 'none'}")
        return [known[name] for name in ([wanted] if isinstance(wanted, str) else wanted)]
