"""Tool calls: checked, run side by side, and always answered; what goes wrong is told to the model.

A tool call that may ask a person while it runs.

What tools return, made fit to be stored and to be read by a model.

How a running tool speaks to its clients.
"""

import asyncio
import itertools
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self
from uuid import UUID, uuid5

import jsonschema_rs
import msgspec
import structlog

from app.agents.port import Interrupt, RunContext, UnresolvedCall, interrupt_id
from app.agents.tool_loop.approval import (
    SAFE_TO_REPEAT,
    ApprovalDecision,
    ApprovalPolicy,
    approval_id,
    decide,
    judge,
    question,
    review,
    review_id,
)
from app.agents.tool_loop.conversation import AnyToolCall, PendingCalls
from app.agents.tools.port import NeedsAnswer, Tool, ToolClass, ToolContext, ToolResult
from app.base.containment import location_of
from app.base.crash_points import crash_point
from app.base.errors import ReviewAborted, StartError
from app.base.ids import new_id
from app.base.tasks import together
from app.domain.events import Custom
from app.domain.messages import InvalidToolCall, ToolCall, ToolMessage
from app.domain.state import HIDDEN, MESSAGES
from app.infra.telemetry.tool_calls import OnToolStart, unrecorded


class AwaitingAnswers(msgspec.Struct, frozen=True):
    """A call that cannot end before these questions are answered."""

    interrupts: list[Interrupt]


class CallQuestions:
    """One call of the message ``message_id``: the answers that it has ``used``, and the questions that are ``open``.

    ``edited`` are the arguments that a person gave it in place of its own; ``aborted``: a person ends the run here.
    """

    def __init__(self, call: AnyToolCall, message_id: str, context: RunContext) -> None:
        self.call = call
        self.message_id = message_id
        self.context = context
        self.used: dict[str, Any] = {}
        self.open: list[Interrupt] = []
        self.edited: dict[str, Any] | None = None
        self.aborted = False
        self._asked = 0

    def ask(self, value: Any) -> Any:
        """The answer to the call's next question, from any thread.

        Raises ``NeedsAnswer`` while there is none, ``TypeError`` for a ``value`` that is no JSON. A question is known
        by its place among the call's questions, and belongs to the call with these arguments.
        """
        call = self.call
        id_ = interrupt_id("tool", self.message_id, call.id, call.name, call.args, self._asked)
        self._asked += 1
        if id_ in self.context.answers:
            answer = self.used[id_] = self.context.answers[id_]
            return answer
        self.open.append(Interrupt(id_, msgspec.json.decode(msgspec.json.encode(value)), call_id=call.id))
        raise NeedsAnswer(value)


MAX_RESULT_LENGTH = 256 * 1024
"""Characters of text that the model gets to read; more is cut."""
MAX_RESULT_BYTES = 4 * 1024 * 1024
"""Bytes of a whole result as JSON, artifact and update included; a larger one is an error."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(ToolResult).decode


def checked_result(result: ToolResult) -> ToolResult:
    """``result`` as it will be stored: a tool may return anything, and what it returned may still change.

    Raises ``ValueError`` (msgspec's included) or ``TypeError`` for what is no proper result.
    """
    if isinstance(result.content, str) and len(result.content) > MAX_RESULT_LENGTH:
        cut = f"{result.content[:MAX_RESULT_LENGTH]}\n[cut: the result had {len(result.content)} characters]"
        result = msgspec.structs.replace(result, content=cut)
    encoded = _encode(result)
    if len(encoded) > MAX_RESULT_BYTES:
        raise ValueError(f"the result has {len(encoded)} bytes, more than {MAX_RESULT_BYTES}")
    stored = _decode(encoded)
    if MESSAGES in stored.update:
        raise ValueError("a tool cannot change the thread's messages")
    if any(name.startswith(HIDDEN) for name in stored.update):
        raise ValueError(f"a tool cannot change values whose names begin with {HIDDEN}")
    return stored


class CustomEventEmitter:
    """Sends values to ``custom`` streams from any thread, while its call runs and no longer.

    A sync tool that was left behind, or a task that a tool forgot, would otherwise speak into steps that are none of
    its own, or after the end of the run.
    """

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._open = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open = False

    def say(self, value: Any) -> None:
        """Send ``value``. Raises ``TypeError`` for one that is no JSON."""
        event = Custom(data=msgspec.Raw(_encode(value)))
        if threading.get_ident() == self._thread:
            self._say(event)
        else:
            self._loop.call_soon_threadsafe(self._say, event)

    def _say(self, event: Custom) -> None:
        if self._open:
            self._context.emit(event)


log = structlog.get_logger(__name__)

MAX_ERROR_LENGTH = 2000
MAX_PROBLEMS = 10
MAX_PROBLEM_LENGTH = 300

CallCounter = Callable[[str, str], None]
"""Is told the tool and the outcome of every call."""


class CheckedTool:
    """A tool with its schema compiled. Raises ``StartError`` where the schema is none."""

    def __init__(self, tool: Tool) -> None:
        self.tool = tool
        try:
            self._validator = jsonschema_rs.validator_for(tool.spec.parameters)
        except ValueError as error:
            words = str(error).partition("\n")[0]
            raise StartError(f"tool {tool.spec.name!r}: its parameters are no JSON Schema: {words}") from error

    def problems(self, args: dict[str, Any]) -> str:
        """What is wrong with ``args``, each with the JSON pointer of its place; empty when nothing is."""
        found = []
        for error in itertools.islice(self._validator.iter_errors(args), MAX_PROBLEMS):
            parts = (str(part).replace("~", "~0").replace("/", "~1") for part in error.instance_path)
            place = "".join(f"/{part}" for part in parts) or "the arguments"
            found.append(f"{place}: {error.message[:MAX_PROBLEM_LENGTH]}")
        return "; ".join(found)


class CallResults(msgspec.Struct, kw_only=True):
    """How the calls of one message ended: what was answered, and what waits for a person.

    ``update`` changes the thread's values; ``edited`` maps the ids of calls to the arguments that a person gave them.
    ``answered`` are people's answers that went into calls which wait again.
    """

    messages: list[ToolMessage] = []
    update: dict[str, Any] = {}
    edited: dict[str, dict[str, Any]] = {}
    interrupts: list[Interrupt] = []
    answered: dict[str, Any] = {}


class Toolbox:
    """The tools of one agent, and how calls to them end."""

    def __init__(
        self,
        tools: Sequence[Tool],
        count: CallCounter,
        approve: ApprovalPolicy = ApprovalPolicy(),
        begin: OnToolStart = unrecorded,
    ) -> None:
        self._tools = {tool.spec.name: CheckedTool(tool) for tool in tools}
        self._count = count
        self._begin = begin
        self._approve = approve
        self.specs = [tool.spec for tool in tools]

    def tool_class(self, name: str) -> ToolClass:
        """The class of the tool ``name``; a call of an unknown one does nothing, so it is safe to repeat."""
        found = self._tools.get(name)
        return ToolClass.READ_ONLY if found is None else found.tool.tool_class

    def may_start(self, call: AnyToolCall, message_id: str, context: RunContext) -> bool:
        """Whether ``call`` runs now: it needs neither approval nor review, or a person has answered."""
        if isinstance(call, InvalidToolCall) or call.name not in self._tools:
            return False
        tool_class = self.tool_class(call.name)
        doubt = unresolved_call(context, message_id, call) if tool_class is ToolClass.UNSAFE else None
        if doubt is not None:
            return review_id(message_id, call, doubt.attempt) in context.answers
        return not self._approve.covers(call.name, tool_class) or approval_id(message_id, call) in context.answers

    async def run(self, asked: PendingCalls, context: RunContext) -> CallResults:
        """Run the calls that may run; their answers are in the order of the calls.

        Calls run at the same time, but for transactional ones: those go one after the other, each seeing what the
        one before it changed. Where two others change the same value, the later call wins. A call of which a crash
        has hidden whether it happened is treated as its class says. Raises ``ReviewAborted`` on a person's word.
        """
        results: dict[str, ToolResult | AwaitingAnswers] = {}
        seen: dict[str, Any] = {}
        calls = [CallQuestions(call, asked.message_id, context) for call in asked.calls]

        async def answer(asking: CallQuestions, changed: Mapping[str, Any]) -> None:
            results[asking.call.id] = await self._answer(asking, changed)

        async def answer_in_turn(turns: Sequence[CallQuestions]) -> None:
            for asking in turns:
                await answer(asking, seen)
                result = results[asking.call.id]
                seen.update(result.update if isinstance(result, ToolResult) else {})

        in_turn = [c for c in calls if self.tool_class(c.call.name) is ToolClass.TRANSACTIONAL]
        others = [c for c in calls if self.tool_class(c.call.name) is not ToolClass.TRANSACTIONAL]
        await together(answer_in_turn(in_turn), *(answer(asking, {}) for asking in others))
        answers = CallResults()
        if aborted := [asking.call.name for asking in calls if asking.aborted]:
            raise ReviewAborted(f"A person ended the run at a call of {aborted[0]!r} whose outcome is not known.")
        for asking in calls:
            result = results[asking.call.id]
            if isinstance(result, AwaitingAnswers):
                answers.interrupts += result.interrupts
                answers.answered.update(asking.used)
            else:
                answers.messages.append(_message(asking.call, result))
                answers.update.update(result.update)
                if asking.edited is not None:
                    answers.edited[asking.call.id] = asking.edited
        return answers

    async def _answer(self, asking: CallQuestions, changed: Mapping[str, Any]) -> ToolResult | AwaitingAnswers:
        call = asking.call
        found = self._tools.get(call.name)
        if found is None:
            names = ", ".join(self._tools) or "none"
            return self._failed("unknown", "unknown", f"There is no tool {call.name!r}. The tools are: {names}.")
        if isinstance(call, InvalidToolCall):
            return self._failed(call.name, "invalid", f"The call was not run: {call.error}.")
        if words := found.problems(call.args):
            return self._failed(call.name, "invalid", f"The call was not run, its arguments are wrong: {words}.")
        if not self._approve.covers(call.name, found.tool.tool_class) or self._left_to_review(found.tool, asking, call):
            return await self._call(found.tool, asking, call, changed)
        decision = self._decision(found, asking, call)
        if isinstance(decision, AwaitingAnswers):
            return decision
        if decision.action == "reject":
            because = f": {decision.reason}" if decision.reason else "."
            return self._failed(call.name, "rejected", f"A person refused this call; it was not run{because}")
        if decision.action == "respond":
            self._count(call.name, "answered")
            result = decision.result
            return ToolResult(content=result if isinstance(result, str) else _encode(result).decode())
        if decision.action == "edit":
            asking.edited = decision.args
        return await self._call(found.tool, asking, call, changed)

    def _left_to_review(self, tool: Tool, asking: CallQuestions, call: ToolCall) -> bool:
        """Whether a review takes the place of the approval: of an unsafe call that may have been made before."""
        return (
            tool.tool_class is ToolClass.UNSAFE
            and approval_id(asking.message_id, call) not in asking.context.answers
            and unresolved_call(asking.context, asking.message_id, call) is not None
        )

    def _decision(
        self, found: CheckedTool, asking: CallQuestions, call: ToolCall
    ) -> ApprovalDecision | AwaitingAnswers:
        id_ = approval_id(asking.message_id, call)
        answers = asking.context.answers
        problem = ""
        if id_ in answers:
            try:
                decision = decide(answers[id_], call.name)
                problem = found.problems(decision.args) if decision.action == "edit" else ""
                if not problem:
                    asking.used[id_] = answers[id_]
                    return decision
            except ValueError as error:
                problem = str(error)
        value = question(call, found.tool.tool_class, problem)
        return AwaitingAnswers([Interrupt(id_, value, "approval", call.id, others_only=self._approve.by == "other")])

    async def _call(
        self, tool: Tool, asking: CallQuestions, call: ToolCall, changed: Mapping[str, Any]
    ) -> ToolResult | AwaitingAnswers:
        args = call.args if asking.edited is None else asking.edited
        doubt = unresolved_call(asking.context, asking.message_id, call)
        if doubt is not None and tool.tool_class not in SAFE_TO_REPEAT:
            settled = await self._settle(tool, asking, call, args, doubt)
            if settled is not None:
                return settled
        ended, result = self._begin(tool.spec.name, asking.call.id, args), None
        try:
            result = await self._run(tool, asking, args, changed)
        finally:
            ended(_trouble(result), result.content if isinstance(result, ToolResult) else None)
        return result

    async def _settle(
        self, tool: Tool, asking: CallQuestions, call: ToolCall, args: dict[str, Any], doubt: UnresolvedCall
    ) -> ToolResult | AwaitingAnswers | None:
        """What became of a call that may have happened; None when it shall run (again)."""
        key, problem = doubt.key, ""
        if tool.tool_class is ToolClass.RECONCILABLE:
            try:
                async with asyncio.timeout(tool.timeout):
                    found = await tool.lookup(key)
                return None if found is None else checked_result(found)
            except Exception as error:  # noqa: BLE001  whatever keeps the look-up from deciding, a person decides
                log_failed(call.name, asking, error)
                problem = f"The look-up did not tell: {type(error).__name__}: {error}"[:MAX_ERROR_LENGTH]
        id_ = review_id(asking.message_id, call, doubt.attempt)
        if id_ in asking.context.answers:
            answer = asking.context.answers[id_]
            try:
                verdict = judge(answer)
            except ValueError as error:
                problem = str(error)
            else:
                asking.used[id_] = answer
                asking.aborted = verdict.action == "abort"
                result = verdict.result
                words = result if isinstance(result, str) else _encode(result).decode()
                if verdict.action == "failed":
                    return self._failed(call.name, "failed", words if result is not None else "The call failed.")
                self._count(call.name, f"review_{verdict.action}")
                return (
                    None if verdict.action == "retry" else ToolResult(content=words if result is not None else "done")
                )
        others_only = self._approve.by == "other" and self._approve.covers(call.name, tool.tool_class)
        value = review(call, args, tool.tool_class, key, problem)
        return AwaitingAnswers([Interrupt(id_, value, "review", call.id, others_only=others_only)])

    async def _run(
        self, tool: Tool, asking: CallQuestions, args: dict[str, Any], changed: Mapping[str, Any]
    ) -> ToolResult | AwaitingAnswers:
        limit = asyncio.timeout(tool.timeout)
        name = tool.spec.name
        with CustomEventEmitter(asking.context) as voice:
            asking.context.check_lease()
            try:
                crash_point("before_tool")
                async with limit:
                    result = checked_result(await tool.call(args, _context(asking, voice, changed)))
                crash_point("after_tool")
            except NeedsAnswer:
                return AwaitingAnswers(asking.open)
            except Exception as error:  # noqa: BLE001  the edge: the model reads what went wrong
                if isinstance(error, TimeoutError) and limit.expired():
                    return self._failed(name, "timeout", f"The tool took longer than {tool.timeout:g} s.")
                log_failed(name, asking, error)
                return self._failed(name, "error", f"{type(error).__name__}: {error}")
        self._count(name, result.status)
        return result

    def _failed(self, name: str, outcome: str, words: str) -> ToolResult:
        self._count(name, outcome)
        sayable = words[:MAX_ERROR_LENGTH].encode("utf-8", "backslashreplace").decode()
        return ToolResult(content=sayable, status="error")


def key_of(context: RunContext, message_id: str, call: AnyToolCall) -> str:
    """The idempotency key of a call: the same for every attempt of it, in later runs of the thread too."""
    return _key_on(context.thread_id, message_id, call)


def _key_on(thread_id: UUID, message_id: str, call: AnyToolCall) -> str:
    return str(uuid5(thread_id, f"{message_id} {call.id}"))


def unresolved_call(context: RunContext, message_id: str, call: AnyToolCall) -> UnresolvedCall | None:
    """The latest attempt that may have made ``call``; another message's call of the same id is another call."""
    doubts = reversed(context.unresolved_calls.get(call.id, ()))
    return next((one for one in doubts if one.key == _key_on(one.thread_id, message_id, call)), None)


def _trouble(result: ToolResult | AwaitingAnswers | None) -> str:
    """The kind of what went wrong with a call; empty for one that answered, or that waits for a person."""
    if result is None:
        return "cancelled"
    return "tool_error" if isinstance(result, ToolResult) and result.status == "error" else ""


def log_failed(tool: str, asking: CallQuestions, error: Exception) -> None:
    """Leave a line in the log: neither the arguments nor the error's text, which may repeat them."""
    kind, at = type(error).__name__, location_of(error)
    log.warning("tool_failed", tool=tool, run_id=str(asking.context.run_id), error=kind, at=at)


def _context(asking: CallQuestions, voice: CustomEventEmitter, changed: Mapping[str, Any]) -> ToolContext:
    context = asking.context
    return ToolContext(
        tenant_id=str(context.tenant_id),
        thread_id=str(context.thread_id),
        run_id=str(context.run_id),
        call_id=asking.call.id,
        idempotency_key=key_of(context, asking.message_id, asking.call),
        emit=voice.say,
        value=lambda name: changed[name] if name in changed else context.state.get(name),
        interrupt=asking.ask,
        configurable=context.config.configurable,
    )


def _message(call: AnyToolCall, result: ToolResult) -> ToolMessage:
    return ToolMessage(
        content=result.content,
        name=call.name,
        id=str(new_id()),
        tool_call_id=call.id,
        artifact=result.artifact,
        status=result.status,
    )
