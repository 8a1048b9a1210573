"""HTTP routes of the AI SDK's chat transport: start, resume and stop the run of a chat."""

import contextlib
import re
from typing import Any
from uuid import UUID

from litestar import Controller, get, post
from litestar.params import FromPath, JSONBody

from app.base.errors import Invalid, NotFound
from app.base.offload import body_bytes, offload
from app.engine.structs import CommandBody, RunCreate
from app.features.access.guard import READS, STARTS_RUNS, WRITES, CurrentPrincipal
from app.features.access.idempotency import key_in
from app.infra.http.event_streams import EventStream, NoContent, OpenResponse
from app.infra.http.query_params import AnyRequest
from app.infra.http.request_context import PROTOCOL_LABEL
from app.protocols.ai_sdk.inbound import message_of, responded_in
from app.protocols.ai_sdk.projection import STOPPING, UIMessageProjection
from app.protocols.ai_sdk.structs import ChatPost
from app.protocols.forks import input_checkpoint, run_that_brought
from app.protocols.gateway import OBSERVABLE, Gateway, ProtocolGateway
from app.protocols.live_runs import live_run, stop_run
from app.protocols.questions import resume_of
from app.protocols.threads import news_in, thread_id_of
from app.security.access.structs import Principal

HEADERS = {"X-Vercel-AI-UI-Message-Stream": "v1"}
_RUN = re.compile(r"msg_([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")

ChatId = FromPath[str]


class ChatStream(EventStream):
    """Chunks of a UI message."""

    __slots__ = ()
    come_back = STOPPING


class AISDKController(Controller):
    """Chats of ``useChat``: the thread of a chat is found again by the chat's id."""

    path = "/ai-sdk/{assistant:str}"
    tags = ("AI SDK",)
    opt = {**WRITES, PROTOCOL_LABEL: "ai-sdk"}  # noqa: RUF012  as the framework declares it

    @post("/chat", status_code=200, opt=STARTS_RUNS, summary="Continue a chat and stream the answer")
    async def chat(
        self,
        assistant: FromPath[str],
        data: JSONBody[ChatPost],
        principal: CurrentPrincipal,
        gateway: Gateway,
        request: AnyRequest,
    ) -> OpenResponse:
        """Messages that the thread does not know yet start a run, an edited one on a branch before it; responses to
        approval requests resume the last run.

        The run continues if the client disconnects: ``GET …/chat/{chat_id}/stream`` resumes the stream.
        """
        gateway.streams.admit(principal.holder)
        thread_id = thread_id_of(principal, data.id)
        work: dict[str, Any]
        if data.trigger == "regenerate-message":
            work = {"checkpoint_id": await _question_of(gateway, principal, thread_id, data.message_id)}
        elif (answered := await _answered(gateway, principal, thread_id, data)) is not None:
            work = answered
        else:
            branch = await _before_edited(gateway, principal, thread_id, data)
            work = {"input": {"messages": await offload(body_bytes.get(), _input, data)}, **branch}
        body = RunCreate(
            assistant_id=assistant,
            stream_mode=OBSERVABLE,
            if_not_exists="create",
            metadata={**(data.metadata or {}), "protocol": "ai-sdk"},
            **work,
        )
        key = await key_in(request)
        accepted = await gateway.runs.create(principal, thread_id, body, key)
        if key is not None:  # the run may be an old one
            await gateway.runs.check_log(principal, thread_id, accepted.run_id)
        run = (thread_id, accepted.run_id)
        first = await gateway.runs.first_of_chain(principal, *run) if "command" in work else accepted.run_id
        return _stream(gateway, principal, run, first)

    @get("/chat/{chat_id:str}/stream", opt=READS, summary="Resume the stream of a chat")
    async def resume(
        self,
        assistant: FromPath[str],
        chat_id: ChatId,
        principal: CurrentPrincipal,
        gateway: Gateway,
        request: AnyRequest,
    ) -> OpenResponse:
        """The stream of the run in progress, from its start or after ``Last-Event-ID``; 204 if none is in progress."""
        thread_id = thread_id_of(principal, chat_id)
        run = await live_run(gateway, principal, thread_id)
        if run is None:
            return NoContent()
        await gateway.runs.check_log(principal, thread_id, run.run_id)
        gateway.streams.admit(principal.holder)
        first = await gateway.runs.first_of_chain(principal, thread_id, run.run_id)
        return _stream(gateway, principal, (thread_id, run.run_id), first, _offset(request))

    @post("/chat/{chat_id:str}/stop", status_code=204, summary="Stop the run of a chat")
    async def stop(
        self, assistant: FromPath[str], chat_id: ChatId, principal: CurrentPrincipal, gateway: Gateway
    ) -> None:
        """What its steps have committed stays; nothing happens if no run is in progress."""
        thread_id = thread_id_of(principal, chat_id)
        run = await live_run(gateway, principal, thread_id)
        if run is not None:
            await stop_run(gateway, principal, thread_id, run.run_id)


async def _answered(
    gateway: ProtocolGateway, principal: Principal, thread_id: UUID, data: ChatPost
) -> dict[str, Any] | None:
    """Return the work of a run that goes on from answers; None if the request answers nothing."""
    responded, given = responded_in(data.messages), data.answers or {}
    if not (responded.approvals or responded.results or given):
        return None
    questions = await gateway.runs.open_questions(principal, thread_id)
    answers = responded.answers(questions) | {one.id: given[one.id] for one in questions if one.id in given}
    return {"command": CommandBody(resume=resume_of(answers))} if answers or responded.approvals or given else None


def _input(data: ChatPost) -> list[dict[str, Any]]:
    """Return the messages that start a run. Raises ``Invalid`` if there are none."""
    news = news_in(data.messages)
    if not news:
        raise Invalid("messages brings nothing new: end it with a user's message.", (("/messages", "no news"),))
    first = len(data.messages) - len(news)
    return [message_of(message, first + at) for at, message in enumerate(news)]


def _stream(
    gateway: ProtocolGateway, principal: Principal, run: tuple[UUID, UUID], first: UUID, after: int = -1
) -> ChatStream:
    """Return the stream of a ``run`` (thread, run), which continues the message of ``first`` if it answers that one."""
    thread_id, run_id = run
    message_id = f"msg_{first}"
    chunks = gateway.projections.follow(principal, run_id, "ai-sdk", lambda: UIMessageProjection(message_id), after)
    headers = {**HEADERS, "X-Thread-Id": str(thread_id), "X-Run-Id": str(run_id)}
    return ChatStream(gateway.streams, chunks, headers=headers, holder=principal.holder)


def _offset(request: AnyRequest) -> int:
    given = request.headers.get("last-event-id") or "-1"
    if not re.fullmatch(r"-1|[0-9]{1,15}", given):
        raise Invalid("Invalid Last-Event-ID: send the id of a chunk of this stream, a number.")
    return int(given)


async def _run_that_said(
    gateway: ProtocolGateway, principal: Principal, thread_id: UUID, message_id: str | None
) -> UUID | None:
    match = _RUN.fullmatch(message_id or "")
    if match is None:
        last = await gateway.runs.current(principal, thread_id)
        return None if last is None else last.run.run_id
    with contextlib.suppress(NotFound):
        return (await gateway.runs.get(principal, thread_id, UUID(match[1]))).run_id
    return None


async def _question_of(gateway: ProtocolGateway, principal: Principal, thread_id: UUID, message_id: str | None) -> str:
    """Return the checkpoint with the input that led to the answer ``message_id`` (None: the thread's last one)."""
    run_id = await _run_that_said(gateway, principal, thread_id, message_id)
    if run_id is None:
        raise NotFound(f"No answer {message_id!r} in this chat: send the id of an assistant's message.")
    first = await gateway.runs.first_of_chain(principal, thread_id, run_id)
    return str(await input_checkpoint(gateway, principal, thread_id, first, before=False))


async def _before_edited(
    gateway: ProtocolGateway, principal: Principal, thread_id: UUID, data: ChatPost
) -> dict[str, str]:
    """Return the checkpoint before a message that was edited, as work of a run; nothing for a new message.

    ``useChat`` sends the edited message last, under the id that it had, and names it.
    """
    last = data.messages[-1] if data.messages else None
    if last is None or last.role != "user" or last.id != data.message_id:
        return {}
    try:
        run = await run_that_brought(gateway, principal, thread_id, last.id)
    except NotFound:  # the thread: no run of the chat was ever accepted
        return {}
    if run is None:
        return {}
    return {"checkpoint_id": str(await input_checkpoint(gateway, principal, thread_id, run.run_id, before=True))}
