"""``context.tools``: the agent's tools, called by the function. Every round of calls is a step."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast, overload
from uuid import UUID, uuid5

import msgspec

from app.agents.functions.branches import Branch
from app.agents.functions.conversion import convert, to_builtins
from app.agents.functions.session import FunctionSession, StepPosition
from app.agents.functions.step_journal import encode
from app.agents.functions.values import ThreadValues
from app.agents.port import RunContext, ToolIntent
from app.agents.tool_loop.calls import Toolbox, key_of
from app.agents.tool_loop.conversation import AnyToolCall, PendingCalls, calls_of
from app.agents.tools.port import ToolClass
from app.base.errors import ToolFailed
from app.domain.messages import AIMessage, InvalidToolCall, ToolCall, ToolMessage, text_of

T = TypeVar("T")

KIND = "tool"

RequestedCall = ToolCall | InvalidToolCall | tuple[str, Mapping[str, Any]]
"""A call: a model's, or the tool's name with its arguments."""

_decode = msgspec.json.Decoder(ToolMessage).decode


class _FunctionRunContext:
    """The run as the function's tools see it: with the values that the function has set."""

    def __init__(self, run: RunContext, values: ThreadValues) -> None:
        self._run = run
        self.state = values

    def __getattr__(self, name: str) -> Any:
        return getattr(self._run, name)


class ToolCaller:
    """Calls of the agent's tools: checked against their schemas, side by side, each with timeout and key."""

    def __init__(self, session: FunctionSession, toolbox: Toolbox) -> None:
        self._session = session
        self._toolbox = toolbox
        self._run = cast("RunContext", _FunctionRunContext(session.run, session.values))

    @overload
    async def call(self, name: str, /, **args: Any) -> str: ...
    @overload
    async def call(self, name: str, kind: type[T], /, **args: Any) -> T: ...

    async def call(self, name: str, kind: Any = str, /, **args: Any) -> Any:
        """What the tool ``name`` answers to ``args``: its text, or its JSON as a ``kind``.

        Raises ``ToolFailed`` when it answers with an error (unknown tool, wrong arguments, exception, timeout), and
        ``ValueError`` for an answer that is no ``kind``.
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
        except ValueError as error:
            raise ValueError(f"tool {name!r} answered something else: {error}") from error

    async def run(self, calls: AIMessage | Sequence[RequestedCall]) -> list[ToolMessage]:
        """Run ``calls`` at the same time; their answers in the same order, errors as messages of status ``error``.

        ``calls`` are those that a model's answer asks for, or ``(name, arguments)`` pairs. A round is one step: what
        has answered is never called again, even when other calls of the round wait for a person.
        """
        session = self._session
        branch, at = session.enter()
        wanted = self._calls(calls, at)
        done: dict[str, ToolMessage] = {}
        places: dict[str, StepPosition] = {}
        for number, call in enumerate(wanted):
            place = session.locate(f"{at}.{number}", KIND, call.name, _digest(call.args))
            if place.was is None:
                places[call.id] = place
            else:
                done[call.id] = _decode(place.was.result)
                session.values.apply(place.was.update)
        if places:
            session.count()
            asked = PendingCalls(f"{session.journal.begun.run} {at}", [call for call in wanted if call.id in places])
            with session.working():
                done |= await self._work(asked, places, branch)
        return [done[call.id] for call in wanted]

    async def _work(
        self, asked: PendingCalls, places: Mapping[str, StepPosition], branch: Branch
    ) -> dict[str, ToolMessage]:
        session = self._session
        if intents := self._intents(asked):
            await session.intend(intents)
        answers = await self._toolbox.run(asked, self._run)
        entries = [places[message.tool_call_id].entry(encode(message)) for message in answers.messages]
        if entries:
            entries[0] = msgspec.structs.replace(entries[0], update=answers.update)
            await session.commit(entries, update=answers.update)
        if answers.interrupts:
            raise session.ask(answers.interrupts, branch)
        return {message.tool_call_id: message for message in answers.messages}

    def _intents(self, asked: PendingCalls) -> tuple[ToolIntent, ...]:
        """The calls that may do something, so that a crash cannot hide that they were made."""
        return tuple(
            ToolIntent(
                call_id=call.id,
                tool=call.name,
                tool_class=self._toolbox.tool_class(call.name),
                key=key_of(self._run, asked.message_id, call),
                args=encode(call.args),
            )
            for call in asked.calls
            if self._toolbox.tool_class(call.name) is not ToolClass.READ_ONLY
            and self._toolbox.may_start(call, asked.message_id, self._run)
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
                id_ = uuid5(seed, f"{at}.{number} {_digest(args)}").hex  # other arguments are another call
                found.append(ToolCall(name=name, args=args, id=f"call_{id_}"))
        if len({call.id for call in found}) < len(found):
            raise ValueError("two of the calls have the same id")
        return found


def _digest(args: Any) -> str:
    return hashlib.blake2b(msgspec.json.encode(args, order="sorted"), digest_size=8).hexdigest()
