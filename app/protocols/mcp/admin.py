"""What ``/mcp/admin`` serves: the server's own operations as tools, for the coding assistant of its operator."""

import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from app.base.errors import AgentServiceError, Forbidden, Unavailable
from app.engine.structs import CommandBody, RunCreate
from app.features.runs.structs import RunSearch
from app.features.threads.structs import ThreadSearch
from app.protocols.gateway import OBSERVABLE, ProtocolGateway
from app.protocols.mcp.agents import AgentTools, CalledRun
from app.protocols.mcp.documentation import Documentation
from app.protocols.mcp.errors import INVALID_PARAMS, RpcError
from app.protocols.mcp.results import error_result
from app.protocols.mcp.surface import Caller, Capabilities, Done, Following, Named, Reply, ToolsOnly
from app.security.access.structs import WRITE

INSTRUCTIONS = (
    "Operations of a server of AI agents. list_agents, then start_run and follow_run; read_run shows what happened. "
    "A run that waits for a person is in search_threads with the status interrupted; answer_question resumes it."
)

MAX_EVENTS = 500
MAX_TEXT = 200_000
"""Events, and characters of them, that one answer has."""

encode = msgspec.json.Encoder().encode


class SearchThreads(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Which threads to return, the newest first."""

    status: str | None = None
    metadata: dict[str, Any] | None = None
    limit: int = 10


class SearchRuns(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Which runs to return, the newest first. ``before``: continue a search after its last page."""

    status: str | None = None
    agent: str | None = None
    thread_id: UUID | None = None
    before: UUID | None = None
    limit: int = 10


class StartRun(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The run to start."""

    agent: str
    input: str | dict[str, Any]
    thread_id: UUID | None = None


class OneThread(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A thread."""

    thread_id: UUID


class OneRun(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A run of a thread."""

    thread_id: UUID
    run_id: UUID


class RunEvents(OneRun, kw_only=True, forbid_unknown_fields=True):
    """Events of a run, from number ``first`` on."""

    first: int = 0


class Answer(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Answers to open questions of a thread, by their ids."""

    thread_id: UUID
    answers: dict[str, Any]


class Nothing(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """No arguments."""


class Operation(NamedTuple):
    """A tool: what it does, the struct of its arguments, whether it only reads, and how it is done."""

    description: str
    arguments: type[msgspec.Struct]
    reads: bool
    run: Callable[[Caller, Any], Awaitable[Any]]


class AdminSurface(ToolsOnly):
    """Operations of the server. Implements ``Surface``."""

    instructions = INSTRUCTIONS
    capabilities = Capabilities(resources=True)

    def __init__(self, gateway: ProtocolGateway, tools: AgentTools, documentation: Documentation) -> None:
        self._gateway = gateway
        self._tools = tools
        self._documentation = documentation
        self._operations = {
            "list_agents": Operation("List the agents.", Nothing, True, self._list_agents),
            "search_threads": Operation(
                "Find threads by status (idle, busy, interrupted, error) and metadata.",
                SearchThreads,
                True,
                self._search_threads,
            ),
            "search_runs": Operation(
                "Find runs by status (pending, running, success, error, timeout, interrupted), agent and thread.",
                SearchRuns,
                True,
                self._search_runs,
            ),
            "read_thread": Operation(
                "Read a thread: messages, values, open questions.", OneThread, True, self._read_thread
            ),
            "read_run": Operation("Read the events of a run, its trace, in order.", RunEvents, True, self._read_run),
            "start_run": Operation(
                "Start a run of an agent; returns at once. Follow it by follow_run.", StartRun, False, self._start_run
            ),
            "follow_run": Operation("Wait for the end of a run; returns its answer.", OneRun, True, self._follow_run),
            "cancel_run": Operation("Cancel a run; what it has committed stays.", OneRun, False, self._cancel_run),
            "answer_question": Operation(
                "Answer open questions of a thread, which resumes its run. An approval takes "
                '{"decisions": [{"type": "approve"}]} or {"decisions": [{"type": "reject", "message": "why"}]}.',
                Answer,
                False,
                self._answer_question,
            ),
        }

    async def tools(self, caller: Caller) -> list[dict[str, Any]]:
        """Return the operations."""
        return [
            {
                "name": name,
                "description": one.description,
                "inputSchema": _schema_of(one.arguments),
                "annotations": {"readOnlyHint": one.reads, "destructiveHint": False, "openWorldHint": not one.reads},
            }
            for name, one in self._operations.items()
        ]

    async def call_tool(self, caller: Caller, call: Named) -> Reply:
        """Perform an operation; what its arguments or the state forbid is an error that the client's model reads."""
        operation = self._operations.get(call.name)
        if operation is None:
            raise RpcError(INVALID_PARAMS, f"Unknown tool: {call.name[:100]!r}; tools/list names them.")
        try:
            arguments = msgspec.convert(call.arguments, operation.arguments)
        except msgspec.ValidationError as error:
            return Done(error_result(f"Invalid arguments: {error}.", {}))
        try:
            found = await operation.run(caller, arguments)
        except AgentServiceError as error:
            if isinstance(error, Forbidden | Unavailable) or error.status in {401, 429}:
                raise
            return Done(error_result(str(error), {}))
        if isinstance(found, Done | Following):
            return found
        text = encode(found).decode()
        if len(text) > MAX_TEXT:
            text = f"{text[:MAX_TEXT]} … cut: {len(text)} characters"
        return Done({"content": [{"type": "text", "text": text}], "isError": False})

    async def _list_agents(self, caller: Caller, _: Nothing) -> Any:
        return [{"name": agent.name, "description": agent.description} for agent in self._gateway.assistants.agents()]

    async def _search_threads(self, caller: Caller, wanted: SearchThreads) -> Any:
        search = msgspec.convert(
            {
                "status": wanted.status,
                "metadata": wanted.metadata,
                "limit": wanted.limit,
                "select": ["thread_id", "status", "metadata", "created_at", "updated_at", "interrupts"],
            },
            ThreadSearch,
        )
        threads, total = await self._gateway.threads.search(caller.principal, search)
        return {"threads": threads, "total": total}

    async def _search_runs(self, caller: Caller, wanted: SearchRuns) -> Any:
        search = msgspec.convert(
            {
                "status": wanted.status,
                "assistant_id": wanted.agent,
                "thread_id": wanted.thread_id,
                "before": wanted.before,
                "limit": wanted.limit,
            },
            RunSearch,
        )
        runs, before = await self._gateway.runs.search(caller.principal, search)
        return {"runs": runs, "before": before}

    async def _read_thread(self, caller: Caller, wanted: OneThread) -> Any:
        return await self._gateway.threads.get(caller.principal, wanted.thread_id)

    async def _read_run(self, caller: Caller, wanted: RunEvents) -> Any:
        runs = self._gateway.runs
        await runs.check_log(caller.principal, wanted.thread_id, wanted.run_id)
        run = await runs.get(caller.principal, wanted.thread_id, wanted.run_id)
        found: list[Any] = []
        number = 0
        async with contextlib.aclosing(runs.events(caller.principal, wanted.run_id)) as batches:
            async for events in batches:
                for event in events:
                    if number >= wanted.first and len(found) < MAX_EVENTS:
                        found.append(event)
                    number += 1
                if len(found) >= MAX_EVENTS:
                    break
        return {"status": run.status, "first": wanted.first, "events": found, "more": len(found) >= MAX_EVENTS}

    async def _start_run(self, caller: Caller, wanted: StartRun) -> Any:
        await caller.gate.start_run()
        given = wanted.input
        body = RunCreate(
            assistant_id=wanted.agent,
            input={"messages": [{"type": "human", "content": given}]} if isinstance(given, str) else given,
            stream_mode=OBSERVABLE,
            on_completion="keep",
            metadata={"protocol": "mcp.admin"},
        )
        accepted = await self._gateway.runs.create(caller.principal, wanted.thread_id, body, caller.key)
        return {"thread_id": accepted.thread_id, "run_id": accepted.run_id}

    async def _follow_run(self, caller: Caller, wanted: OneRun) -> Following:
        await self._gateway.runs.check_log(caller.principal, wanted.thread_id, wanted.run_id)
        self._gateway.streams.admit(caller.principal.holder)
        return self._tools.watching(caller, CalledRun(wanted.thread_id, wanted.run_id, structured=False))

    async def _cancel_run(self, caller: Caller, wanted: OneRun) -> Any:
        caller.gate.need(WRITE)
        await self._gateway.runs.cancel(
            caller.principal, wanted.thread_id, wanted.run_id, action="interrupt", wait=False
        )
        return {"cancelled": wanted.run_id}

    async def _answer_question(self, caller: Caller, wanted: Answer) -> Any:
        await caller.gate.start_run()
        runs, _ = await self._gateway.runs.list(caller.principal, wanted.thread_id, status=None, limit=1, offset=0)
        if not runs:
            return Done(error_result("This thread has no run, so nothing waits for an answer.", {}))
        body = RunCreate(
            assistant_id=str(runs[0].assistant_id),
            command=CommandBody(resume=wanted.answers),
            stream_mode=OBSERVABLE,
            metadata={"protocol": "mcp.admin"},
        )
        accepted = await self._gateway.runs.create(caller.principal, wanted.thread_id, body, caller.key)
        return {"thread_id": accepted.thread_id, "run_id": accepted.run_id}

    async def resources(self, caller: Caller) -> list[dict[str, Any]]:
        """Return the pages of the documentation."""
        return await self._documentation.listed()

    async def read_resource(self, caller: Caller, uri: str) -> list[dict[str, Any]]:
        """Return a page of the documentation."""
        return await self._documentation.read(uri)


def _schema_of(arguments: type[msgspec.Struct]) -> dict[str, Any]:
    """Return the JSON Schema of a struct, without a reference at its root."""
    (schema,), definitions = msgspec.json.schema_components([arguments], ref_template="#/$defs/{name}")
    return {name: value for name, value in definitions[schema["$ref"].rpartition("/")[2]].items() if name != "title"}
