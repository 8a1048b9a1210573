"""Tool calls: checked, run side by side, and always answered; what goes wrong is told to the model."""

import asyncio
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import UUID, uuid5

import jsonschema_rs
import msgspec
import structlog

from app.agents.port import Doubt, Interrupt, RunContext
from app.agents.toolloop.approval import Approve, Decision, approval_id, decide, question
from app.agents.toolloop.asking import Asking, Waiting
from app.agents.toolloop.conversation import Asked, Call
from app.agents.toolloop.results import checked
from app.agents.toolloop.review import SAFE_TO_REPEAT, judge, review, review_id
from app.agents.toolloop.voice import Voice
from app.base.containment import location_of
from app.base.crashes import crash_point
from app.base.errors import ReviewAborted, StartError
from app.base.ids import new_id
from app.base.tasks import together
from app.domain.messages import InvalidToolCall, ToolCall, ToolMessage
from app.telemetry.tools import Begin, untold
from app.tools.port import NeedsAnswer, Tool, ToolClass, ToolContext, ToolResult

log = structlog.get_logger(__name__)

LONGEST_ERROR = 2000
MOST_PROBLEMS = 10
LONGEST_PROBLEM = 300

Count = Callable[[str, str], None]
"""Is told the tool and the outcome of every call."""

_encode = msgspec.json.Encoder().encode


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
        for error in itertools.islice(self._validator.iter_errors(args), MOST_PROBLEMS):
            parts = (str(part).replace("~", "~0").replace("/", "~1") for part in error.instance_path)
            place = "".join(f"/{part}" for part in parts) or "the arguments"
            found.append(f"{place}: {error.message[:LONGEST_PROBLEM]}")
        return "; ".join(found)


class Answers(msgspec.Struct, kw_only=True):
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
        self, tools: Sequence[Tool], count: Count, approve: Approve = Approve(), begin: Begin = untold
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

    def may_start(self, call: Call, message_id: str, context: RunContext) -> bool:
        """Whether ``call`` runs now: it needs neither approval nor review, or a person has answered."""
        if isinstance(call, InvalidToolCall) or call.name not in self._tools:
            return False
        tool_class = self.tool_class(call.name)
        doubt = doubt_of(context, message_id, call) if tool_class is ToolClass.UNSAFE else None
        if doubt is not None:
            return review_id(message_id, call, doubt.attempt) in context.answers
        return not self._approve.covers(call.name, tool_class) or approval_id(message_id, call) in context.answers

    async def run(self, asked: Asked, context: RunContext) -> Answers:
        """Run the calls that may run; their answers are in the order of the calls.

        Calls run at the same time, but for transactional ones: those go one after the other, each seeing what the
        one before it changed. Where two others change the same value, the later call wins. A call of which a crash
        has hidden whether it happened is treated as its class says. Raises ``ReviewAborted`` on a person's word.
        """
        results: dict[str, ToolResult | Waiting] = {}
        seen: dict[str, Any] = {}
        calls = [Asking(call, asked.message_id, context) for call in asked.calls]

        async def answer(asking: Asking, changed: Mapping[str, Any]) -> None:
            results[asking.call.id] = await self._answer(asking, changed)

        async def answer_in_turn(turns: Sequence[Asking]) -> None:
            for asking in turns:
                await answer(asking, seen)
                result = results[asking.call.id]
                seen.update(result.update if isinstance(result, ToolResult) else {})

        in_turn = [c for c in calls if self.tool_class(c.call.name) is ToolClass.TRANSACTIONAL]
        others = [c for c in calls if self.tool_class(c.call.name) is not ToolClass.TRANSACTIONAL]
        await together(answer_in_turn(in_turn), *(answer(asking, {}) for asking in others))
        answers = Answers()
        if aborted := [asking.call.name for asking in calls if asking.aborted]:
            raise ReviewAborted(f"A person ended the run at a call of {aborted[0]!r} whose outcome is not known.")
        for asking in calls:
            result = results[asking.call.id]
            if isinstance(result, Waiting):
                answers.interrupts += result.interrupts
                answers.answered.update(asking.used)
            else:
                answers.messages.append(_message(asking.call, result))
                answers.update.update(result.update)
                if asking.edited is not None:
                    answers.edited[asking.call.id] = asking.edited
        return answers

    async def _answer(self, asking: Asking, changed: Mapping[str, Any]) -> ToolResult | Waiting:
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
        if isinstance(decision, Waiting):
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

    def _left_to_review(self, tool: Tool, asking: Asking, call: ToolCall) -> bool:
        """Whether a review takes the place of the approval: of an unsafe call that may have been made before."""
        return (
            tool.tool_class is ToolClass.UNSAFE
            and approval_id(asking.message_id, call) not in asking.context.answers
            and doubt_of(asking.context, asking.message_id, call) is not None
        )

    def _decision(self, found: CheckedTool, asking: Asking, call: ToolCall) -> Decision | Waiting:
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
        return Waiting([Interrupt(id_, value, "approval", call.id, others_only=self._approve.by == "other")])

    async def _call(
        self, tool: Tool, asking: Asking, call: ToolCall, changed: Mapping[str, Any]
    ) -> ToolResult | Waiting:
        args = call.args if asking.edited is None else asking.edited
        doubt = doubt_of(asking.context, asking.message_id, call)
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
        self, tool: Tool, asking: Asking, call: ToolCall, args: dict[str, Any], doubt: Doubt
    ) -> ToolResult | Waiting | None:
        """What became of a call that may have happened; None when it shall run (again)."""
        key, problem = doubt.key, ""
        if tool.tool_class is ToolClass.RECONCILABLE:
            try:
                async with asyncio.timeout(tool.timeout):
                    found = await tool.lookup(key)
                return None if found is None else checked(found)
            except Exception as error:  # noqa: BLE001  whatever keeps the look-up from deciding, a person decides
                log_failed(call.name, asking, error)
                problem = f"The look-up did not tell: {type(error).__name__}: {error}"[:LONGEST_ERROR]
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
        return Waiting([Interrupt(id_, value, "review", call.id, others_only=others_only)])

    async def _run(
        self, tool: Tool, asking: Asking, args: dict[str, Any], changed: Mapping[str, Any]
    ) -> ToolResult | Waiting:
        limit = asyncio.timeout(tool.timeout)
        name = tool.spec.name
        with Voice(asking.context) as voice:
            asking.context.check_lease()
            try:
                crash_point("before_tool")
                async with limit:
                    result = checked(await tool.call(args, _context(asking, voice, changed)))
                crash_point("after_tool")
            except NeedsAnswer:
                return Waiting(asking.open)
            except Exception as error:  # noqa: BLE001  the edge: the model reads what went wrong
                if isinstance(error, TimeoutError) and limit.expired():
                    return self._failed(name, "timeout", f"The tool took longer than {tool.timeout:g} s.")
                log_failed(name, asking, error)
                return self._failed(name, "error", f"{type(error).__name__}: {error}")
        self._count(name, result.status)
        return result

    def _failed(self, name: str, outcome: str, words: str) -> ToolResult:
        self._count(name, outcome)
        sayable = words[:LONGEST_ERROR].encode("utf-8", "backslashreplace").decode()
        return ToolResult(content=sayable, status="error")


def key_of(context: RunContext, message_id: str, call: Call) -> str:
    """The idempotency key of a call: the same for every attempt of it, in later runs of the thread too."""
    return _key_on(context.thread_id, message_id, call)


def _key_on(thread_id: UUID, message_id: str, call: Call) -> str:
    return str(uuid5(thread_id, f"{message_id} {call.id}"))


def doubt_of(context: RunContext, message_id: str, call: Call) -> Doubt | None:
    """The latest attempt that may have made ``call``; another message's call of the same id is another call."""
    doubts = reversed(context.doubtful.get(call.id, ()))
    return next((one for one in doubts if one.key == _key_on(one.thread_id, message_id, call)), None)


def _trouble(result: ToolResult | Waiting | None) -> str:
    """The kind of what went wrong with a call; empty for one that answered, or that waits for a person."""
    if result is None:
        return "cancelled"
    return "tool_error" if isinstance(result, ToolResult) and result.status == "error" else ""


def log_failed(tool: str, asking: Asking, error: Exception) -> None:
    """Leave a line in the log: neither the arguments nor the error's text, which may repeat them."""
    kind, at = type(error).__name__, location_of(error)
    log.warning("tool_failed", tool=tool, run_id=str(asking.context.run_id), error=kind, at=at)


def _context(asking: Asking, voice: Voice, changed: Mapping[str, Any]) -> ToolContext:
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


def _message(call: Call, result: ToolResult) -> ToolMessage:
    return ToolMessage(
        content=result.content,
        name=call.name,
        id=str(new_id()),
        tool_call_id=call.id,
        artifact=result.artifact,
        status=result.status,
    )
