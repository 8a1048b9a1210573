"""One connection to an MCP server, held by a task of its own, and its results.

Apart from sign-ins the only module that speaks to the SDK's client. It reads results as plain JSON: the SDK's own check
of structured results uses regular expressions of the server that may take exponential time.
"""

import asyncio
import contextlib
import importlib.metadata
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from typing import Any

import httpx2
import mcp_types as types
import structlog
from mcp.client import advertise
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from pydantic import TypeAdapter, ValidationError

from app.agents.mcp.accounts import SignInNeeded
from app.agents.mcp.http_transport import LOST, MARK, MAX_MESSAGE_BYTES, REFUSED, SIGN_IN, UNSENT, CheckedTransport
from app.agents.mcp.port import OnProgress, OnQuestion
from app.agents.mcp.sign_in import AccountTransport, SignIn
from app.agents.mcp.spec import McpServerSpec, ResolvedServer
from app.agents.mcp.stdio_transport import ServerProcess
from app.agents.tools.port import NeedsAnswer
from app.agents.tools.remote import LostConnection, ServerAway, ServerError
from app.base.byte_sizes import parse_size
from app.base.tasks import Tasks
from app.infra.egress.addresses import AddressAllowlist

log = structlog.get_logger(__name__)

OPEN_SECONDS = 60.0
"""Programs like uvx and npx may fetch the server first."""
LIST_SECONDS = 20.0
CLOSE_SECONDS = 8.0
ASKED_SECONDS = 5.0
MAX_PAGES = 50
MAX_TOOLS = 1_000
TASKS = "io.modelcontextprotocol/tasks"
"""Identifier of the extension for results that take longer than a request."""

for _name in ("mcp", "client", "httpx2", "httpcore2"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)  # the SDK's lines hold addresses, arguments and results

_RAW: TypeAdapter[Any] = TypeAdapter(dict[str, Any])
_SESSION_ENDED = "Session terminated"  # the SDK's words for a 404 to a request of a session (2025-11-25)
_CLOSED = "Connection closed"
_LOST = (_CLOSED, "SSE stream")  # the SDK's words, as servers use the same code for errors of their own


class _Asking:
    """A call in progress that may be asked questions; ``unanswered`` ends it."""

    def __init__(self, on_question: OnQuestion) -> None:
        self.on_question = on_question
        self.scope = asyncio.timeout(None)
        self.unanswered: NeedsAnswer | None = None

    def stop(self, unanswered: NeedsAnswer) -> None:
        """End the call in its own task."""
        self.unanswered = unanswered
        self.scope.reschedule(asyncio.get_running_loop().time())


_current: ContextVar[_Asking | None] = ContextVar("mcp_call", default=None)


class _TaskRequest(types.Request[dict[str, Any], str]):
    """A request of the extension for tasks."""

    name_param = "taskId"


class McpConnection:
    """A connection to the server ``name``.

    All methods raise ``ServerAway`` if a request did not reach the server, ``LostConnection`` if its outcome is not
    known, ``SignInNeeded`` if a person must sign in first, and ``ServerError`` for the server's own errors.
    """

    def __init__(
        self,
        name: str,
        spec: McpServerSpec,
        resolved: ResolvedServer,
        allowed: AddressAllowlist,
        sign_in: SignIn | None = None,
    ) -> None:
        """``sign_in``: of the account whose requests it sends."""
        self.name = name
        self._spec = spec
        self._resolved = resolved
        self._allowed = allowed
        self._sign_in = sign_in
        self._asking: list[_Asking] = []
        self._tasks = Tasks(f"mcp-{name}")
        self._closing = asyncio.Event()
        self._client: Client | None = None
        self._process: ServerProcess | None = None
        self._account: AccountTransport | None = None
        self.ended = False
        """Whether the connection cannot be used any more."""

    async def open(self) -> None:
        """Connect and agree on a revision."""
        ready: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
        self._tasks.start(self._keep(ready), name="connection")
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                self._client = await ready
        except TimeoutError:
            await self._abort()
            raise ServerAway(f"it did not answer within {OPEN_SECONDS:g} s") from None
        except BaseException:
            await self._abort()
            raise

    async def aclose(self) -> None:
        """Close the connection; a child process is ended."""
        self.ended = True
        self._closing.set()
        await self._tasks.wait(CLOSE_SECONDS)
        await self._tasks.aclose()

    async def _abort(self) -> None:
        """End an attempt to connect at once: a cancelled run does not wait for it."""
        self.ended = True
        await self._tasks.aclose()

    @property
    def revision(self) -> str:
        """The protocol revision that was agreed on."""
        return "" if self._client is None else self._client.protocol_version or ""

    def about(self) -> dict[str, Any]:
        """Return the server's description of itself: name, version, capabilities, instructions."""
        assert self._client is not None
        session = self._client.session
        info, capabilities = session.server_info, session.server_capabilities
        return {
            "revision": self.revision,
            "server": None if info is None else _plain(info),
            "capabilities": None if capabilities is None else _plain(capabilities),
            "instructions": session.instructions,
        }

    async def list_tools(self) -> list[dict[str, Any]]:
        """Return the server's tools as it describes them, at most ``MAX_TOOLS``."""
        found: list[dict[str, Any]] = []
        cursor: str | None = None
        async with self._requesting() as client, asyncio.timeout(LIST_SECONDS):
            for _ in range(MAX_PAGES):
                page = await client.session.list_tools(params=types.PaginatedRequestParams(cursor=cursor))
                found += [_plain(tool) for tool in page.tools]
                cursor = page.next_cursor
                if cursor is None:
                    return found
                if len(found) > MAX_TOOLS:
                    break
        raise ServerError(f"its list of tools has more than {MAX_TOOLS} tools or {MAX_PAGES} pages")

    async def call_tool(
        self,
        name: str,
        arguments: Mapping[str, Any],
        meta: Mapping[str, Any],
        on_progress: OnProgress,
        on_question: OnQuestion,
        continuation: Mapping[str, Any] = {},
    ) -> dict[str, Any]:
        """Call a tool; return the result as the server sent it, of any ``resultType``, as ``Connection.call_tool``."""
        params = {"name": name, "arguments": dict(arguments), "_meta": dict(meta), **continuation}
        request = types.CallToolRequest(params=types.CallToolRequestParams.model_validate(params))
        asking = _Asking(on_question)
        self._asking.append(asking)
        token = _current.set(asking)
        try:
            async with asking.scope:
                return await self._send(request, on_progress)
        except TimeoutError:
            if asking.unanswered is not None:
                raise asking.unanswered from None
            raise
        finally:
            _current.reset(token)
            self._asking.remove(asking)
        raise AssertionError  # unreachable: the block returns or raises

    async def _elicited(self, context: Any, params: Any) -> types.ElicitResult | types.ErrorData:
        """Answer a question that a server asks during a call (2025-11-25); without an answer the call is cancelled."""
        asking = _current.get()
        if asking not in self._asking:
            asking = self._asking[0] if len(self._asking) == 1 else None
        if asking is None:
            return types.ErrorData(code=types.INVALID_REQUEST, message="The question belongs to no call in progress.")
        try:
            return types.ElicitResult.model_validate(
                asking.on_question({"method": "elicitation/create", "params": _plain(params)})
            )
        except NeedsAnswer as error:
            asking.stop(error)
            await asyncio.sleep(ASKED_SECONDS)  # the cancellation comes first, and ends the question at the server
            message = "A person is asked; the call is made again with the answer."
        except ServerError as error:
            message = str(error)
        return types.ErrorData(code=types.INVALID_REQUEST, message=message)

    async def list_resources(self, limit: int) -> list[dict[str, Any]]:
        """Return the server's resources, then the templates of their URIs; at most ``limit``."""
        found = await self._pages(types.ListResourcesRequest, "resources", limit)
        return found + await self._pages(types.ListResourceTemplatesRequest, "resourceTemplates", limit - len(found))

    async def _pages(self, kind: Any, name: str, limit: int) -> list[dict[str, Any]]:
        """Return a list of the server; empty if it has no such list."""
        found: list[dict[str, Any]] = []
        cursor: str | None = None
        for _ in range(MAX_PAGES):
            try:
                raw = await self._send(kind(params=types.PaginatedRequestParams(cursor=cursor)))
            except ServerError as error:
                if error.code == types.METHOD_NOT_FOUND:
                    break
                raise
            page, cursor = raw.get(name), raw.get("nextCursor")
            found += [one for one in page if isinstance(one, dict)] if isinstance(page, list) else []
            if len(found) >= limit or not isinstance(cursor, str):
                break
        return found[:limit]

    async def read_resource(self, uri: str) -> dict[str, Any]:
        """Return the result of reading a resource as the server sent it, of any ``resultType``."""
        return await self._send(types.ReadResourceRequest(params=types.ReadResourceRequestParams(uri=uri)))

    async def task(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Send a request about a task (``tasks/get``, ``tasks/update``, ``tasks/cancel``); return its result."""
        return await self._send(_TaskRequest(method=method, params=dict(params)))

    async def _send(self, request: Any, on_progress: Any = None) -> dict[str, Any]:
        async with self._requesting() as client:
            raw: dict[str, Any] = await client.session.send_request(request, _RAW, progress_callback=on_progress)
            return raw
        raise AssertionError  # unreachable: the block returns or raises

    @contextlib.asynccontextmanager
    async def _requesting(self) -> AsyncIterator[Client]:
        if self._client is None or self.ended:
            raise ServerAway("the connection is closed")
        try:
            yield self._client
        except MCPError as error:
            raise self._classified(error) from None
        except ValidationError as error:
            raise ServerError(f"its answer does not follow the protocol: {_first_problem(error)}") from None
        except TimeoutError:
            raise LostConnection("it did not answer in time") from None

    def _classified(self, error: MCPError) -> Exception:
        code, message = error.error.code, error.error.message
        ours = error.error.data == MARK
        if ours and code == UNSENT:
            return ServerAway(message)
        if ours and code == SIGN_IN:
            return SignInNeeded(message)
        if ours and code == REFUSED:
            return ServerError(message)
        self.ended = self.ended or message in {_SESSION_ENDED, _CLOSED}
        if message == _SESSION_ENDED:
            return ServerAway("its session has ended")
        if ours or LOST in message or (code == types.CONNECTION_CLOSED and message.startswith(_LOST)):
            how = "" if self._process is None else self._process.how_it_ended()
            return LostConnection(how or message)
        return ServerError(message, code, error.error.data)

    async def _keep(self, ready: "asyncio.Future[Client]") -> None:
        """Hold the connection open until ``aclose``: the SDK's contexts end in the task that began them."""
        try:
            async with contextlib.AsyncExitStack() as stack:
                client = await stack.enter_async_context(self._client_of(await self._transport(stack)))
                ready.set_result(client)
                await self._closing.wait()
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001  the edge to the SDK, which raises groups of any errors
            log.info("mcp_connection_ended", server=self.name, error=type(_root(error)).__name__)
            if not ready.done():
                ready.set_exception(self._as_away(_root(error)))
        finally:
            self.ended = True
            if not ready.done():
                ready.set_exception(ServerAway("the connection was closed"))

    def _as_away(self, error: BaseException) -> Exception:
        if self._process is not None and (how := self._process.how_it_ended()):
            return ServerAway(how)
        if self._account is not None and (refusal := self._account.refusal) is not None:
            return refusal if isinstance(refusal, SignInNeeded) else ServerError(str(refusal))
        if isinstance(error, MCPError):
            found = self._classified(error)
            return ServerAway(str(found)) if isinstance(found, LostConnection) else found
        return ServerAway(str(error) or type(error).__name__)

    def _on_end(self) -> None:
        self.ended = True

    async def _transport(self, stack: contextlib.AsyncExitStack) -> AbstractAsyncContextManager[Any]:
        spec, resolved = self._spec, self._resolved
        if spec.command:
            memory = parse_size(spec.memory) if spec.memory else 0
            command = [resolved.program, *spec.command[1:]]
            self._process = ServerProcess(self.name, command, resolved.env, resolved.folder, memory, self._on_end)
            return self._process.streams()
        if self._sign_in is not None:
            self._account = AccountTransport(spec.url, self._allowed, self._sign_in)
        checked = self._account or CheckedTransport(spec.url, self._allowed)
        http = httpx2.AsyncClient(transport=checked, headers=resolved.headers, timeout=None, trust_env=False)
        await stack.enter_async_context(http)
        return streamable_http_client(spec.url, http_client=http, max_sse_event_size=MAX_MESSAGE_BYTES)

    def _client_of(self, transport: AbstractAsyncContextManager[Any]) -> Client:
        return Client(
            transport,
            mode="legacy" if self._spec.revision == "2025-11-25" else self._spec.revision,
            client_info=types.Implementation(name="agent-service", version=importlib.metadata.version("agent-service")),
            elicitation_callback=self._elicited,
            extensions=[advertise(TASKS)],
            cache=None,
        )


def _plain(model: Any) -> dict[str, Any]:
    found: dict[str, Any] = model.model_dump(by_alias=True, mode="json", exclude_none=True)
    return found


def _root(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _first_problem(error: ValidationError) -> str:
    first = error.errors(include_input=False, include_url=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"[:300]
