"""Serve JSON-RPC messages of both revisions over a surface.

Older revisions answer asks by requests on the stream of their call, whose ids are sealed, so that any process can take
the responses. 2026-07-28 gets ``input_required`` and repeats the call with answers and the sealed state.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any, NamedTuple

import msgspec

from app.base.errors import AgentServiceError
from app.base.offload import body_bytes, offload
from app.infra.http.event_streams import OpenResponse
from app.infra.http.open_streams import OpenStreams
from app.protocols.mcp.errors import INVALID_PARAMS, METHOD_NOT_FOUND, MISSING_CAPABILITY, RpcError, rpc_error_of
from app.protocols.mcp.responses import CallStream, RpcResponse, RpcStream, completed, encode, failed, listening
from app.protocols.mcp.revisions import (
    LEGACY,
    SUPPORTED,
    Envelope,
    is_stateless,
    progress_token,
    stateless_envelope,
)
from app.protocols.mcp.sealing import Sealer, Unsealable, digest
from app.protocols.mcp.structs import (
    META,
    TASKS,
    CancelledParams,
    CompleteParams,
    InitializeParams,
    LevelParams,
    ListenParams,
    ListParams,
    NameParams,
    RpcMessage,
    TaskParams,
    UriParams,
)
from app.protocols.mcp.surface import Asked, Caller, Done, Following, Gate, Named, Surface, TaskMade
from app.security.access.structs import Principal
from app.security.idempotency.structs import IdempotencyKey

STATE_SECONDS = 7 * 86_400
"""How long a client may take to answer what a call asks."""

SESSION_SECONDS = 90 * 86_400

LIST_TTL_MS = 60_000
"""How long a client may cache a list; caches must not share it between principals."""

MAX_TASKS = 20
"""Tasks that one stream follows."""

_SESSION = "session"
_ANSWER = "answer"

Method = Callable[["Exchange", dict[str, Any]], Awaitable[dict[str, Any] | OpenResponse]]


class Request(NamedTuple):
    """One POST: its ``message``, its ``headers`` in lower case, its sender and the sender's rights."""

    message: RpcMessage
    headers: Mapping[str, str]
    principal: Principal
    gate: Gate
    key: IdempotencyKey | None = None


class Exchange(NamedTuple):
    """A request and its surface."""

    surface: Surface
    caller: Caller
    request_id: str | int


class McpServer:
    """The protocol over any surface. ``name`` and ``version`` identify the server to clients."""

    def __init__(self, streams: OpenStreams, sealer: Sealer, name: str, version: str) -> None:
        self._streams = streams
        self._sealer = sealer
        self._info = {"name": name, "title": "agent-service", "version": version}
        self._both: dict[str, Method] = {
            "tools/list": self._list_tools,
            "tools/call": self._call_tool,
            "resources/list": self._list_resources,
            "resources/templates/list": self._list_templates,
            "resources/read": self._read_resource,
            "prompts/list": self._list_prompts,
            "prompts/get": self._get_prompt,
            "completion/complete": self._complete,
        }
        self._stateless: dict[str, Method] = {
            **self._both,
            "server/discover": self._discover,
            "subscriptions/listen": self._listen,
            "tasks/get": self._get_task,
            "tasks/update": self._update_task,
            "tasks/cancel": self._cancel_task,
        }
        self._legacy: dict[str, Method] = {
            **self._both,
            "ping": self._ping,
            "logging/setLevel": self._set_level,
            "resources/subscribe": self._subscribe,
            "resources/unsubscribe": self._subscribe,
        }

    async def serve(self, surface: Surface, request: Request) -> OpenResponse:
        """Respond to a message. Raises errors that have an HTTP status: missing rights, rates, unavailability."""
        message = request.message
        request_id = message.id if isinstance(message.id, str | int) else None
        try:
            if is_stateless(message, request.headers):
                return await self._serve_stateless(surface, request)
            return await self._serve_legacy(surface, request)
        except RpcError as error:
            return RpcResponse(error.status, encode(failed(request_id, error.body())))
        except AgentServiceError as error:
            known = rpc_error_of(error)
            if known is None:
                raise
            return RpcResponse(known.status, encode(failed(request_id, known.body())))

    async def _serve_stateless(self, surface: Surface, request: Request) -> OpenResponse:
        message = request.message
        if message.id is msgspec.UNSET or message.method is msgspec.UNSET:
            return RpcResponse(202)  # there are no notifications of clients: closing the stream cancels
        envelope = stateless_envelope(message, request.headers)
        method = self._stateless.get(message.method)
        if method is None:
            raise _no_method(message.method)
        caller = Caller(request.principal, envelope, request.gate, request.key)
        answer = await method(Exchange(surface, caller, message.id), message.params)
        if isinstance(answer, OpenResponse):
            return answer
        return RpcResponse(200, encode(completed(message.id, self._complete_result(answer))))

    def _complete_result(self, result: dict[str, Any]) -> dict[str, Any]:
        meta = {**result.get("_meta", {}), f"{META}serverInfo": self._info}
        return {"resultType": "complete", **result, "_meta": meta}

    async def _serve_legacy(self, surface: Surface, request: Request) -> OpenResponse:
        message = request.message
        if message.method == "initialize" and not isinstance(message.id, msgspec.UnsetType):
            return self._initialize(surface, request, message.id)
        envelope = self._session_of(request)
        caller = Caller(request.principal, envelope, request.gate, request.key)
        if isinstance(message.method, msgspec.UnsetType):
            await self._respond(surface, caller, message)
            return RpcResponse(202)
        if isinstance(message.id, msgspec.UnsetType):
            if message.method == "notifications/cancelled":
                cancelled = _converted(message.params, CancelledParams)
                if cancelled.request_id is not None:
                    await surface.cancel(caller, cancelled.request_id)
            return RpcResponse(202)
        if envelope.session and caller.key is None:
            content = await offload(body_bytes.get(), digest, message.params)
            caller = caller._replace(key=IdempotencyKey(f"mcp {envelope.session}", str(message.id), content.encode()))
        method = self._legacy.get(message.method)
        if method is None:
            raise _no_method(message.method)
        answer = await method(Exchange(surface, caller, message.id), message.params)
        if isinstance(answer, OpenResponse):
            return answer
        for name in ("ttlMs", "cacheScope"):
            answer.pop(name, None)
        return RpcResponse(200, encode(completed(message.id, answer)))

    def _initialize(self, surface: Surface, request: Request, request_id: str | int) -> OpenResponse:
        params = _converted(request.message.params, InitializeParams)
        version = params.protocol_version if params.protocol_version in LEGACY else LEGACY[0]
        result = {
            "protocolVersion": version,
            "capabilities": _capabilities(surface, stateless=False),
            "serverInfo": self._info,
            "instructions": surface.instructions,
        }
        known = [name for name in ("elicitation", "sampling", "roots") if name in params.capabilities]
        session = self._sealer.seal(request.principal, _SESSION, [known, self._sealer.nonce()], SESSION_SECONDS)
        return RpcResponse(200, encode(completed(request_id, result)), {"Mcp-Session-Id": session})

    def _session_of(self, request: Request) -> Envelope:
        """Return what the session of an older client says of it. Raises ``RpcError`` (404) for one that has ended."""
        token = progress_token(request.message.params.get("_meta"))
        sealed = request.headers.get("mcp-session-id")
        if sealed is None:
            return Envelope(False, {}, token)
        try:
            capabilities, _ = self._sealer.unseal(request.principal, _SESSION, sealed)
        except Unsealable:
            raise RpcError(INVALID_PARAMS, "This session has ended: initialize a new one.", status=404) from None
        return Envelope(False, {name: {} for name in capabilities}, token, session=digest(sealed))

    async def _respond(self, surface: Surface, caller: Caller, message: RpcMessage) -> None:
        """Hand the response to an ask to its surface."""
        try:
            key, state = self._sealer.unseal(caller.principal, _ANSWER, str(message.id))
        except Unsealable:
            raise RpcError(INVALID_PARAMS, "No request of this server has that id.", status=400) from None
        await surface.respond(caller, state, key, {"action": "cancel"} if message.error else message.result)

    async def _discover(self, exchange: Exchange, params: dict[str, Any]) -> dict[str, Any]:
        return {
            "supportedVersions": list(SUPPORTED),
            "capabilities": _capabilities(exchange.surface, stateless=True),
            "instructions": exchange.surface.instructions,
            **_cached(),
        }

    async def _ping(self, exchange: Exchange, params: dict[str, Any]) -> dict[str, Any]:
        return {}

    async def _set_level(self, exchange: Exchange, params: dict[str, Any]) -> dict[str, Any]:
        _needs(exchange.surface.capabilities.logs, "logging/setLevel")
        _converted(params, LevelParams)
        return {}

    async def _subscribe(self, exchange: Exchange, params: dict[str, Any]) -> dict[str, Any]:
        _needs(exchange.surface.capabilities.subscribes, "resources/subscribe")
        _converted(params, UriParams)
        return {}

    async def _list_tools(self, exchange: Exchange, params: dict[str, Any]) -> dict[str, Any]:
        _first_page(params)
        return {"tools": await exchange.surface.tools(exchange.caller), **_cached()}

    async def _list_resources(self, exchange: Exchange, params: dict[str, Any]) -> dict[str, Any]:
        _needs(exchange.surface.capabilities.resources, "resources/list")
        _first_page(params)
        return {"resources": await exchange.surface.resources(exchange.caller), **_cached()}

    async def _list_templates(self, exchange: Exchange, params: dict[str, Any]) -> dict[str, Any]:
        _needs(exchange.surface.capabilities.resources, "resources/templates/list")
        _first_page(params)
        return {"resourceTemplates": await exchange.surface.resource_templates(exchange.caller), **_cached()}

    async def _read_resource(self, exchange: Exchange, params: dict[str, Any]) -> dict[str, Any]:
        _needs(exchange.surface.capabilities.resources, "resources/read")
        uri = _converted(params, UriParams).uri
        try:
            contents = await exchange.surface.read_resource(exchange.caller, uri)
        except AgentServiceError as error:
            if error.status != 404:
                raise
            raise RpcError(INVALID_PARAMS, str(error), {"uri": uri}) from error
        return {"contents": contents, **_cached(0)}

    async def _list_prompts(self, exchange: Exchange, params: dict[str, Any]) -> dict[str, Any]:
        _needs(exchange.surface.capabilities.prompts, "prompts/list")
        _first_page(params)
        return {"prompts": await exchange.surface.prompts(exchange.caller), **_cached()}

    async def _get_prompt(self, exchange: Exchange, params: dict[str, Any]) -> dict[str, Any]:
        _needs(exchange.surface.capabilities.prompts, "prompts/get")
        call, bound = await self._named(exchange, "prompts/get", params)
        reply = await exchange.surface.get_prompt(exchange.caller, call)
        return self._finished(exchange, bound, reply)

    async def _complete(self, exchange: Exchange, params: dict[str, Any]) -> dict[str, Any]:
        _needs(exchange.surface.capabilities.completions, "completion/complete")
        wanted = _converted(params, CompleteParams)
        reference = wanted.ref.name or wanted.ref.uri
        values = await exchange.surface.complete(
            exchange.caller, reference, wanted.argument.name, wanted.argument.value
        )
        return {"completion": {"values": values[:100], "total": len(values), "hasMore": len(values) > 100}}

    async def _call_tool(self, exchange: Exchange, params: dict[str, Any]) -> dict[str, Any] | OpenResponse:
        call, bound = await self._named(exchange, "tools/call", params)
        caller = exchange.caller
        reply = await exchange.surface.call_tool(caller, call)
        if isinstance(reply, TaskMade):
            return {**reply.task, "resultType": "task"}
        if not isinstance(reply, Following):
            return self._finished(exchange, bound, reply)

        def seal(value: Any) -> str:
            return self._sealer.seal(caller.principal, _ANSWER, value, STATE_SECONDS)

        def finish(item: Asked | Done) -> dict[str, Any]:
            result = self._finished(exchange, bound, item)
            return self._complete_result(result) if caller.envelope.stateless else result

        chunks = CallStream(caller, exchange.request_id, seal, finish).events(reply.items)
        return self._stream(exchange, chunks, reply.on_disconnect)

    def _stream(
        self,
        exchange: Exchange,
        chunks: AsyncGenerator[bytes, None],
        on_disconnect: Callable[[], Awaitable[None]] | None,
    ) -> RpcStream:
        holder = exchange.caller.principal.holder
        return RpcStream(self._streams, chunks, exchange.request_id, on_disconnect=on_disconnect, holder=holder)

    async def _named(self, exchange: Exchange, method: str, params: dict[str, Any]) -> tuple[Named, str]:
        """Return a call with what its client brings back, and what its state is bound to. Raises ``RpcError``."""
        given, bound = await offload(body_bytes.get(), _call_in, method, params)
        answers = given.input_responses if isinstance(given.input_responses, dict) else {}
        state = None
        if given.request_state is not None:
            try:
                state = self._sealer.unseal(exchange.caller.principal, bound, given.request_state)
            except Unsealable:
                raise RpcError(
                    INVALID_PARAMS, "requestState is not that of this call, or has expired: call again without it."
                ) from None
        return Named(given.name, given.arguments or {}, answers, state), bound

    def _finished(self, exchange: Exchange, bound: str, reply: Done | Asked) -> dict[str, Any]:
        """Return the result of a call, or what it asks. Raises ``RpcError`` for what the client cannot be asked."""
        if isinstance(reply, Done):
            return reply.result
        caller = exchange.caller
        if not caller.envelope.stateless:
            raise RpcError(INVALID_PARAMS, "This needs an answer, which this revision cannot give here.")
        for ask in reply.asks.values():
            if not caller.envelope.may(ask.capability):
                raise missing({ask.capability: {}})
        return {
            "resultType": "input_required",
            "inputRequests": {key: {"method": ask.method, "params": ask.params} for key, ask in reply.asks.items()},
            "requestState": self._sealer.seal(caller.principal, bound, reply.state, STATE_SECONDS),
        }

    async def _get_task(self, exchange: Exchange, params: dict[str, Any]) -> dict[str, Any]:
        return await exchange.surface.task(exchange.caller, _task_of(exchange, params).task_id)

    async def _update_task(self, exchange: Exchange, params: dict[str, Any]) -> dict[str, Any]:
        wanted = _task_of(exchange, params)
        await exchange.surface.update_task(exchange.caller, wanted.task_id, wanted.input_responses)
        return {}

    async def _cancel_task(self, exchange: Exchange, params: dict[str, Any]) -> dict[str, Any]:
        await exchange.surface.cancel_task(exchange.caller, _task_of(exchange, params).task_id)
        return {}

    async def _listen(self, exchange: Exchange, params: dict[str, Any]) -> OpenResponse:
        wanted = _converted(params, ListenParams).notifications
        task_ids = (wanted.task_ids or []) if exchange.surface.capabilities.tasks else []
        if task_ids:
            _needs_tasks(exchange)
        if len(task_ids) > MAX_TASKS:
            raise RpcError(INVALID_PARAMS, f"One stream follows at most {MAX_TASKS} tasks: open several.")
        self._streams.admit(exchange.caller.principal.holder)
        acknowledged = {"taskIds": task_ids} if task_ids else {}
        followed = [exchange.surface.follow_task(exchange.caller, one) for one in task_ids]
        chunks = listening(exchange.request_id, acknowledged, followed)
        return self._stream(exchange, chunks, None)


def missing(capabilities: dict[str, Any]) -> RpcError:
    """Return the error for a client that lacks ``capabilities``."""
    names = ", ".join(capabilities)
    data = {"requiredCapabilities": capabilities}
    return RpcError(MISSING_CAPABILITY, f"This needs a client with the capability {names}.", data)


def _needs_tasks(exchange: Exchange) -> None:
    if not exchange.caller.envelope.extends(TASKS):
        raise missing({"extensions": {TASKS: {}}})


def _task_of(exchange: Exchange, params: dict[str, Any]) -> TaskParams:
    _needs(exchange.surface.capabilities.tasks, "tasks")
    _needs_tasks(exchange)
    wanted: TaskParams = _converted(params, TaskParams)
    return wanted


def _call_in(method: str, params: dict[str, Any]) -> tuple[NameParams, str]:
    """Return what ``params`` call, and its digest. Raises ``RpcError``."""
    given: NameParams = _converted(params, NameParams)
    return given, digest(method, given.name, given.arguments or {})


def _converted(params: dict[str, Any], wanted: Any) -> Any:
    """Return ``params`` as the struct ``wanted``. Raises ``RpcError``."""
    try:
        return msgspec.convert(params, wanted)
    except msgspec.ValidationError as error:
        raise RpcError(INVALID_PARAMS, f"Invalid params: {error}.") from error


def _no_method(method: str) -> RpcError:
    return RpcError(METHOD_NOT_FOUND, f"This server has no method {method[:100]!r} in this revision.")


def _needs(offered: bool, method: str) -> None:
    if not offered:
        raise _no_method(method)


def _first_page(params: dict[str, Any]) -> None:
    """Check that a list is wanted from its start: lists are one page. Raises ``RpcError``."""
    if _converted(params, ListParams).cursor is not None:
        raise RpcError(INVALID_PARAMS, "Invalid cursor: this list has one page.")


def _cached(ttl_ms: int = LIST_TTL_MS) -> dict[str, Any]:
    return {"ttlMs": ttl_ms, "cacheScope": "private"}


def _capabilities(surface: Surface, *, stateless: bool) -> dict[str, Any]:
    has = surface.capabilities
    found: dict[str, Any] = {"tools": {}}
    if has.resources:
        found["resources"] = {"subscribe": True} if has.subscribes and not stateless else {}
    if has.prompts:
        found["prompts"] = {}
    if has.completions:
        found["completions"] = {}
    if has.logs:
        found["logging"] = {}
    if has.tasks and stateless:
        found["extensions"] = {TASKS: {}}
    return found
