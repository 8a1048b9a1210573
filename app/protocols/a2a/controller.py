"""HTTP routes of A2A: agent cards, the JSON-RPC endpoint, and the HTTP+JSON binding."""

from functools import partial
from typing import Any, NamedTuple

import msgspec
from litestar import Controller, Response, delete, get, post
from litestar.di import NamedDependency, Provide
from litestar.params import FromPath, JSONBody

from app.base.errors import AgentServiceError, Invalid, NotFound
from app.base.offload import body_bytes, offload
from app.features.access.guard import (
    ADDS_NOTHING,
    OPEN,
    READS,
    STARTS_RUNS,
    STARTS_RUNS_BY_MESSAGE,
    WRITES,
    CurrentPrincipal,
    check_scope,
)
from app.features.access.rate_limits import count_run
from app.infra.http.event_streams import EventStream, LateAnswer, OpenResponse
from app.infra.http.problems import ERROR_SHAPE
from app.infra.http.query_params import AnyRequest
from app.infra.http.request_context import PROTOCOL_LABEL
from app.infra.http.server_address import address_of
from app.infra.wires import a2a_v03 as v03
from app.infra.wires.a2a import (
    ListTasksParams,
    PushConfig,
    PushConfigPage,
    PushConfigParams,
    RpcRequest,
    SendMessageParams,
    TaskParams,
    Wire,
)
from app.protocols.a2a.agent_tasks import Accepted, AgentTasks
from app.protocols.a2a.bindings import (
    Binding,
    HttpBinding,
    RpcBinding,
    TaskAnswer,
    outcome,
    read_params,
    response,
    version_of,
)
from app.protocols.a2a.card import MAX_AGE, OLD_VERSION, VERSION, AgentCards
from app.protocols.a2a.errors import METHOD_NOT_FOUND, VersionNotSupported, http_shape, rpc_shape
from app.protocols.gateway import Gateway, ProtocolGateway
from app.security.access.structs import WRITE, AuditSink, Principal

HTTP_SHAPE = {ERROR_SHAPE: http_shape, PROTOCOL_LABEL: "a2a"}
RPC_SHAPE = {ERROR_SHAPE: rpc_shape, PROTOCOL_LABEL: "a2a"}


class A2AParts(NamedTuple):
    """What the handlers need besides the kit."""

    cards: AgentCards
    audit: AuditSink


Parts = NamedDependency[A2AParts]


class HttpCall(NamedTuple):
    """A call of an agent by the HTTP+JSON binding."""

    request: AnyRequest
    gateway: ProtocolGateway
    principal: Principal
    assistant: str

    async def __call__(self, method: str, params: Any) -> OpenResponse:
        """Run a method; ``params`` are its struct, or what it is read from."""
        binding = HttpBinding(self.request)
        try:
            if version_of(self.request) == OLD_VERSION:
                raise VersionNotSupported("Version 0.3 is served by JSON-RPC: see the agent's card.")
            tasks = await _tasks(self.gateway, self.principal, self.assistant)
            return await _call(binding, method, params, tasks, self.request)
        except UnknownMethod:
            error = NotFound(f"No operation matches {self.request.scope['path']}.")
            return response(binding, binding.error(error))
        except AgentServiceError as error:
            if error.status == 500:
                raise
            return response(binding, binding.error(error), error)


def http_call(assistant: FromPath[str], principal: CurrentPrincipal, gateway: Gateway, request: AnyRequest) -> HttpCall:
    """Provide the call of a request."""
    return HttpCall(request, gateway, principal, assistant)


Call = NamedDependency[HttpCall]


class AgentCardController(Controller):
    """Discovery: the cards of agents, without authentication."""

    tags = ("A2A",)
    opt = {**OPEN, **HTTP_SHAPE}  # noqa: RUF012  as the framework declares it

    @get("/.well-known/agent-card.json", summary="Show the card of the default agent")
    async def root_card(self, a2a: Parts, request: AnyRequest) -> Response[bytes]:
        """The default agent is the first of the agents file, or the one that its ``default`` names.

        In version 1.0; in 0.3 for the header ``A2A-Version: 0.3``.
        """
        return _card(a2a.cards, a2a.cards.default, request, VERSION)

    @get("/a2a/{assistant:str}/.well-known/agent-card.json", summary="Show the card of an agent")
    async def card(self, assistant: FromPath[str], a2a: Parts, request: AnyRequest) -> Response[bytes]:
        """Of an agent of the agents file; other assistants have an extended card alone.

        With the members of both versions, unless the header ``A2A-Version`` names one: peers of 0.3 send none.
        """
        return _card(a2a.cards, assistant, request)

    @get("/a2a/jwks.json", summary="Show the public key that signs the cards")
    async def key_set(self, a2a: Parts) -> Response[bytes]:
        """A JSON Web Key Set; empty if cards are not signed."""
        signer = a2a.cards.signer
        keys = {"keys": []} if signer is None else signer.key_set
        headers = {"Cache-Control": f"public, max-age={MAX_AGE}"}
        return Response(msgspec.json.encode(keys), media_type="application/json", headers=headers)


class A2AController(Controller):
    """Tasks of an agent. A task is a run with those that continue it; its context is the thread."""

    path = "/a2a/{assistant:str}"
    tags = ("A2A",)
    opt = {**READS, **HTTP_SHAPE}  # noqa: RUF012  as the framework declares it
    dependencies = {"call": Provide(http_call, sync_to_thread=False)}  # noqa: RUF012  the same

    @post("/", status_code=200, opt={**STARTS_RUNS_BY_MESSAGE, **RPC_SHAPE}, summary="Call a method by JSON-RPC")
    async def rpc(
        self,
        assistant: FromPath[str],
        data: JSONBody[RpcRequest],
        principal: CurrentPrincipal,
        gateway: Gateway,
        a2a: Parts,
        request: AnyRequest,
    ) -> OpenResponse:
        """``SendMessage``, ``SendStreamingMessage``, ``GetTask``, ``ListTasks``, ``CancelTask``, ``SubscribeToTask``,
        ``GetExtendedAgentCard``; also by their names in version 0.3, like ``message/send``.
        """
        method = v03.METHODS.get(data.method, data.method)
        old = data.method in v03.METHODS
        binding = RpcBinding(data.id, (lambda result: v03.result_of(method, result)) if old else None)
        try:
            if version_of(request) == OLD_VERSION and not old:
                method = ""
            params: Any = data.params
            if old:
                params = await offload(body_bytes.get(), v03.params_of, method, params)
            if method == "GetExtendedAgentCard":
                params = partial(a2a.cards.card, version=OLD_VERSION if old else VERSION)
            if method in _WRITES:
                check_scope(principal, a2a.audit, request.scope, WRITE)
            return await _call(binding, method, params, await _tasks(gateway, principal, assistant), request)
        except UnknownMethod:
            known = ", ".join(METHODS)
            error = NotFound(f"There is no method {data.method[:100]!r}: use one of {known}.")
            return response(binding, binding.error(error, METHOD_NOT_FOUND))
        except AgentServiceError as error:
            if error.status == 500:
                raise
            return response(binding, binding.error(error), error)

    @post("/message:send", status_code=200, opt={**STARTS_RUNS, **HTTP_SHAPE}, summary="Send a message to an agent")
    async def send(
        self,
        data: JSONBody[SendMessageParams],
        call: Call,
    ) -> OpenResponse:
        """Waits until the task has ended or asks for something, at most a minute; then it shows the task."""
        return await call("SendMessage", data)

    @post("/message:stream", status_code=200, opt={**STARTS_RUNS, **HTTP_SHAPE}, summary="Send a message and follow")
    async def stream(
        self,
        data: JSONBody[SendMessageParams],
        call: Call,
    ) -> OpenResponse:
        """The task and its updates as server-sent events; it continues if the client disconnects."""
        return await call("SendStreamingMessage", data)

    @get("/tasks", summary="List tasks of an agent")
    async def tasks(self, call: Call) -> OpenResponse:
        """The last changed first. Query parameters: ``contextId``, ``status``, ``pageSize``, ``pageToken``,
        ``historyLength``, ``statusTimestampAfter``, ``includeArtifacts``.
        """
        return await call("ListTasks", dict(call.request.query_params))

    @get("/tasks/{task_id:str}", summary="Show a task")
    async def task(
        self,
        task_id: FromPath[str],
        call: Call,
    ) -> OpenResponse:
        """With ``:subscribe`` after its id: follow the task, as by POST."""
        task, _, action = task_id.partition(":")
        method = {"": "GetTask", "subscribe": "SubscribeToTask"}.get(action, "")
        return await call(method, {**call.request.query_params, "id": task})

    @post(
        "/tasks/{task_id:str}", status_code=200, opt={**ADDS_NOTHING, **HTTP_SHAPE}, summary="Cancel or follow a task"
    )
    async def act(
        self,
        task_id: FromPath[str],
        call: Call,
    ) -> OpenResponse:
        """``{id}:cancel`` cancels it, ``{id}:subscribe`` follows it by server-sent events, as by GET."""
        task, _, action = task_id.partition(":")
        method = {"cancel": "CancelTask", "subscribe": "SubscribeToTask"}.get(action, "")
        return await call(method, {"id": task})

    @post(
        "/tasks/{task_id:str}/pushNotificationConfigs",
        status_code=200,
        opt={**WRITES, **HTTP_SHAPE},
        summary="Have the news of a task sent to an address",
    )
    async def configure(
        self,
        task_id: FromPath[str],
        data: JSONBody[PushConfig],
        call: Call,
    ) -> OpenResponse:
        """The task is sent when it has ended and whenever it asks, signed as webhooks are."""
        given = msgspec.structs.replace(data, task_id=task_id)
        return await call("CreateTaskPushNotificationConfig", given)

    @get("/tasks/{task_id:str}/pushNotificationConfigs", summary="List where news of a task are sent to")
    async def configs(
        self,
        task_id: FromPath[str],
        call: Call,
    ) -> OpenResponse:
        """All on one page; credentials are not shown."""
        return await call("ListTaskPushNotificationConfigs", {"taskId": task_id})

    @get("/tasks/{task_id:str}/pushNotificationConfigs/{config_id:str}", summary="Show a push configuration")
    async def config(
        self,
        task_id: FromPath[str],
        config_id: FromPath[str],
        call: Call,
    ) -> OpenResponse:
        """Credentials are not shown."""
        return await call("GetTaskPushNotificationConfig", {"taskId": task_id, "id": config_id})

    @delete(
        "/tasks/{task_id:str}/pushNotificationConfigs/{config_id:str}",
        status_code=200,
        opt={**WRITES, **HTTP_SHAPE},
        summary="Delete a push configuration",
    )
    async def unconfigure(
        self,
        task_id: FromPath[str],
        config_id: FromPath[str],
        call: Call,
    ) -> OpenResponse:
        """Nothing happens if it does not exist."""
        return await call("DeleteTaskPushNotificationConfig", {"taskId": task_id, "id": config_id})

    @get("/extendedAgentCard", summary="Show the extended card of an agent")
    async def extended_card(
        self,
        a2a: Parts,
        call: Call,
    ) -> OpenResponse:
        """Assistants have one too."""
        return await call("GetExtendedAgentCard", partial(a2a.cards.card, version=VERSION))


class UnknownMethod(Exception):
    """The method does not exist."""


METHODS: dict[str, type[Wire] | None] = {
    "SendMessage": SendMessageParams,
    "SendStreamingMessage": SendMessageParams,
    "GetTask": TaskParams,
    "ListTasks": ListTasksParams,
    "CancelTask": TaskParams,
    "SubscribeToTask": TaskParams,
    "GetExtendedAgentCard": None,
    "CreateTaskPushNotificationConfig": PushConfig,
    "GetTaskPushNotificationConfig": PushConfigParams,
    "ListTaskPushNotificationConfigs": PushConfigParams,
    "DeleteTaskPushNotificationConfig": PushConfigParams,
}
"""Methods and their parameters."""

_WRITES = {
    "SendMessage",
    "SendStreamingMessage",
    "CancelTask",
    "CreateTaskPushNotificationConfig",
    "DeleteTaskPushNotificationConfig",
}


async def _tasks(gateway: ProtocolGateway, principal: Principal, assistant: str) -> AgentTasks:
    return await AgentTasks.of(gateway, principal, assistant)


async def _call(binding: Binding, method: str, given: Any, tasks: AgentTasks, request: AnyRequest) -> OpenResponse:
    """Run a method. Raises ``UnknownMethod``, and what the method raises."""
    if method not in METHODS:
        raise UnknownMethod
    wanted = METHODS[method]
    params: Any = given
    if wanted is not None and not isinstance(given, msgspec.Struct):
        params = await offload(body_bytes.get(), read_params, given, wanted)
    if wanted is SendMessageParams:
        if isinstance(binding, RpcBinding):
            await count_run(request.scope)
        return await _send(binding, method, params, tasks)
    if method == "SubscribeToTask":
        tasks.gateway.streams.admit(tasks.principal.holder)
        return _stream(binding, tasks, await tasks.subscription(params.id))
    if method == "GetTask":
        result: Any = await tasks.get(params.id, params.history_length)
    elif method == "ListTasks":
        result = await tasks.page(params)
    elif method == "CancelTask":
        result = await tasks.cancel(params.id)
    elif method.endswith(("Config", "Configs")):
        result = await _push(method, params, tasks)
    else:
        body, _ = given(await tasks.described(), address_of(request))
        result = msgspec.Raw(body)
    return response(binding, binding.result(result))


async def _push(method: str, params: Any, tasks: AgentTasks) -> Any:
    """Run a method about push configurations."""
    if method == "CreateTaskPushNotificationConfig":
        return await tasks.configure(params)
    if method == "ListTaskPushNotificationConfigs":
        return PushConfigPage(configs=await tasks.configured(params.task_id), next_page_token="")
    if not params.id:
        raise Invalid.at("`id` is required.", "/id")
    if method == "GetTaskPushNotificationConfig":
        return (await tasks.configured(params.task_id, params.id))[0]
    await tasks.forget(params.task_id, params.id)
    return {}


async def _send(binding: Binding, method: str, params: SendMessageParams, tasks: AgentTasks) -> OpenResponse:
    gateway, holder = tasks.gateway, tasks.principal.holder
    wanted = params.configuration
    length = None if wanted is None else wanted.history_length
    if length is not None and length < 0:
        raise Invalid.at("historyLength must be 0 or more.", "/configuration/historyLength")
    at_once = wanted is not None and wanted.return_immediately and method == "SendMessage"
    if not at_once:
        gateway.streams.admit(holder)
    accepted = await tasks.accept(params)
    if method == "SendStreamingMessage":
        return _stream(binding, tasks, tasks.updates(accepted))

    async def current() -> LateAnswer:
        return await outcome(binding, lambda: tasks.answer(accepted, length))

    if at_once:
        return response(binding, await current())
    return TaskAnswer(gateway.streams, _settled(tasks, accepted, current), current, binding.media_type, holder)


async def _settled(tasks: AgentTasks, accepted: Accepted, current: Any) -> LateAnswer:
    await tasks.settled(accepted)
    answer: LateAnswer = await current()
    return answer


def _stream(binding: Binding, tasks: AgentTasks, chunks: Any) -> EventStream:
    return EventStream(tasks.gateway.streams, binding.events(chunks), holder=tasks.principal.holder)


def _card(cards: AgentCards, assistant: str, request: AnyRequest, version: str = "") -> Response[bytes]:
    """Return a card in the version that the client names, else in ``version``."""
    headers = {"Cache-Control": f"public, max-age={MAX_AGE}", "Vary": "A2A-Version"}
    body, headers["ETag"] = cards.card(cards.describe(assistant), address_of(request), version_of(request) or version)
    known = request.headers.get("if-none-match", "")
    if headers["ETag"] in known or known == "*":
        return Response(b"", status_code=304, headers=headers)
    return Response(body, media_type="application/json", headers=headers)
