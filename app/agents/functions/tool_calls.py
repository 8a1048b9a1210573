"""``context.tools``: calls of the agent's tools by the function. Every round of calls is a step."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, overload
from uuid import UUID, uuid5

import msgspec

from app.agents.functions.branches import Branch
from app.agents.functions.conversion import convert, to_builtins
from app.agents.functions.session import FunctionSession, StepPosition
from app.agents.functions.step_journal import encode
from app.agents.port import ToolIntent
from app.agents.tool_loop.call_questions import idempotency_key, intent_id
from app.agents.tool_loop.calls import Toolbox
from app.agents.tool_loop.conversation import AnyToolCall, PendingCalls, calls_of
from app.agents.tools.port import ToolClass
from app.base.errors import ToolFailed
from app.domain.messages import AIMessage, InvalidToolCall, ToolCall, ToolMessage, text_of

T = TypeVar("T")

KIND = "tool"

RequestedCall = ToolCall | InvalidToolCall | tuple[str, Mapping[str, Any]]
"""A model's tool call, or a tool's name with its arguments."""

_decode = msgspec.json.Decoder(ToolMessage).decode


class ToolCaller:
    """Calls the agent's tools: validated, concurrent, each with a timeout and an idempotency key."""

    def __init__(self, session: FunctionSession, toolbox: Toolbox) -> None:
        self._session = session
        self._toolbox = toolbox

    @overload
    async def call(self, name: str, /, **args: Any) -> str: ...
    @overload
    async def call(self, name: str, kind: type[T], /, **args: Any) -> T: ...

    async def call(self, name: str, kind: Any = str, /, **args: Any) -> Any:
        """Call the tool ``name`` and return its text, or its JSON converted to ``kind``.

        Raises ``ToolFailed`` if it answers with an error (unknown tool, wrong arguments, exception, timeout), and
        ``ValueError`` if the result does not match ``kind``.
        """
        (message,) = await self.run([(name, args)])
        text = text_of(message.content)
        if message.status == "error":
            raise ToolFailed(name, text)
        if kind is str:
            return text
        try:
            value = msgspec.json.decode(text) if isinstance(message.content, str) else message.content
            return convert(value, kind)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"the result of tool {name!r} does not match the requested type: {error}") from error

    async def run(self, calls: AIMessage | Sequence[RequestedCall]) -> list[ToolMessage]:
        """Run ``calls`` concurrently; return their answers in order, errors as messages of status ``error``.

        ``calls``: a model's answer with tool calls, or ``(name, arguments)`` pairs. A round is one step: answered calls
        are not repeated, even if other calls of the round wait for a person.
        """
        session = self._session
        branch, at = session.enter()
        wanted = self._calls(calls, at)
        done: dict[str, ToolMessage] = {}
        positions: dict[str, StepPosition] = {}
        for number, call in enumerate(wanted):
            position = session.locate(f"{at}.{number}", KIND, call.name, _digest(call.args))
            if position.recorded is None:
                positions[call.id] = position
            else:
                done[call.id] = _decode(position.recorded.result)
                session.values.apply(position.recorded.update)
        if positions:
            session.count_step()
            pending = PendingCalls(
                f"{session.journal.begun.run} {at}", [call for call in wanted if call.id in positions]
            )
            with session.working():
                done |= await self._run_pending(pending, positions, branch)
        return [done[call.id] for call in wanted]

    async def _run_pending(
        self, pending: PendingCalls, positions: Mapping[str, StepPosition], branch: Branch
    ) -> dict[str, ToolMessage]:
        session = self._session
        if intents := self._intents(pending):
            await session.intend(intents)
        answers = await self._toolbox.run(pending, session.run, session.values, session.amend)
        entries = [positions[message.tool_call_id].entry(encode(message)) for message in answers.messages]
        if entries:
            entries[0] = msgspec.structs.replace(entries[0], update=answers.update)
            await session.commit(entries, update=answers.update, hidden=answers.forget)
        if answers.interrupts:
            raise session.ask(answers.interrupts, branch)
        return {message.tool_call_id: message for message in answers.messages}

    def _intents(self, pending: PendingCalls) -> tuple[ToolIntent, ...]:
        """Return intents for calls with side effects, so that a crash cannot hide that they were made."""
        return tuple(
            ToolIntent(
                call_id=intent_id(pending.message_id, call),
                tool=call.name,
                tool_class=self._toolbox.tool_class(call.name),
                key=idempotency_key(self._session.run, pending.message_id, call),
                args=encode(call.args),
            )
            for call in pending.calls
            if self._toolbox.tool_class(call.name) is not ToolClass.READ_ONLY
            and self._toolbox.may_start(call, pending.message_id, self._session.run)
        )

    def _calls(self, calls: AIMessage | Sequence[RequestedCall], at: str) -> list[AnyToolCall]:
        if isinstance(calls, AIMessage):
            return calls_of(calls)
        seed = UUID(self._session.journal.begun.run)
        found: list[AnyToolCall] = []
        for number, one in enumerate(calls):
            if isinstance(one, ToolCall | InvalidToolCall):
                found.append(one)
            else:
                name, given = one
                args = to_builtins(given)
                id_ = uuid5(seed, f"{at}.{number} {_digest(args)}").hex  # other arguments make another call
                found.append(ToolCall(name=name, args=args, id=f"call_{id_}"))
        if len({call.id for call in found}) < len(found):
            raise ValueError("two of the calls have the same id")
        return found


def _digest(args: Any) -> str:
    return hashlib.blake2b(msgspec.json.encode(args, order="sorted"), digest_size=8).hexdigest()
