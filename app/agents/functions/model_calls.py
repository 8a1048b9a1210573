"""``context.model``: calls of the agent's model. Each answer is a step, recorded once and replayed afterwards."""

import contextlib
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec

from app.agents.functions.messages import to_messages
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
    """Calls of the function's model. Answers stream to ``messages-tuple`` streams as they arrive."""

    def __init__(self, session: FunctionSession, model: Model, toolbox: Toolbox, config: ToolLoopConfig) -> None:
        self._session = session
        self._model = model
        self._toolbox = toolbox
        self._config = config

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
        """Return the model's answer to ``messages``: a text, a message or a list of them; by default the conversation.

        ``instructions``: the system prompt, by default the agent's own. ``tools`` offers the agent's tools to the
        model: all of them, or those named; ``context.tools.run(answer)`` runs the calls of the answer. ``name`` is the
        node that the answer streams under. The answer is not added to the conversation: return it, or ``say`` it.

        Raises ``ModelError`` if the model and its fallbacks fail, ``StepLimit``, ``TokenLimit``; ``ValueError`` for
        invalid messages and unknown tools.
        """
        session = self._session
        _, at = session.enter()
        position = session.locate(at, KIND, name or KIND)
        if position.recorded is not None:
            return self._replay(position.recorded)
        seed = UUID(session.journal.begun.run)
        prompt = session.conversation.messages() if messages is None else to_messages(messages, seed)
        session.count_step(asks=True)
        request = ModelRequest(
            messages=paired(prompt),
            instructions=instructions or self._config.instructions,
            tools=self._specs(tools),
            temperature=self._config.temperature if temperature is None else temperature,
            max_tokens=self._config.max_tokens if max_tokens is None else max_tokens,
            tenant=str(session.run.tenant_id),
        )
        session.run.check_lease()
        answer = AnswerAssembler(session.run, name or session.node, lambda: call_ids(prompt))
        with session.working():
            try:
                async with contextlib.aclosing(self._model.stream(request)) as events:  # type: ignore[type-var]
                    async for event in events:
                        answer.add(event)
            except ModelError as error:
                session.journal.defer(position.entry(failure=RecordedFailure(type(error).__name__, str(error))))
                raise
            message = answer.message()
            session.conversation.add_streamed(message)
            spent = ModelUsage(message.usage_metadata, answered_by(message))
            await session.commit([position.entry(encode(message))], node=name, spent=spent)
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
        """Return the text of the model's answer. Parameters and errors as in ``ask``."""
        answer = await self.ask(
            messages, instructions=instructions, name=name, temperature=temperature, max_tokens=max_tokens
        )
        return text_of(answer.content)

    def _replay(self, entry: StepRecord) -> AIMessage:
        if entry.failure is not None:
            kind = getattr(errors, entry.failure.kind, ModelError)
            raise kind(entry.failure.words)
        message = _decode(entry.result)
        self._session.conversation.add_streamed(message)
        return message

    def _specs(self, wanted: bool | Sequence[str]) -> list[ToolSpec]:
        if isinstance(wanted, bool):
            return self._toolbox.specs if wanted else []
        known = {spec.name: spec for spec in self._toolbox.specs}
        for name in [wanted] if isinstance(wanted, str) else wanted:
            if name not in known:
                raise ValueError(f"the agent has no tool {name!r}; its tools are {', '.join(known) or 'none'}")
        return [known[name] for name in ([wanted] if isinstance(wanted, str) else wanted)]
