"""One run on every wire: a cron starts it, each client does its part, and a killed worker changes nothing."""

import asyncio
import contextlib
import json
import os
import re
import signal
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import httpx
import openai
import pytest
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient

from tests.journeys.conftest import Served, contents, serving
from tests.outages import children_of
from tests.protocols.ag_ui_streams import Events, checked, events_in, run_input, text_of
from tests.waiting import eventually

AGENTS = Path(__file__).parent / "agents" / "agents.toml"
SETTINGS = {"AGENT_CONFIG": str(AGENTS), "AGENT_LEASE_SECONDS": "3", "AGENT_MCP_ADMIN": "on"}
EVENT_ID = re.compile(r"^id: (\S+)$", re.MULTILINE)
MCP = "2026-07-28"

PATIENCE = 60.0
"""Seconds to wait for the scheduler, and for the lease of a killed worker."""


class Watch:
    """A client of CopilotKit's wire that keeps a thread open, and comes back after the last event that it has."""

    def __init__(self, server: Served, thread: str) -> None:
        self._url = f"http://127.0.0.1:{server.port}/copilotkit/agent/payer/connect"
        self.thread = thread
        self._text = ""

    @property
    def stream(self) -> str:
        """The complete events, without heartbeats."""
        blocks = self._text.split("\n\n")[:-1]
        return "".join(f"{block}\n\n" for block in blocks if not block.startswith(":"))

    @property
    def ids(self) -> list[str]:
        return EVENT_ID.findall(self.stream)

    @property
    def events(self) -> Events:
        return events_in(self.stream)

    def outcomes(self) -> list[str]:
        """How the runs have ended, so far."""
        return [event["outcome"]["type"] for event in self.events if event["type"] == "RUN_FINISHED"]

    @contextlib.asynccontextmanager
    async def reading(self) -> AsyncIterator[asyncio.Task[None]]:
        """Read the thread's events, until the connection is lost; the task has ended then."""
        self._text = self.stream
        body = run_input(self.thread, forwardedProps={"follow": True})
        if self.ids:
            body["lastSeenEventId"] = self.ids[-1]
        task = asyncio.create_task(self._read(body))
        try:
            yield task
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _read(self, body: dict[str, Any]) -> None:
        with contextlib.suppress(httpx.RemoteProtocolError, httpx.ReadError):  # the worker is killed
            async with httpx.AsyncClient(timeout=60) as http, http.stream("POST", self._url, json=body) as answer:
                async for text in answer.aiter_text():
                    self._text += text


class Question(NamedTuple):
    """An approval that a thread waits for: its id, the run that asked, and the run's thread."""

    id: str
    run: str
    thread: str

    @property
    def response(self) -> str:
        """The run's id as a response."""
        return f"resp_{uuid.UUID(self.run).hex}"

    @property
    def approval(self) -> Any:
        """An approval as an input item of Responses."""
        return {"type": "mcp_approval_response", "approval_request_id": f"mcpr_{self.id}", "approve": True}


async def make_due(server: Served, cron_id: str) -> None:
    connection = await asyncpg.connect(server.environment["DATABASE_URL"])
    try:
        statement = "update crons set next_run_date = date_trunc('minute', now()) where cron_id = $1"
        await connection.execute(statement, uuid.UUID(cron_id))
    finally:
        await connection.close()


async def mcp(http: httpx.AsyncClient, path: str, method: str, named: str, **params: Any) -> Any:
    meta = {"io.modelcontextprotocol/protocolVersion": MCP, "io.modelcontextprotocol/clientCapabilities": {}}
    headers = {"MCP-Protocol-Version": MCP, "Mcp-Method": method, "Mcp-Name": named}
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": meta}}
    return (await http.post(path, json=body, headers=headers)).json()["result"]


async def a2a(http: httpx.AsyncClient, method: str, **params: Any) -> Any:
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    return (await http.post("/a2a/payer", json=body, headers={"A2A-Version": "1.0"})).json()


async def approve(server: Served, asked: Question) -> str:
    """Approve with OpenAI's client; return the id of the response that continues."""
    base_url = f"http://127.0.0.1:{server.port}/v1"
    async with openai.AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0) as client:
        shown = await client.responses.retrieve(asked.response)
        assert shown.output[-1].id == asked.approval["approval_request_id"]
        answered = await client.responses.create(
            model="payer", input=[asked.approval], previous_response_id=asked.response, background=True
        )
        return answered.id


async def check_that_it_is_answered(http: httpx.AsyncClient, asked: Question) -> None:
    """Approve again on every wire: each refuses it in its own shape."""
    answer = {"model": "payer", "input": [asked.approval], "previous_response_id": asked.response}
    refused = await http.post("/v1/responses", json=answer)
    assert (refused.status_code, refused.json()["error"]["type"]) == (400, "invalid_request_error")

    resume = [{"interruptId": asked.id, "status": "resolved", "payload": {"approved": True}}]
    refused = await http.post("/ag-ui/payer", json=run_input(asked.thread, resume=resume))
    assert [(event["type"], event["code"]) for event in checked(refused.text)] == [("RUN_ERROR", "interrupt_closed")]

    part = {"type": "tool-pay", "state": "approval-responded", "approval": {"id": asked.id, "approved": True}}
    chat = {"id": asked.thread, "messages": [{"id": "m", "role": "assistant", "parts": [part]}]}
    refused = await http.post("/ai-sdk/payer/chat", json=chat)
    assert (refused.status_code, refused.json()["title"]) == (409, "Conflict")

    message = {"messageId": uuid.uuid4().hex, "role": "ROLE_USER", "parts": [{"text": "yes"}], "taskId": asked.run}
    answer = await a2a(http, "SendMessage", message=message)
    assert answer["error"]["data"][-1]["reason"] == "UNSUPPORTED_OPERATION"

    approved = {"decisions": [{"type": "approve"}]}
    call = {"name": "answer_question", "arguments": {"thread_id": asked.thread, "answers": {asked.id: approved}}}
    assert (await mcp(http, "/mcp/admin", "tools/call", "answer_question", **call))["isError"]

    respond = {"id": 1, "method": "input.respond", "params": {"interrupt_id": asked.id, "response": True}}
    answer = (await http.post(f"/api/v1/threads/{asked.thread}/commands", json=respond)).json()
    assert (answer["type"], answer["error"]) == ("error", "no_such_interrupt")

    run = {"assistant_id": "payer", "command": {"resume": {asked.id: approved}}}
    assert (await http.post(f"/api/v1/threads/{asked.thread}/runs", json=run)).status_code == 409


async def check_what_was_watched(http: httpx.AsyncClient, watch: Watch, runs: list[str]) -> None:
    """No gap, no repetition, and the same events for a client that comes after all of it."""
    assert watch.outcomes() == ["success", "interrupt", "success"]  # the first: nothing had happened yet
    ids = [one for one in watch.ids if not one.startswith(watch.thread)]
    for run in runs:
        numbers = [int(one.removeprefix(f"{run}:")) for one in ids if one.startswith(run)]
        assert numbers == sorted(set(numbers))
    assert list(dict.fromkeys(one.split(":")[0] for one in ids)) == runs
    checked(watch.stream)
    body = run_input(watch.thread, lastSeenEventId=ids[0])
    replayed = await http.post("/copilotkit/agent/payer/connect", json=body)
    assert EVENT_ID.findall(replayed.text) == ids[1:]
    assert events_in(replayed.text) == watch.events[-len(ids) + 1 :]


async def check_every_wire(http: httpx.AsyncClient, asked: Question, continued: str, said: list[str]) -> None:
    """Each protocol tells the same of the two runs, under the same ids."""
    task = (await a2a(http, "GetTask", id=asked.run))["result"]
    assert (task["id"], task["contextId"]) == (asked.run, asked.thread)
    assert task["status"]["state"] == "TASK_STATE_COMPLETED"
    assert [artifact["parts"] for artifact in task["artifacts"]] == [[{"text": text}] for text in said]
    listed = (await a2a(http, "ListTasks", contextId=asked.thread))["result"]
    assert [one["id"] for one in listed["tasks"]] == [asked.run]

    uri = f"agent://threads/{asked.thread}"
    (resource,) = (await mcp(http, "/mcp", "resources/read", uri, uri=uri))["contents"]
    thread = json.loads(resource["text"])
    assert thread["status"] == "idle"
    assert [one["content"] for one in thread["values"]["messages"] if one["type"] == "ai"] == said

    response = (await http.get(f"/v1/responses/{continued}")).json()
    assert (response["status"], response["previous_response_id"]) == ("completed", asked.response)
    call, message = response["output"]
    assert (call["type"], call["output"], call["approval_request_id"]) == ("mcp_call", "paid", f"mcpr_{asked.id}")
    assert message["content"][0]["text"] == said[-1]


@pytest.fixture
def server(server_url: str, tmp_path: Path) -> Iterator[Served]:
    """A server whose worker the test kills."""
    with serving(server_url, tmp_path, **SETTINGS) as server:
        yield server.wait_until_ready()


@pytest.fixture
async def http(server: Served) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=60) as http:
        yield http


@pytest.fixture
async def client(server: Served) -> AsyncIterator[LangGraphClient]:
    async with get_client(url=server.base) as client:
        yield client


async def test_a_cron_asks_a_person_answers_a_worker_dies_and_all_see_the_same(
    server: Served, client: LangGraphClient, http: httpx.AsyncClient, tmp_path: Path
) -> None:
    thread = (await client.threads.create())["thread_id"]
    watch = Watch(server, thread)
    ledger = tmp_path / "ledger"

    async with watch.reading() as connection:
        await eventually(lambda: watch.outcomes() == ["success"])
        given: Any = {"messages": [{"role": "user", "content": f"call pay ledger={ledger}"}]}
        cron: Any = await client.crons.create_for_thread(thread, "payer", schedule="0 0 1 1 *", input=given)
        await make_due(server, cron["cron_id"])
        await eventually(lambda: watch.outcomes() == ["success", "interrupt"], PATIENCE)
        (interrupt,) = watch.events[-1]["outcome"]["interrupts"]
        asked = Question(interrupt["id"], watch.events[-1]["runId"], thread)
        answered = await approve(server, asked)
        await eventually(lambda: ledger.exists() and ledger.read_text(), PATIENCE)
        await check_that_it_is_answered(http, asked)
        for pid in children_of(server.process.pid):
            os.kill(pid, signal.SIGKILL)
        await connection

    async with watch.reading():
        chat = asyncio.create_task(http.get(f"/ai-sdk/payer/chat/{thread}/stream"))
        await eventually(lambda: len(ledger.read_text().splitlines()) == 2, PATIENCE)
        ledger.with_suffix(".open").touch()
        await eventually(lambda: len(watch.outcomes()) == 3, PATIENCE)
    assert len(set(ledger.read_text().splitlines())) == 1  # two attempts at one call

    second, first = await client.runs.list(thread)
    assert (first["run_id"], first["status"]) == (asked.run, "interrupted")
    assert (first["metadata"] or {})["cron_id"] == cron["cron_id"]
    assert (f"resp_{uuid.UUID(second['run_id']).hex}", second["status"]) == (answered, "success")
    state: Any = await client.threads.get_state(thread)
    _, asking, paid, last = contents(state["values"])
    assert (paid, "The tool pay answered: paid" in last) == ("paid", True)
    assert text_of(watch.events) == asking + last

    chunks = [json.loads(line[6:]) for line in (await chat).text.splitlines() if line.startswith("data: {")]
    assert (chunks[0]["type"], chunks[0]["messageId"]) == ("start", f"msg_{asked.run}")
    assert "".join(chunk["delta"] for chunk in chunks if chunk["type"] == "text-delta") == last
    await check_what_was_watched(http, watch, [first["run_id"], second["run_id"]])
    await check_every_wire(http, asked, answered, [asking, last])
    await check_that_it_is_answered(http, asked)
    assert len(await client.runs.list(thread)) == 2
