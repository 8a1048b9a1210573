"""HTTP routes of OpenAI's API. ``base_url`` of a client is ``http://HOST:PORT/v1``; a model is an assistant."""

import contextlib
import functools
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from litestar import Controller, get, post
from litestar.params import FromPath, JSONBody

from app.agents.port import ModelOptions
from app.base.errors import Invalid, NotFound
from app.base.ids import agent_id, time_of
from app.base.offload import body_bytes, offload
from app.domain.lifecycle import LIVE
from app.engine.structs import CommandBody, Run, RunCreate
from app.features.access.guard import READS, STARTS_RUNS, WRITES, CurrentPrincipal
from app.features.access.idempotency import key_in, on_thread
from app.features.assistants.structs import Assistant, AssistantSearch
from app.infra.http.event_streams import EventStream, JsonAnswer, LateAnswer, OpenResponse
from app.infra.http.problems import ERROR_SHAPE
from app.infra.http.query_params import AnyRequest
from app.infra.http.request_context import PROTOCOL_LABEL
from app.protocols.gateway import OBSERVABLE, Gateway, ProtocolGateway
from app.protocols.openai.chat import STOPPING, ChatCollector, ChatProjection
from app.protocols.openai.chats import Chat, Said, chat_of, marked, text_of, turn_of
from app.protocols.openai.endings import NO_RETRY, retry_headers
from app.protocols.openai.errors import error_shape, named_model, unknown_model
from app.protocols.openai.inbound import message_of
from app.protocols.openai.past import run_events, run_of_accepted
from app.protocols.openai.structs import ChatMessage, ChatRequest
from app.protocols.openai.tasks import WITHOUT_TOOLS, is_task, runs_with_options
from app.protocols.openai.tools import client_tool_names, options_of, output_of
from app.protocols.questions import answers_by_call
from app.protocols.threads import news_in
from app.security.access.structs import Principal


class ChatStream(EventStream):
    """A streamed completion."""

    __slots__ = ()
    come_back = STOPPING


class OpenAIController(Controller):
    """Chat completions by agents, and the list of agents."""

    path = "/v1"
    tags = ("OpenAI",)
    opt = {**WRITES, ERROR_SHAPE: error_shape, PROTOCOL_LABEL: "openai.chat"}  # noqa: RUF012  as the framework declares it

    @get("/models", opt=READS, summary="List the assistants as models")
    async def models(self, principal: CurrentPrincipal, gateway: Gateway) -> dict[str, Any]:
        """Agents by their names, other assistants by their ids."""
        found, _ = await gateway.assistants.search(principal, AssistantSearch(limit=1000))
        return {"object": "list", "data": [_model(one) for one in found]}

    @get("/models/{model:str}", opt=READS, summary="Retrieve an assistant as a model")
    async def retrieve_model(
        self, model: FromPath[str], principal: CurrentPrincipal, gateway: Gateway
    ) -> dict[str, Any]:
        """An agent by its name or its id, another assistant by its id."""
        try:
            return _model(await gateway.assistants.get(principal, gateway.assistants.id_of(model)))
        except (Invalid, NotFound):
            raise unknown_model(model, gateway.assistants) from None

    @post("/chat/completions", status_code=200, opt=STARTS_RUNS, summary="Complete a chat by a run of an agent")
    async def chat(
        self,
        data: JSONBody[ChatRequest],
        principal: CurrentPrincipal,
        gateway: Gateway,
        request: AnyRequest,
    ) -> OpenResponse:
        """A chat-id header (``X-OpenWebUI-Chat-Id``, ``X-Chat-Id``) continues the thread of that chat.

        Without one, the run has the messages of the request alone and leaves no thread.
        """
        if not data.messages:
            raise Invalid("messages is empty: send at least one.", (("/messages", "is empty"),))
        options = options_of(
            data.tools,
            data.tool_choice,
            data.parallel_tool_calls,
            output=output_of(data.response_format, "response_format"),
        )
        gateway.streams.admit(principal.holder)
        task = is_task(request.headers, data.messages[-1].content)
        if task and await runs_with_options(gateway, principal, data.model):
            options = WITHOUT_TOOLS
        chat = None if task else chat_of(request.headers, principal)
        thread_id = None if chat is None else chat.thread_id
        work = await _work(gateway, principal, chat, data.messages)
        body = RunCreate(
            assistant_id=data.model,
            stream_mode=OBSERVABLE,
            if_not_exists="create",
            metadata={"protocol": "openai.chat"},
            model_options=options,
            **work,
        )
        key = on_thread(await key_in(request), thread_id)
        try:
            accepted = await gateway.runs.create(principal, thread_id, body, key)
        except Invalid as error:
            raise named_model(error, data.model, gateway.assistants) from error
        run = await run_of_accepted(gateway, principal, accepted)
        if data.stream and run.status not in LIVE:
            await gateway.runs.check_log(principal, run.thread_id, run.run_id)
        return _answer(gateway, principal, data, run, options, lasts=key is not None)


def _answer(
    gateway: ProtocolGateway,
    principal: Principal,
    data: ChatRequest,
    run: Run,
    options: ModelOptions | None,
    *,
    lasts: bool,
) -> OpenResponse:
    """Return the completion of a run. One that ``lasts`` is found again by its key: no disconnect or drain ends it."""
    runs, streams, run_id = gateway.runs, gateway.streams, run.run_id
    created_at = int((time_of(str(run_id)) or datetime.now(UTC)).timestamp())  # the same in a repeated response
    completion_id = f"chatcmpl-{run_id}"
    headers = {"X-Thread-Id": str(run.thread_id), "X-Run-Id": str(run_id), **NO_RETRY}
    if ignored := data.given():
        headers["X-Ignored-Parameters"] = ", ".join(ignored)
    client_tools = client_tool_names(options)
    stop = None if lasts else functools.partial(runs.stop, principal, run_id)
    undo = None if lasts else functools.partial(runs.undo, principal, run_id)
    if data.stream:
        include_usage = data.stream_options is not None and data.stream_options.include_usage
        chunks = gateway.projections.follow(
            principal,
            run_id,
            ("openai.chat", include_usage, client_tools),
            lambda: ChatProjection(
                completion_id, data.model, created_at, include_usage=include_usage, client_tools=client_tools
            ),
        )
        stream = ChatStream(streams, chunks, headers=headers, on_disconnect=stop, holder=principal.holder)
        return stream.failing_with(retry_headers(run, lasts=lasts))
    collector = ChatCollector(completion_id, data.model, created_at, client_tools)
    result = _completion(gateway, principal, run, collector)
    answer = JsonAnswer(streams, result, headers=headers, on_disconnect=stop, on_drain=undo, holder=principal.holder)
    return answer.failing_with(retry_headers(run, lasts=lasts))


async def _work(
    gateway: ProtocolGateway, principal: Principal, chat: Chat | None, messages: Sequence[ChatMessage]
) -> dict[str, Any]:
    """Return what a run of the chat starts from: results of tools that it waits for, else the messages it needs."""
    if chat is None:
        return {"input": {"messages": await _input_from(messages, 0)}}
    first_new = len(messages) - len(news_in(messages))
    if first_new == len(messages):
        raise Invalid("messages brings nothing new: end it with a user's message.", (("/messages", "no news"),))
    if all(message.role == "tool" for message in messages[first_new:]):
        given = await _input_from(messages, first_new)
        results = {message["tool_call_id"]: message["content"] for message in given}
        answers = answers_by_call(await gateway.runs.open_questions(principal, chat.thread_id), results)
        if answers:
            return {"command": CommandBody(resume=answers)}
    people = [Said(at, text_of(one.content)) for at, one in enumerate(messages) if one.role == "user"]
    turn = await turn_of(gateway, principal, chat, people, first_new)
    branch = {} if turn.checkpoint_id is None else {"checkpoint_id": str(turn.checkpoint_id)}
    return {"input": {"messages": marked(await _input_from(messages, turn.start))}, **branch}


async def _input_from(messages: Sequence[ChatMessage], start: int) -> list[dict[str, Any]]:
    """Return the messages from position ``start`` on as input of a run. Raises ``Invalid``, ``BadRequest``."""
    return await offload(body_bytes.get(), _read_from, messages, start)


def _read_from(messages: Sequence[ChatMessage], start: int) -> list[dict[str, Any]]:
    return [message_of(message, at) for at, message in enumerate(messages) if at >= start]


async def _completion(gateway: ProtocolGateway, principal: Principal, run: Run, collector: ChatCollector) -> LateAnswer:
    async with contextlib.aclosing(run_events(gateway, principal, run)) as batches:
        async for events in batches:
            for event in events:
                collector.add(event)
    status, body = collector.completion()
    return LateAnswer(status, msgspec.json.encode(body))


def _model(assistant: Assistant) -> dict[str, Any]:
    is_system = assistant.assistant_id == agent_id(assistant.graph_id)
    return {
        "id": assistant.graph_id if is_system else str(assistant.assistant_id),
        "object": "model",
        "created": int(assistant.created_at.timestamp()),
        "owned_by": "agent-service",
    }
