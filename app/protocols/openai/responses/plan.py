"""Where a request starts: a new thread, an earlier response, a conversation, or the questions that its thread asks."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, ParamSpec, TypeVar
from uuid import UUID

import msgspec

from app.base import json_scan
from app.base.errors import Invalid, NotFound
from app.base.offload import body_bytes, offload, rough_size
from app.domain.lifecycle import LIVE
from app.domain.messages import Message
from app.engine.execution.questions import OpenQuestion
from app.engine.structs import CommandBody
from app.protocols.gateway import ProtocolGateway
from app.protocols.openai.chats import Chat, Said, marked, text_of, turn_of
from app.protocols.openai.errors import UNKNOWN_RESPONSE
from app.protocols.openai.past import messages_at, read_messages
from app.protocols.openai.responses.inbound import GivenInput, answer_of, read_input, resumed_calls
from app.protocols.openai.responses.response import CONVERSATION, RESPONSE, settings_in, uuid_in
from app.protocols.openai.responses.structs import ResponseRequest, ResumedCall
from app.protocols.parts import calls_in
from app.protocols.questions import answers_by_call, client_call_id, resume_of
from app.security.access.structs import Principal

P = ParamSpec("P")
Value = TypeVar("Value")


class RunPlan(NamedTuple):
    """What a run starts from. ``thread_id`` None: a thread of its own; ``work``: fields of ``RunCreate``.

    ``resumed``: the calls that it continues, by id.
    """

    thread_id: UUID | None
    work: dict[str, Any]
    resumed: dict[str, ResumedCall] = {}  # noqa: RUF012  never changed


class Base(NamedTuple):
    """Where a thread is continued: at ``checkpoint_id``, None for its newest state."""

    thread_id: UUID
    checkpoint_id: UUID | None = None


async def plan_of(
    gateway: ProtocolGateway, principal: Principal, data: ResponseRequest, chat: Chat | None, *, repeats: bool
) -> RunPlan:
    """Return what the run of a request starts from. ``chat``: that of a UI, which sends all of its messages.

    ``repeats``: the request has an idempotency key, so it may be a repetition whose thread has moved on. Raises
    ``Invalid``, ``NotFound``.
    """
    if data.previous_response_id is not None and data.conversation is not None:
        raise _invalid("previous_response_id", "and conversation exclude each other")
    if data.store is False and data.background:
        raise _invalid("background", "needs store")
    base, known = await _base(gateway, principal, data), data.input
    goes_on = None if base is not None or data.store is False else chat
    if goes_on is not None:
        base, known = await _base_of_chat(gateway, principal, goes_on, data.input)
    given = await _read(known)
    if base is None or data.store is False:
        earlier = [] if base is None else await _messages(gateway, principal, base)
        messages = [*earlier, *given.messages]
        await off_the_loop(messages, _check_calls, messages)
        return RunPlan(None, {"input": {"messages": messages}})
    fork: dict[str, Any] = {} if base.checkpoint_id is None else {"checkpoint_id": str(base.checkpoint_id)}
    questions = [] if fork else await gateway.runs.open_questions(principal, base.thread_id)
    answers = _answers(given, questions)
    if given.approvals and not given.only_answers:
        raise _invalid("input", "answers approval requests: send them without other items")
    if given.approvals or (given.only_answers and answers):
        resumed = resumed_calls(questions, list(answers))
        return RunPlan(base.thread_id, {"command": CommandBody(resume=resume_of(answers)), **fork}, resumed)
    if not repeats:
        _check_results(given, questions)
    messages = given.messages if goes_on is None else marked(given.messages)
    return RunPlan(base.thread_id, {"input": {"messages": messages}, **fork})


async def _base_of_chat(gateway: ProtocolGateway, principal: Principal, chat: Chat, given: Any) -> tuple[Base, Any]:
    """Return where the thread of a chat goes on, and the input that it needs of all that the request brings."""
    if not isinstance(given, list):
        turn = await turn_of(gateway, principal, chat, [Said(0, text_of(given))], 0)
        return Base(chat.thread_id, turn.checkpoint_id), given
    said = [at for at, item in enumerate(given) if isinstance(item, dict) and _is_said(item)]
    first_new = said[-1] + 1 if said else 0
    people = [
        Said(at, text_of(item.get("content")))
        for at, item in enumerate(given)
        if isinstance(item, dict) and item.get("role") == "user"
    ]
    if not any(one.at >= first_new for one in people):  # outputs of tools, answers to questions
        return Base(chat.thread_id), given[first_new:]
    turn = await turn_of(gateway, principal, chat, people, first_new)
    return Base(chat.thread_id, turn.checkpoint_id), given[turn.start :]


async def conversation_of(gateway: ProtocolGateway, principal: Principal, data: ResponseRequest) -> list[Message]:
    """Return the messages that a response would be based on. Raises as ``plan_of``."""
    base = await _base(gateway, principal, data)
    earlier = [] if base is None else await _messages(gateway, principal, base)
    messages = [*earlier, *(await _read(data.input)).messages]
    return await off_the_loop(messages, msgspec.convert, messages, list[Message])


async def off_the_loop(messages: Sequence[Any], work: Callable[P, Value], *args: P.args, **named: P.kwargs) -> Value:
    """Call ``work``, which handles ``messages`` one by one: in a thread if they are many or long."""
    return await offload(rough_size(messages), work, *args, **named)


async def _read(given: Any) -> GivenInput:
    return await offload(body_bytes.get(), read_input, given)


def _answers(given: GivenInput, questions: Sequence[OpenQuestion]) -> dict[str, Any]:
    """Return the answers of a request by question id; a result may answer any question by its request's id."""
    answers = answers_by_call(questions, given.results)
    for one in questions:
        if one.id in given.approvals:
            answers[one.id] = answer_of(one, given.approvals[one.id])
        elif f"mcpr_{one.id}" in given.results:
            result = given.results[f"mcpr_{one.id}"]
            try:
                answers[one.id] = json_scan.parse(result, "The output") if isinstance(result, str) else result
            except Invalid:
                answers[one.id] = result
    return answers


def _check_results(given: GivenInput, questions: Sequence[OpenQuestion]) -> None:
    for one in questions:
        if client_call_id(one.value) is not None and one.call_id not in given.results:
            raise _invalid("input", f"has no tool output for function call {one.call_id}")


def _check_calls(messages: Sequence[Mapping[str, Any]]) -> None:
    """Check that each tool output of a whole conversation follows its call. Raises ``Invalid``."""
    called: set[str] = set()
    for message in messages:
        called |= {call.call_id for call in calls_in(message)}
        if message.get("type") == "tool" and str(message.get("tool_call_id")) not in called:
            raise _invalid(
                "input", f"has a tool output for {str(message.get('tool_call_id'))[:100]!r}, and no such call"
            )


def _is_said(item: dict[str, Any]) -> bool:
    return item.get("role") == "assistant" or item.get("type") in ("function_call", "mcp_call", "reasoning")


async def _base(gateway: ProtocolGateway, principal: Principal, data: ResponseRequest) -> Base | None:
    if data.conversation is not None:
        given = data.conversation.get("id") if isinstance(data.conversation, dict) else data.conversation
        thread_id = uuid_in(str(given), CONVERSATION)
        if thread_id is None:
            raise NotFound(f"Conversation with id {str(given)[:100]!r} not found.")
        if data.store is False:
            raise _invalid("conversation", "needs store")
        return Base(thread_id)
    if data.previous_response_id is None:
        return None
    run_id = uuid_in(data.previous_response_id, RESPONSE)
    try:
        if run_id is None:
            raise NotFound
        ended = await gateway.runs.ended(principal, run_id)
        if settings_in(ended.metadata).store is False:
            raise NotFound
    except NotFound:
        given = data.previous_response_id[:100]
        raise _invalid("previous_response_id", f"is {given!r}: {UNKNOWN_RESPONSE}") from None
    if ended.status in LIVE:
        raise _invalid("previous_response_id", "is of a response that has not ended: wait for it or cancel it")
    return Base(ended.thread_id, None if ended.checkpoint_id in {None, ended.head} else ended.checkpoint_id)


async def _messages(gateway: ProtocolGateway, principal: Principal, base: Base) -> list[dict[str, Any]]:
    if base.checkpoint_id is not None:
        return await messages_at(gateway, principal, base.thread_id, base.checkpoint_id)
    return await read_messages((await gateway.threads.state(principal, base.thread_id)).values)


def _invalid(field: str, words: str) -> Invalid:
    return Invalid(f"{field} {words}.", ((f"/{field}", words),))
