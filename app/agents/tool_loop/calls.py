"""Validate and run tool calls concurrently; report errors to the model as tool messages.

Also: the validation of tool results, and the custom events that a running tool emits.
"""

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import msgspec
import structlog

from app.agents.port import Interrupt, ModelOptions, RunContext, ToolDescription, UnresolvedCall
from app.agents.tool_loop.approval import (
    ApprovalDecision,
    ApprovalPolicy,
    approval_id,
    approval_request,
    read_decision,
    read_review,
    review_id,
    review_request,
)
from app.agents.tool_loop.call_questions import (
    Amend,
    AwaitingAnswers,
    CallQuestions,
    ReadableValues,
    amend_in_turn,
    idempotency_key,
    kept_in,
    unresolved_call,
)
from app.agents.tool_loop.checked_tool import CheckedTool
from app.agents.tool_loop.client_tools import client_call_id, client_call_request, client_result, is_client_tool
from app.agents.tool_loop.conversation import AnyToolCall, PendingCalls, calls_of
from app.agents.tools.port import (
    SAFE_TO_REPEAT,
    AgentTool,
    NeedsAnswer,
    Tool,
    ToolClass,
    ToolContext,
    ToolResult,
    ToolSource,
)
from app.base.containment import kind_of, location_of, tamed
from app.base.crash_points import crash_point
from app.base.errors import ReviewAborted, Unavailable
from app.base.ids import new_id
from app.base.tasks import run_concurrently
from app.domain.events import Custom
from app.domain.messages import AIMessage, InvalidToolCall, ToolCall, ToolMessage
from app.domain.state import HIDDEN, MESSAGES
from app.infra.telemetry.tool_calls import OnToolStart, unrecorded
from app.providers.llm.port import ToolSpec

MAX_RESULT_LENGTH = 256 * 1024
"""Characters of a text result shown to the model; longer results are truncated."""

MAX_RESULT_BYTES = 4 * 1024 * 1024
"""Largest result in bytes of JSON, artifact and update included; a larger one is an error."""

MAX_ERROR_LENGTH = 2000

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(ToolResult).decode


def checked_result(result: ToolResult) -> ToolResult:
    """Validate ``result`` and return a copy as it will be stored: the tool may still modify what it returned.

    Raises ``ValueError`` (msgspec's included) or ``TypeError`` if the result is invalid.
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
    """Send values to ``custom`` streams, from any thread, only while the call runs.

    Otherwise an abandoned sync tool, or a task that a tool forgot, could emit into a later step or after the run.
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

    def emit(self, value: Any) -> None:
        """Send ``value``. Raises ``TypeError`` if it is not valid JSON."""
        event = Custom(data=msgspec.Raw(_encode(value)))
        if threading.get_ident() == self._thread:
            self._emit(event)
        else:
            self._loop.call_soon_threadsafe(self._emit, event)

    def _emit(self, event: Custom) -> None:
        if self._open:
            self._context.emit(event)


log = structlog.get_logger(__name__)


CallCounter = Callable[[str, str], None]
"""Called with the tool and the outcome of every call."""


class CallResults(msgspec.Struct, kw_only=True):
    """Results of the calls of one message: answers as ``messages``, and ``interrupts`` of calls that wait for a person.

    ``update`` changes the thread's values; ``forget``: hidden values to remove with them. ``edited`` maps call ids to
    arguments that a person substituted. ``answered``: people's answers that were used by calls which wait again.
    """

    messages: list[ToolMessage] = []
    update: dict[str, Any] = {}
    edited: dict[str, dict[str, Any]] = {}
    forget: dict[str, None] = {}
    interrupts: list[Interrupt] = []
    answered: dict[str, Any] = {}


class Toolbox:
    """The tools of one agent, those of ``sources`` as they are now, and the execution of calls to them."""

    def __init__(
        self,
        tools: Sequence[Tool],
        count: CallCounter,
        approve: ApprovalPolicy = ApprovalPolicy(),
        begin: OnToolStart = unrecorded,
        sources: Sequence[ToolSource] = (),
    ) -> None:
        self._own = {tool.spec.name: CheckedTool(tool) for tool in tools}
        self._current = self._own
        self._sources = sources
        self._versions: list[int] = []
        self._count = count
        self._begin = begin
        self._approve = approve

    def of_one(self, tool: Tool, approve: ApprovalPolicy) -> "Toolbox":
        """Return a toolbox of ``tool`` alone, whose calls are recorded as the calls of this one."""
        return Toolbox([tool], self._count, approve, self._begin)

    @property
    def _tools(self) -> Mapping[str, CheckedTool]:
        if self._sources and (versions := [source.version for source in self._sources]) != self._versions:
            found = [CheckedTool(tool) for source in self._sources for tool in source.tools()]
            self._current = {**{one.tool.spec.name: one for one in found}, **self._own}
            self._versions = versions
        return self._current

    @property
    def specs(self) -> list[ToolSpec]:
        """The tools as a model sees them."""
        return [found.tool.spec for found in self._tools.values()]

    def describe(self) -> list[ToolDescription]:
        """Return the tools with their classes, and whether a person approves their calls."""
        return [
            ToolDescription(
                name=name,
                description=tool.spec.description,
                parameters=dict(tool.spec.parameters),
                tool_class=tool.tool_class,
                approval=self._approve.covers(name, tool.tool_class),
            )
            for name, tool in ((name, found.tool) for name, found in self._tools.items())
        ]

    @property
    def peers(self) -> frozenset[str]:
        """The names of the tools that are other agents."""
        return frozenset(name for name, found in self._own.items() if isinstance(found.tool, AgentTool))

    def check(self) -> None:
        """Raise ``Unavailable`` if the tools of a source cannot be used now."""
        for source in self._sources:
            if source.problem:
                raise Unavailable(f"The agent cannot work: {source.problem}.", retry_after=5)

    def _missing(self, name: str) -> str:
        for source in self._sources:
            if reason := source.refusal(name):
                return f"The tool {name!r} was not run: {reason}."
        names = ", ".join(self._tools) or "none"
        return f"There is no tool {name!r}. The tools are: {names}."

    def tool_class(self, name: str) -> ToolClass:
        """Return the class of the tool ``name``; unknown tools are read-only, since their calls do nothing."""
        found = self._tools.get(name)
        return ToolClass.READ_ONLY if found is None else found.tool.tool_class

    def may_start(self, call: AnyToolCall, message_id: str, context: RunContext) -> bool:
        """Whether ``call`` may run now: it needs neither approval nor review, or a person has answered."""
        if isinstance(call, InvalidToolCall) or call.name not in self._tools:
            return False
        tool_class = self.tool_class(call.name)
        unresolved = unresolved_call(context, message_id, call) if tool_class is ToolClass.UNSAFE else None
        if unresolved is not None:
            return review_id(message_id, call, unresolved.attempt) in context.answers
        return not self._approve.covers(call.name, tool_class) or approval_id(message_id, call) in context.answers

    def waiting(self, message: AIMessage, options: ModelOptions) -> dict[str, str]:
        """Return what calls of ``message`` wait for before they run, by their ids: ``client`` or ``approval``."""
        found: dict[str, str] = {}
        for call in calls_of(message):
            if is_client_tool(call.name, options):
                found[call.id] = "client"
            elif isinstance(call, ToolCall) and self._needs_approval(call.name):
                found[call.id] = "approval"
        return found

    def _needs_approval(self, name: str) -> bool:
        return name in self._tools and self._approve.covers(name, self.tool_class(name))

    async def run(
        self,
        pending: PendingCalls,
        context: RunContext,
        values: ReadableValues | None = None,
        amend: Amend | None = None,
    ) -> CallResults:
        """Run the calls that may run; return their answers in the order of the calls.

        Tools read ``values`` (None: those of the run's state). ``amend`` makes hidden values durable where other work
        of the run may commit meanwhile.

        Calls run concurrently, except transactional ones: those run in sequence, each with the changes of those before
        it. If two others change the same value, the later call wins. A call that a crash left unresolved is handled by
        its tool class. Raises ``ReviewAborted`` if a person aborts the run.
        """
        results: dict[str, ToolResult | AwaitingAnswers] = {}
        transaction_values: dict[str, Any] = {}
        values = context.state if values is None else values
        amend = amend or amend_in_turn(context)
        calls = [CallQuestions(call, pending, context, values, amend) for call in pending.calls]

        async def answer(questions: CallQuestions, changes: Mapping[str, Any]) -> None:
            results[questions.call.id] = await self._answer(questions, changes)

        async def answer_in_turn(turns: Sequence[CallQuestions]) -> None:
            for questions in turns:
                await answer(questions, transaction_values)
                result = results[questions.call.id]
                transaction_values.update(result.update if isinstance(result, ToolResult) else {})

        in_turn = [c for c in calls if self.tool_class(c.call.name) is ToolClass.TRANSACTIONAL]
        others = [c for c in calls if self.tool_class(c.call.name) is not ToolClass.TRANSACTIONAL]
        await run_concurrently(answer_in_turn(in_turn), *(answer(questions, {}) for questions in others))
        answers = CallResults()
        if aborted := [questions.call.name for questions in calls if questions.aborted]:
            raise ReviewAborted(f"A person ended the run at a call of {aborted[0]!r} whose outcome is not known.")
        for questions in calls:
            result = results[questions.call.id]
            if isinstance(result, AwaitingAnswers):
                answers.interrupts += result.interrupts
                answers.answered.update(questions.used)
            else:
                answers.messages.append(_message(questions.call, result))
                answers.update.update(result.update)
                if questions.kept is not None:
                    answers.forget[kept_in(context, pending.message_id, questions.call)] = None
                if questions.edited is not None:
                    answers.edited[questions.call.id] = questions.edited
        return answers

    async def _answer(self, questions: CallQuestions, changes: Mapping[str, Any]) -> ToolResult | AwaitingAnswers:
        call = questions.call
        if questions.of_client:
            return self._from_client(questions)
        found = self._tools.get(call.name)
        if found is None:
            return self._failed("unknown", "unknown", self._missing(call.name))
        if isinstance(call, InvalidToolCall):
            return self._failed(call.name, "invalid", f"The call was not run: {call.error}.")
        if words := found.refusal(call.args):
            return self._failed(call.name, "invalid", f"The call was not run, its arguments {words}.")
        if not self._approve.covers(call.name, found.tool.tool_class) or self._needs_review(
            found.tool, questions, call
        ):
            return await self._call(found.tool, questions, call, changes)
        decision = self._decision(found, questions, call)
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
            questions.edited = decision.args
        return await self._call(found.tool, questions, call, changes)

    def _from_client(self, questions: CallQuestions) -> ToolResult | AwaitingAnswers:
        """Return the result that the run's caller gave, or the question for it."""
        call, answers = questions.call, questions.context.answers
        id_ = client_call_id(questions.message_id, call)
        if id_ not in answers:
            return AwaitingAnswers([Interrupt(id_, client_call_request(call), call_id=call.id)])
        result = client_result(answers[id_])
        self._count("client", result.status)
        return result

    def _needs_review(self, tool: Tool, questions: CallQuestions, call: ToolCall) -> bool:
        """Whether a review replaces the approval: for an unsafe call that may have been made before."""
        return (
            tool.tool_class is ToolClass.UNSAFE
            and approval_id(questions.message_id, call) not in questions.context.answers
            and unresolved_call(questions.context, questions.message_id, call) is not None
        )

    def _decision(
        self, found: CheckedTool, questions: CallQuestions, call: ToolCall
    ) -> ApprovalDecision | AwaitingAnswers:
        id_ = approval_id(questions.message_id, call)
        answers = questions.context.answers
        problem = ""
        if id_ in answers:
            try:
                decision = read_decision(answers[id_], call.name)
                problem = found.problems(decision.args) if decision.action == "edit" else ""
                if not problem:
                    questions.used[id_] = answers[id_]
                    return decision
            except ValueError as error:
                problem = str(error)
        value = approval_request(call, found.tool.tool_class, problem)
        return AwaitingAnswers([Interrupt(id_, value, "approval", call.id, others_only=self._approve.by == "other")])

    async def _call(
        self, tool: Tool, questions: CallQuestions, call: ToolCall, changes: Mapping[str, Any]
    ) -> ToolResult | AwaitingAnswers:
        args = call.args if questions.edited is None else questions.edited
        unresolved = unresolved_call(questions.context, questions.message_id, call)
        if unresolved is not None and tool.tool_class not in SAFE_TO_REPEAT:
            reconciled = await self._reconcile(tool, questions, call, args, unresolved)
            if reconciled is not None:
                return reconciled
        ended, result = self._begin(tool.spec.name, questions.call.id, args), None
        try:
            result = await self._run(tool, questions, args, changes)
        finally:
            ended(_failure_kind(result), result.content if isinstance(result, ToolResult) else None)
        return result

    async def _reconcile(
        self, tool: Tool, questions: CallQuestions, call: ToolCall, args: dict[str, Any], unresolved: UnresolvedCall
    ) -> ToolResult | AwaitingAnswers | None:
        """Resolve a call that may have been made, by look-up or by a person; None if it should run (again)."""
        key, problem = unresolved.key, ""
        if tool.tool_class is ToolClass.RECONCILABLE:
            try:
                async with asyncio.timeout(tool.timeout):
                    found = await tool.lookup(key)
                return None if found is None else checked_result(found)
            except Exception as error:  # noqa: BLE001  if the look-up fails for any reason, a person decides
                raised = tamed(error)
                log_failure(call.name, questions, raised)
                problem = f"The look-up failed: {kind_of(raised)}: {raised}"[:MAX_ERROR_LENGTH]
        id_ = review_id(questions.message_id, call, unresolved.attempt)
        if id_ in questions.context.answers:
            answer = questions.context.answers[id_]
            try:
                verdict = read_review(answer)
            except ValueError as error:
                problem = str(error)
            else:
                questions.used[id_] = answer
                questions.aborted = verdict.action == "abort"
                result = verdict.result
                words = result if isinstance(result, str) else _encode(result).decode()
                if verdict.action == "failed":
                    return self._failed(call.name, "failed", words if result is not None else "The call failed.")
                self._count(call.name, f"review_{verdict.action}")
                return (
                    None if verdict.action == "retry" else ToolResult(content=words if result is not None else "done")
                )
        others_only = self._approve.by == "other" and self._approve.covers(call.name, tool.tool_class)
        value = review_request(call, args, tool.tool_class, key, problem)
        return AwaitingAnswers([Interrupt(id_, value, "review", call.id, others_only=others_only)])

    async def _run(
        self, tool: Tool, questions: CallQuestions, args: dict[str, Any], changes: Mapping[str, Any]
    ) -> ToolResult | AwaitingAnswers:
        limit = asyncio.timeout(tool.timeout)
        name = tool.spec.name
        with CustomEventEmitter(questions.context) as emitter:
            questions.context.check_lease()
            try:
                crash_point("before_tool")
                async with limit:
                    result = checked_result(await tool.call(args, _context(questions, emitter, changes)))
                crash_point("after_tool")
            except NeedsAnswer:
                return AwaitingAnswers(questions.open_interrupts)
            except Exception as error:  # noqa: BLE001  the edge to tool code: the model gets the error
                raised = tamed(error)
                if isinstance(raised, TimeoutError) and limit.expired():
                    return self._failed(name, "timeout", f"The tool took longer than {tool.timeout:g} s.")
                log_failure(name, questions, raised)
                return self._failed(name, "error", f"{kind_of(raised)}: {raised}")
        self._count(name, result.status)
        return result

    def _failed(self, name: str, outcome: str, words: str) -> ToolResult:
        self._count(name, outcome)
        printable = words[:MAX_ERROR_LENGTH].encode("utf-8", "backslashreplace").decode()
        return ToolResult(content=printable, status="error")


def _failure_kind(result: ToolResult | AwaitingAnswers | None) -> str:
    """Return the error type of a call for telemetry; empty if it answered or waits for a person."""
    if result is None:
        return "cancelled"
    return "tool_error" if isinstance(result, ToolResult) and result.status == "error" else ""


def log_failure(tool: str, questions: CallQuestions, error: BaseException) -> None:
    """Log the failure without the arguments and without the error's text, which may repeat them."""
    kind, at = kind_of(error), location_of(error)
    log.warning("tool_failed", tool=tool, run_id=str(questions.context.run_id), error=kind, at=at, raised=error)


def _context(questions: CallQuestions, emitter: CustomEventEmitter, changes: Mapping[str, Any]) -> ToolContext:
    context = questions.context
    return ToolContext(
        tenant_id=str(context.tenant_id),
        thread_id=str(context.thread_id),
        run_id=str(context.run_id),
        call_id=questions.call.id,
        idempotency_key=idempotency_key(context, questions.message_id, questions.call),
        emit=emitter.emit,
        value=lambda name: changes[name] if name in changes else questions.values.get(name),
        interrupt=questions.ask,
        keep=questions.keep,
        kept=questions.kept,
        cancelled=lambda: context.cancelled,
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
