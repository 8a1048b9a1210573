"""HTTP routes of OpenAI's Responses API. A response is a run, whichever API it was started by."""

import contextlib
import functools
from collections.abc import AsyncGenerator, Iterable, Sequence
from typing import Any
from uuid import UUID

import msgspec
from litestar import Controller, delete, get, post
from litestar.params import FromPath, FromQuery, JSONBody

from app.agents.port import ModelOptions
from app.base.errors import Invalid, NotFound
from app.domain.lifecycle import LIVE, RunStatus
from app.domain.messages import Message
from app.engine.structs import Run, RunCreate
from app.features.access.guard import READS, STARTS_RUNS, WRITES, CurrentPrincipal
from app.features.access.idempotency import key_in, on_thread
from app.infra.http.event_streams import EventStream, JsonAnswer, LateAnswer, OpenResponse
from app.infra.http.problems import ERROR_SHAPE
from app.infra.http.query_params import AnyRequest
from app.infra.http.request_context import PROTOCOL_LABEL
from app.protocols.gateway import OBSERVABLE, Gateway, ProtocolGateway
from app.protocols.live_runs import stop_run
from app.protocols.openai.chats import chat_of
from app.protocols.openai.endings import NO_RETRY, refusal_of, retry_headers
from app.protocols.openai.errors import error_shape, named_model
from app.protocols.openai.past import run_events, run_of_accepted
from app.protocols.openai.responses import items
from app.protocols.openai.responses.compaction import compaction, summarizing_run
from app.protocols.openai.responses.inbound import input_messages
from app.protocols.openai.responses.plan import RunPlan, conversation_of, off_the_loop, plan_of
from app.protocols.openai.responses.projection import ResponseCollector, ResponseProjection, stopping_after
from app.protocols.openai.responses.response import RESPONSE, ResponseHead, head_of, uuid_in
from app.protocols.openai.responses.structs import Items, ResponseRequest, StoredSettings
from app.protocols.openai.tasks import WITHOUT_TOOLS, is_task, runs_with_options
from app.protocols.openai.tools import options_of, output_of
from app.protocols.parts import RunFailed
from app.protocols.projection import ProjectedFrame
from app.providers.llm.token_estimate import estimate_text_tokens, estimate_tokens
from app.security.access.structs import Principal

PROTOCOL = "openai.responses"

ResponseId = FromPath[str]

encode = msgspec.json.Encoder().encode


class ResponseStream(EventStream):
    """A streamed response. Its last event, when the server stops, has the number of the one that its reader has."""

    __slots__ = ("_reached", "_response_id")

    def __init__(
        self, gateway: ProtocolGateway, principal: Principal, head: ResponseHead, after: int, **rest: Any
    ) -> None:
        frames = gateway.projections.frames(principal, head.run_id, PROTOCOL, lambda: ResponseProjection(head), after)
        super().__init__(gateway.streams, self._chunks_of(frames), holder=principal.holder, **rest)
        self._reached = after
        self._response_id = head.id

    async def _chunks_of(self, frames: AsyncGenerator[Sequence[ProjectedFrame], None]) -> AsyncGenerator[bytes, None]:
        async with contextlib.aclosing(frames) as batches:
            async for batch in batches:
                last = batch[-1]
                chunk = b"".join([frame.data for frame in batch])
                del batch
                yield (
                    chunk if chunk or last.number > self._reached else stopping_after(self._response_id, self._reached)
                )
                del chunk  # hold no frames while waiting
                self._reached = last.number

    async def _drained(self) -> None:
        await self._finish(stopping_after(self._response_id, self._reached))


class ResponsesController(Controller):
    """Responses by agents: create, retrieve, cancel, delete."""

    path = "/v1/responses"
    tags = ("OpenAI",)
    opt = {**WRITES, ERROR_SHAPE: error_shape, PROTOCOL_LABEL: PROTOCOL}  # noqa: RUF012  as the framework declares it

    @post("/", status_code=200, opt=STARTS_RUNS, summary="Create a response by a run of an agent")
    async def create(
        self, data: JSONBody[ResponseRequest], principal: CurrentPrincipal, gateway: Gateway, request: AnyRequest
    ) -> OpenResponse:
        """A new thread, unless ``previous_response_id``, ``conversation`` or a chat-id header continues one.

        Without ``background``, disconnecting cancels the run, unless the request has an ``Idempotency-Key``.
        """
        gateway.streams.admit(principal.holder)
        output = output_of((data.text or {}).get("format"), "text.format")
        options = options_of(data.tools, data.tool_choice, data.parallel_tool_calls, data.instructions, output)
        task = is_task(request.headers, _last_content(data.input))
        if task:
            data.store = False
            if await runs_with_options(gateway, principal, data.model):
                options = WITHOUT_TOOLS
        chat = None if task else chat_of(request.headers, principal)
        thread_id = None if chat is None else chat.thread_id
        key = on_thread(await key_in(request), thread_id)
        plan = await plan_of(gateway, principal, data, chat, repeats=key is not None)
        try:
            accepted = await gateway.runs.create(
                principal, plan.thread_id, _run_of(data, options, plan, thread_id), key
            )
        except Invalid as error:
            raise named_model(error, data.model, gateway.assistants) from error
        run = await run_of_accepted(gateway, principal, accepted)
        head = head_of(run)._replace(options=options or ModelOptions())
        headers = {"X-Thread-Id": str(accepted.thread_id), "X-Run-Id": str(accepted.run_id)}
        if ignored := data.ignored():
            headers["X-Ignored-Parameters"] = ", ".join(ignored)
        lasts = key is not None or bool(data.background)
        stop = None if lasts else functools.partial(gateway.runs.stop, principal, accepted.run_id)
        if data.stream:
            if run.status not in LIVE:
                await gateway.runs.check_log(principal, run.thread_id, run.run_id)
            stream = ResponseStream(gateway, principal, head, -1, headers=headers, on_disconnect=stop)
            return stream.failing_with(retry_headers(run, lasts=key is not None))
        result = (_current if data.background else _whole)(gateway, principal, run, head)
        undo = None if lasts else functools.partial(gateway.runs.undo, principal, accepted.run_id)
        answer = JsonAnswer(
            gateway.streams, result, headers=headers, on_disconnect=stop, on_drain=undo, holder=principal.holder
        )
        return answer.failing_with(retry_headers(run, lasts=key is not None))

    @post("/compact", status_code=200, opt=STARTS_RUNS, summary="Shorten a conversation to one item")
    async def compact(
        self, data: JSONBody[ResponseRequest], principal: CurrentPrincipal, gateway: Gateway, request: AnyRequest
    ) -> OpenResponse:
        """The agent's model summarizes input and earlier messages; the input of later requests begins with the item."""
        gateway.streams.admit(principal.holder)
        key = await key_in(request)
        messages = await conversation_of(gateway, principal, data)
        body = await off_the_loop(messages, summarizing_run, data.model, messages, PROTOCOL)
        try:
            accepted = await gateway.runs.create(principal, None, body, key)
        except Invalid as error:
            raise named_model(error, data.model, gateway.assistants) from error
        run = await run_of_accepted(gateway, principal, accepted)
        stop, undo = (
            None if key is not None else functools.partial(act, principal, accepted.run_id)
            for act in (gateway.runs.stop, gateway.runs.undo)
        )
        result = _compacted(gateway, principal, run, head_of(run))
        answer = JsonAnswer(
            gateway.streams, result, headers=NO_RETRY, on_disconnect=stop, on_drain=undo, holder=principal.holder
        )
        return answer.failing_with(retry_headers(run, lasts=key is not None))

    @post("/input_tokens", status_code=200, opt=READS, summary="Estimate the input tokens of a response")
    async def input_tokens(
        self, data: JSONBody[ResponseRequest], principal: CurrentPrincipal, gateway: Gateway
    ) -> dict[str, Any]:
        """Of its input, earlier messages, instructions and tools, without the agent's own; no model is asked."""
        messages = await conversation_of(gateway, principal, data)
        texts = [data.instructions or "", *([] if not data.tools else [encode(data.tools).decode()])]
        tokens = await off_the_loop(messages, _tokens_in, messages) + sum(map(estimate_text_tokens, texts))
        return {"object": "response.input_tokens", "input_tokens": tokens}

    @get("/{response_id:str}", opt=READS, summary="Retrieve a response, or follow its events")
    async def retrieve(
        self,
        response_id: ResponseId,
        principal: CurrentPrincipal,
        gateway: Gateway,
        stream: FromQuery[bool] = False,
        starting_after: FromQuery[int | None] = None,
    ) -> OpenResponse:
        """With ``stream``, its events from the first, or after the one with the number ``starting_after``."""
        run = await _found(gateway, principal, response_id)
        head = head_of(run)
        if stream:
            await gateway.runs.check_log(principal, run.thread_id, run.run_id)
            gateway.streams.admit(principal.holder)
            after = -1 if starting_after is None else starting_after
            return ResponseStream(gateway, principal, head, after)
        return JsonAnswer(gateway.streams, _current(gateway, principal, run, head), holder=principal.holder)

    @post("/{response_id:str}/cancel", status_code=200, summary="Cancel a response")
    async def cancel(self, response_id: ResponseId, principal: CurrentPrincipal, gateway: Gateway) -> OpenResponse:
        """What its steps have committed stays. A response that has ended is returned as it is."""
        run = await _found(gateway, principal, response_id)
        if run.status in LIVE:
            await stop_run(gateway, principal, run.thread_id, run.run_id, wait=True)
            run = await _found(gateway, principal, response_id)
        return JsonAnswer(gateway.streams, _current(gateway, principal, run, head_of(run)), holder=principal.holder)

    @delete("/{response_id:str}", status_code=200, summary="Delete a response")
    async def remove(self, response_id: ResponseId, principal: CurrentPrincipal, gateway: Gateway) -> dict[str, Any]:
        """The thread goes with its only response, unless it is a conversation; other threads keep their messages."""
        run = await _found(gateway, principal, response_id)
        head = head_of(run)
        runs, _ = await gateway.runs.list(principal, run.thread_id, status=None, limit=2, offset=0)
        own = isinstance(run.metadata, dict) and run.metadata.get("protocol") == PROTOCOL
        if own and len(runs) == 1 and not head.settings.conversation:
            await gateway.threads.delete(principal, run.thread_id)
        else:
            await gateway.runs.delete(principal, run.thread_id, run.run_id)
        return {"id": head.id, "object": "response.deleted", "deleted": True}

    @get("/{response_id:str}/input_items", opt=READS, summary="List the input items of a response")
    async def input_items(
        self,
        response_id: ResponseId,
        principal: CurrentPrincipal,
        gateway: Gateway,
        after: FromQuery[str | None] = None,
        limit: FromQuery[int] = 20,
        order: FromQuery[str] = "desc",
    ) -> dict[str, Any]:
        """The items that the request brought, newest first unless ``order`` is ``asc``."""
        run = await _found(gateway, principal, response_id)
        head = head_of(run)
        given = msgspec.json.decode(run.kwargs, type=_Given)
        found = items.items_of(input_messages(given.input, run.run_id), head.agent)
        for call_id, call in head.settings.resumed.items():
            answer = given.answer_to(call.question)
            output = items.function_call_output(call_id, answer)
            found.append(output if call.client else items.approval_response(call.question, answer))
        return items.page_of(found, after=after, limit=limit, order=order)


class _GivenAnswers(msgspec.Struct):
    resume: Any = None


class _Given(msgspec.Struct):
    input: Any = None
    command: _GivenAnswers | None = None

    def answer_to(self, question: str) -> Any:
        """Return the answer that the request gave to a question."""
        resume = None if self.command is None else self.command.resume
        return resume.get(question) if isinstance(resume, dict) else resume


def _tokens_in(messages: Iterable[Message]) -> int:
    return sum(map(estimate_tokens, messages))


def _last_content(given: str | Items | None) -> Any:
    last = given[-1] if isinstance(given, list) and given else given
    return last.get("content") if isinstance(last, dict) else last


def _run_of(data: ResponseRequest, options: ModelOptions | None, plan: RunPlan, chat: UUID | None) -> RunCreate:
    settings = StoredSettings(**data.settings(), resumed=plan.resumed, conversation=data.conversation is not None)
    return RunCreate(
        assistant_id=data.model,
        stream_mode=OBSERVABLE,
        if_not_exists="create" if plan.thread_id is not None and plan.thread_id == chat else None,
        on_completion="delete" if data.store is False else "keep",
        metadata={"protocol": PROTOCOL, "openai": msgspec.to_builtins(settings)},
        model_options=options,
        **plan.work,
    )


async def _found(gateway: ProtocolGateway, principal: Principal, response_id: str) -> Run:
    run_id = uuid_in(response_id, RESPONSE)
    with contextlib.suppress(NotFound):
        run = None if run_id is None else await gateway.runs.by_id(principal, run_id)
        if run is not None and head_of(run).settings.store is not False:
            return run
    raise NotFound(f"Response with id {response_id[:100]!r} not found.")


async def _whole(gateway: ProtocolGateway, principal: Principal, run: Run, head: ResponseHead) -> LateAnswer:
    """Wait for the end of a run; a response that has failed is a response, not an error."""
    return LateAnswer(200, encode(await _response(gateway, principal, run, head)))


async def _current(gateway: ProtocolGateway, principal: Principal, run: Run, head: ResponseHead) -> LateAnswer:
    """Return a response as it is now."""
    if run.status in LIVE:
        return LateAnswer(200, encode(head.object("in_progress" if run.status == RunStatus.RUNNING else "queued")))
    return await _whole(gateway, principal, run, head)


async def _compacted(gateway: ProtocolGateway, principal: Principal, run: Run, head: ResponseHead) -> LateAnswer:
    response = await _response(gateway, principal, run, head)
    if response["status"] not in {"completed", "incomplete"}:
        error = response["error"] or {"message": "The summary was cancelled.", "code": ""}
        status, body = refusal_of(RunFailed(error["code"], error["message"]))
        return LateAnswer(status, encode(body))
    return LateAnswer(200, encode(compaction(head.run_id, response)))


async def _response(gateway: ProtocolGateway, principal: Principal, run: Run, head: ResponseHead) -> dict[str, Any]:
    """Return the response of a whole run."""
    collector = ResponseCollector(head)
    async with contextlib.aclosing(run_events(gateway, principal, run)) as batches:
        async for events in batches:
            collector.add(events)
    return collector.response
