"""A tool of an MCP server as a tool of an agent: sends the call again where that is safe, follows its progress."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from app.agents.mcp.accounts import SignInNeeded
from app.agents.mcp.elicitation import ask_to_sign_in
from app.agents.mcp.pins import PinnedTool
from app.agents.mcp.port import Connection, OnProgress
from app.agents.mcp.rounds import CallRounds
from app.agents.mcp.spec import McpServerSpec, shown_name
from app.agents.tools.content import tool_result
from app.agents.tools.port import SAFE_TO_REPEAT, ToolClass, ToolContext, ToolResult
from app.agents.tools.remote import (
    CANCEL_SECONDS,
    FIRST_PAUSE,
    MAX_PAUSE,
    MAX_TIMEOUT,
    LostConnection,
    ServerAway,
    ServerError,
    ToolStopped,
    failed,
)
from app.base.json_schema import JsonSchema
from app.base.schema_visits import CheckTooExpensive
from app.providers.llm.port import ToolSpec

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

IDEMPOTENCY_KEY = "agent-service/idempotency-key"
"""Where in a call's ``_meta`` a server finds the key that is the same for every attempt."""
PROGRESS_SECONDS = 0.05
"""Reports of progress that come faster are dropped."""
MAX_MESSAGE_LENGTH = 500
NOT_SIGNED_IN = "The person did not sign in; the tool was not run."
MAX_SCHEMA_BYTES = 64 * 1024
MAX_DESCRIPTION_LENGTH = 8 * 1024


class Server(Protocol):
    """What a tool needs of its server."""

    name: str
    spec: McpServerSpec

    async def signed_in(self, context: ToolContext) -> None:
        """List the tools with the account of ``context``. Raises as ``connected``."""
        ...

    def connected(
        self, context: ToolContext, tool: PinnedTool | None = None
    ) -> "AbstractAsyncContextManager[Connection]":
        """Enter with a connection for a call of ``tool``. Raises as ``Connection``, and ``ToolStopped``."""
        ...


class ServerTool:
    """What tools that ask ``server`` share: a request is sent again where that is safe, people sign in where needed."""

    def __init__(self, server: Server, spec: ToolSpec, tool_class: ToolClass, seconds: float) -> None:
        self._server = server
        self._seconds = seconds
        self.spec = spec
        self.tool_class = tool_class
        self.timeout: float = MAX_TIMEOUT  # ``call`` has the timeout: it can still cancel a task of the server

    @property
    def too_long(self) -> str:
        """What the model reads of a call that did not end in time."""
        return f"The tool took longer than {self._seconds:g} s."

    def time_limit(self) -> asyncio.Timeout:
        """Return the limit of a whole call; each of its requests has one too."""
        return asyncio.timeout(None if self._server.spec.when_away == "wait" else self._seconds)

    async def attempts(
        self,
        context: ToolContext,
        send: Callable[[Connection], Awaitable[ToolResult]],
        pinned: PinnedTool | None = None,
        rounds: CallRounds | None = None,
    ) -> ToolResult:
        """Return what ``send`` does with a connection; errors of the server are results for the model.

        ``pinned``: the tool that is called; ``rounds``: its call, which may have become a task.
        """
        spec, attempt, pause, asked = self._server.spec, 0, FIRST_PAUSE, 0
        while True:
            attempt += 1
            try:
                tool = None if rounds is not None and rounds.is_task else pinned
                async with asyncio.timeout(self._seconds), self._server.connected(context, tool) as connection:
                    return await send(connection)
            except SignInNeeded as error:
                if not ask_to_sign_in(error.url, self._server.name, self.spec.name, asked, context):
                    return failed(NOT_SIGNED_IN)
                attempt, asked = 0, asked + 1
                continue
            except ToolStopped as error:
                return failed(f"The tool {self.spec.name!r} was not run: {error}.")
            except ServerError as error:
                return failed(f"The server {self._server.name} answered with an error: {error}")
            except (LostConnection, ServerAway) as error:
                reason, is_lost = str(error), isinstance(error, LostConnection)
            is_task = rounds is not None and rounds.is_task
            if is_lost and self.tool_class not in SAFE_TO_REPEAT and not is_task:
                return failed(f"The connection was lost and whether the call took effect is not known: {reason}")
            if attempt >= spec.attempts and spec.when_away == "tell" and not is_task:
                return failed(f"The server {self._server.name} cannot be reached: {reason}")
            await asyncio.sleep(pause)
            pause = min(2 * pause, MAX_PAUSE)

    async def lookup(self, key: str) -> ToolResult | None:
        """Raise ``LookupError``: the protocol has no look-up of calls."""
        raise LookupError("tools of MCP servers have no lookup")


class McpTool(ServerTool):
    """The tool ``pinned`` of ``server``, as ``described`` by it. Raises ``ValueError`` if agents cannot use it."""

    def __init__(self, server: Server, described: Mapping[str, Any], pinned: PinnedTool) -> None:
        self.pinned = pinned
        name = pinned.name
        description = str(described.get("description") or described.get("title") or "")
        parameters = dict(described["inputSchema"])
        if len(description) > MAX_DESCRIPTION_LENGTH:
            raise ValueError(f"its description has {len(description)} characters, more than {MAX_DESCRIPTION_LENGTH}")
        if len(str(parameters)) > MAX_SCHEMA_BYTES:
            raise ValueError(f"its schema is larger than {MAX_SCHEMA_BYTES} bytes")
        JsonSchema(parameters)
        self._output = JsonSchema(schema) if (schema := described.get("outputSchema")) else None
        spec = ToolSpec(name=shown_name(server.name, name), description=description, parameters=parameters)
        super().__init__(server, spec, server.spec.class_of(name), server.spec.timeout_of(name))

    async def call(self, args: dict[str, Any], context: ToolContext) -> ToolResult:
        """Call the tool; errors of the server, and its being unreachable, are results for the model."""
        rounds = CallRounds(self._server.name, self.pinned.name, self.spec.name, context)
        meta = {IDEMPOTENCY_KEY: context.idempotency_key}

        async def send(connection: Connection) -> ToolResult:
            return self._result(await rounds.run(connection, args, meta, self._progress_of(context)))

        try:
            async with self.time_limit():
                return await self.attempts(context, send, self.pinned, rounds)
        except TimeoutError:
            await self._cancel_task(rounds, context)
            return failed(self.too_long)
        except asyncio.CancelledError:
            if context.cancelled():  # not if another process continues the run and the task
                await self._cancel_task(rounds, context)
            raise

    async def _cancel_task(self, rounds: CallRounds, context: ToolContext) -> None:
        if not rounds.is_task:
            return
        with contextlib.suppress(ServerAway, LostConnection, ServerError, TimeoutError):
            async with asyncio.timeout(CANCEL_SECONDS), self._server.connected(context) as connection:
                await rounds.cancel(connection)

    def _result(self, raw: Mapping[str, Any]) -> ToolResult:
        result = tool_result(raw)
        if self._output is None or result.status == "error":
            return result
        if "structuredContent" not in raw:
            return failed("The server's result lacks the structured content that its schema promises.")
        try:
            problems = self._output.problems(raw["structuredContent"])
        except CheckTooExpensive as error:
            return failed(f"The server's result was not checked by its own schema: {error}.")
        for problem in problems:
            return failed(f"The server's result does not match its own schema: {problem.message[:300]}")
        return result

    def _progress_of(self, context: ToolContext) -> OnProgress:
        """Return a callback that emits progress as ``custom`` events, not more often than people can read."""
        last = 0.0

        async def emit(progress: float, total: float | None, message: str | None) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last < PROGRESS_SECONDS and progress != total:
                return
            last = now
            value = {"type": "mcp_progress", "tool": self.spec.name, "call_id": context.call_id, "progress": progress}
            if total is not None:
                value["total"] = total
            if message:
                value["message"] = message[:MAX_MESSAGE_LENGTH]
            context.emit(value)

        return emit


class SignInTool:
    """Lets a person sign in to ``server``, in the place of tools that are not known before that."""

    tool_class = ToolClass.READ_ONLY

    def __init__(self, server: "Server") -> None:
        self._server = server
        self.timeout = server.spec.timeout
        self.spec = ToolSpec(
            name=shown_name(server.name, "sign_in"),
            description=f"Sign in to {server.name}, whose tools can be used afterwards.",
            parameters={"type": "object", "properties": {}},
        )

    async def call(self, args: dict[str, Any], context: ToolContext) -> ToolResult:
        """Ask a person to sign in, unless they have."""
        asked = 0
        while True:
            try:
                await self._server.signed_in(context)
                return ToolResult(content=f"Signed in to {self._server.name}. Its tools can be used now.")
            except SignInNeeded as error:
                if not ask_to_sign_in(error.url, self._server.name, self.spec.name, asked, context):
                    return failed(NOT_SIGNED_IN)
                asked += 1
            except (ServerAway, LostConnection, ServerError) as error:
                return failed(f"The server {self._server.name} cannot be used: {error}")

    async def lookup(self, key: str) -> ToolResult | None:
        """Raise ``LookupError``: a sign-in can be repeated."""
        raise LookupError("a sign-in has no lookup")


async def no_progress(_progress: float, _total: float | None, _message: str | None) -> None:
    """Ignore a report of progress."""


def no_answer(_question: Mapping[str, Any]) -> Mapping[str, Any]:
    """Cancel a question, for calls outside of runs."""
    return {"action": "cancel"}
