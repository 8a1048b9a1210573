"""The server side of the Model Context Protocol: by the official SDK in both revisions, and by its bare messages."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import msgspec
import pytest

from app.infra.secrets.secret import Secret
from app.protocols.mcp.questions import Declined, answer_of, ask_of
from app.protocols.mcp.sealing import Sealer, Unsealable
from app.security.access.structs import DEFAULT_TENANT, Principal
from tests.journeys.conftest import Served
from tests.protocols.test_questions import TWO_CALLS
from tests.waiting import eventually

SUM = "what is 12*(3+4)?"
STATELESS, LEGACY = "2026-07-28", "legacy"
META = "io.modelcontextprotocol/"
FORMS: dict[str, Any] = {"elicitation": {}}
TASKS: dict[str, Any] = {"extensions": {f"{META}tasks": {}}, **FORMS}
NAMED = {"tools/call": "name", "tasks/get": "taskId", "tasks/update": "taskId", "tasks/cancel": "taskId"}

numbers = itertools.count(1)


async def post(
    http: httpx.AsyncClient, method: str, params: Mapping[str, Any], capabilities: Mapping[str, Any], **headers: str
) -> httpx.Response:
    """Send a request of the stateless revision."""
    meta = {f"{META}protocolVersion": STATELESS, f"{META}clientCapabilities": capabilities}
    sent = {"MCP-Protocol-Version": STATELESS, "Mcp-Method": method, "Accept": "application/json, text/event-stream"}
    if method in NAMED:
        sent["Mcp-Name"] = params[NAMED[method]]
    body = {"jsonrpc": "2.0", "id": next(numbers), "method": method, "params": {**params, "_meta": meta}}
    return await http.post("/mcp", json=body, headers={**sent, **headers})


async def result(
    http: httpx.AsyncClient, method: str, params: Mapping[str, Any], capabilities: Mapping[str, Any] = FORMS
) -> Any:
    """Return the result of a request of the stateless revision, from JSON or from its stream."""
    response = await post(http, method, params, capabilities)
    lines = [line[6:] for line in response.text.splitlines() if line.startswith("data: ")]
    message = msgspec.json.decode(lines[-1] if lines else response.content)
    assert "result" in message, message
    return message["result"]


def call(agent: str, said: str, **more: Any) -> dict[str, Any]:
    return {"name": agent, "arguments": {"input": said}, **more}


@pytest.fixture
async def http(steered: Served) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{steered.port}", timeout=60) as http:
        yield http


@contextlib.asynccontextmanager
async def sdk(served: Served, mode: str, path: str = "/mcp", **options: Any) -> AsyncIterator[Any]:
    mcp = pytest.importorskip("mcp", reason="the extra mcp is not installed")
    async with mcp.Client(f"http://127.0.0.1:{served.port}{path}", mode=mode, **options) as client:
        yield client


@pytest.mark.parametrize("mode", [STATELESS, LEGACY])
async def test_the_sdk_calls_agents_follows_them_and_continues_their_threads(served: Served, mode: str) -> None:
    progress: list[str] = []

    async def on_progress(_done: float, _total: float | None, message: str | None) -> None:
        progress.append(message or "")

    async with sdk(served, mode) as client:
        tools = (await client.list_tools()).tools
        assert [tool.name for tool in tools][:2] == ["assistant", "echo"]
        assert tools[0].input_schema["required"] == ["input"]
        first = await client.call_tool("assistant", {"input": SUM}, progress_callback=on_progress)
        assert "84" in first.content[0].text
        assert not first.is_error
        assert "calls calculator" in progress
        thread_id = first.meta["agent-service/thread_id"]
        await client.call_tool("echo", {"input": "again", "thread_id": thread_id})
        missing = await client.call_tool("echo", {})
        assert missing.is_error
        assert "input is missing" in missing.content[0].text
    async with sdk(served, mode, "/mcp/echo") as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == ["echo"]
    async with httpx.AsyncClient(base_url=served.base) as http:
        state = (await http.get(f"/threads/{thread_id}/state")).json()
    assert [m["content"] for m in state["values"]["messages"] if m["type"] == "human"] == [SUM, "again"]


@pytest.mark.parametrize("mode", [STATELESS, LEGACY])
async def test_a_person_approves_a_call_in_the_client(steered: Served, mode: str) -> None:
    from mcp import types

    asked: list[Any] = []

    async def approve(_context: Any, params: Any) -> Any:
        asked.append(params)
        return types.ElicitResult(action="accept", content={"decision": "approve"})

    async with sdk(steered, mode, elicitation_callback=approve) as client:
        answer = await client.call_tool("careful", {"input": SUM})
    assert "84" in answer.content[0].text
    assert "May the agent call calculator" in asked[0].message
    async with sdk(steered, mode) as client:  # cannot ask
        refused = await client.call_tool("careful", {"input": SUM})
    assert refused.is_error
    assert "this client cannot ask" in refused.content[0].text


async def test_a_question_is_bound_to_its_call_and_answered_on_another_wire(
    steered: Served, http: httpx.AsyncClient
) -> None:
    asked = await result(http, "tools/call", call("careful", SUM))
    assert asked["resultType"] == "input_required"
    (key,) = asked["inputRequests"]
    state = asked["requestState"]
    again = await result(http, "tools/call", call("careful", SUM, requestState=state, inputResponses={key: 1}))
    assert "Answer with {action" in again["inputRequests"][key]["params"]["message"]
    declined = {key: {"action": "cancel"}}
    silent = await result(http, "tools/call", call("careful", SUM, requestState=state, inputResponses=declined))
    assert silent["isError"]
    thread_id = silent["_meta"]["agent-service/thread_id"]
    for forged in (state[:-1] + ("A" if state[-1] != "A" else "B"), "x", "é"):
        refused = await post(http, "tools/call", call("careful", SUM, requestState=forged), FORMS)
        assert refused.json()["error"]["code"] == -32602
    other = await post(http, "tools/call", call("careful", "another", requestState=state), FORMS)
    assert other.json()["error"]["code"] == -32602
    decided = {"assistant_id": "careful", "command": {"resume": {key: {"decisions": [{"type": "approve"}]}}}}
    assert (await http.post(f"/api/v1/threads/{thread_id}/runs/wait", json=decided)).status_code == 200
    late = {key: {"action": "accept", "content": {"decision": "reject"}}}
    for _ in range(2):  # the call continues with the answer that counted, as often as it is repeated
        done = await result(http, "tools/call", call("careful", SUM, requestState=state, inputResponses=late))
        assert "84" in done["content"][0]["text"]


async def test_a_task_outlives_its_server_and_is_approved_by_its_client(database_url: str, tmp_path: Any) -> None:
    from tests.journeys.conftest import AGENTS

    with contextlib.ExitStack() as servers:
        server = Served(database_url, tmp_path, AGENT_CONFIG=str(AGENTS)).wait_until_ready()
        servers.callback(server.stop)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=60) as http:
            made = await result(http, "tools/call", call("careful", SUM), TASKS)
            assert (made["resultType"], made["status"]) == ("task", "working")
            task = {"taskId": made["taskId"]}

            async def waits() -> bool:
                return bool((await result(http, "tasks/get", task, TASKS))["status"] == "input_required")

            await eventually(waits)
        server.process.kill()
        server.process.wait(20)
        server = Served(database_url, tmp_path, AGENT_CONFIG=str(AGENTS)).wait_until_ready()
        servers.callback(server.stop)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=60) as http:
            cannot_ask = await result(http, "tasks/get", task, {"extensions": TASKS["extensions"]})
            assert (cannot_ask["inputRequests"], "Answer on thread" in cannot_ask["statusMessage"]) == ({}, True)
            waiting = await result(http, "tasks/get", task, TASKS)
            (key,) = waiting["inputRequests"]
            assert waiting["inputRequests"][key]["method"] == "elicitation/create"
            followed: list[Any] = []
            async with listening(http, [made["taskId"]]) as events:
                assert (await anext(events))["method"] == "notifications/subscriptions/acknowledged"
                assert (await anext(events))["params"]["status"] == "input_required"
                approve = {key: {"action": "accept", "content": {"decision": "approve"}}}
                update = {**task, "inputResponses": approve}
                assert (await result(http, "tasks/update", update, TASKS))["resultType"] == "complete"
                while not followed or followed[-1]["status"] != "completed":
                    followed.append((await anext(events))["params"])
            assert "84" in followed[-1]["result"]["content"][0]["text"]
            done = await result(http, "tasks/get", task, TASKS)
            assert (done["status"], done["result"]) == ("completed", followed[-1]["result"])
            await result(http, "tasks/cancel", task, TASKS)
            unknown = await post(http, "tasks/get", {"taskId": "no.task"}, TASKS)
            assert unknown.json()["error"]["code"] == -32602
            undeclared = await post(http, "tasks/get", task, {})
            assert (undeclared.status_code, undeclared.json()["error"]["code"]) == (400, -32021)


@contextlib.asynccontextmanager
async def listening(http: httpx.AsyncClient, task_ids: list[str]) -> AsyncIterator[AsyncIterator[Any]]:
    meta = {f"{META}protocolVersion": STATELESS, f"{META}clientCapabilities": TASKS}
    headers = {"MCP-Protocol-Version": STATELESS, "Mcp-Method": "subscriptions/listen"}
    params = {"notifications": {"taskIds": task_ids}, "_meta": meta}
    body = {"jsonrpc": "2.0", "id": next(numbers), "method": "subscriptions/listen", "params": params}
    async with http.stream("POST", "/mcp", json=body, headers=headers) as response:
        lines = response.aiter_lines()
        yield (msgspec.json.decode(line[6:]) async for line in lines if line.startswith("data: "))


async def test_a_client_that_closes_its_stream_cancels_the_run(steered: Served, http: httpx.AsyncClient) -> None:
    meta = {f"{META}protocolVersion": STATELESS, f"{META}clientCapabilities": {}, "progressToken": "p"}
    headers = {"MCP-Protocol-Version": STATELESS, "Mcp-Method": "tools/call", "Mcp-Name": "slow"}
    thread_id = "0b5f3a5e-8a54-4f0e-9d64-0d5a53c4b3c1"
    arguments = {"input": "what time is it? wait 60", "thread_id": thread_id}
    params = {"name": "slow", "arguments": arguments, "_meta": meta}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    async with http.stream("POST", "/mcp", json=body, headers=headers) as response:
        async for line in response.aiter_lines():
            if line.startswith("data: "):
                break

    async def statuses() -> list[str]:
        return [run["status"] for run in (await http.get(f"/api/v1/threads/{thread_id}/runs")).json()]

    async def stopped() -> bool:
        return (await statuses())[0] in {"interrupted", "success"}

    await eventually(stopped)
    assert await statuses() == ["interrupted"]


def test_what_is_sealed_opens_for_its_principal_purpose_and_time_alone() -> None:
    now = 1000.0
    keys = [Secret("one" * 12)]
    sealer = Sealer(lambda: keys, lambda: now)
    ann, bob = Principal(DEFAULT_TENANT, user_id="ann"), Principal(DEFAULT_TENANT, user_id="bob")
    sealed = sealer.seal(ann, "call", {"a": [1]}, 60)
    keys.insert(0, Secret("two" * 12))
    assert sealer.unseal(ann, "call", sealed) == {"a": [1]}
    for principal, purpose, text in (
        (bob, "call", sealed),
        (ann, "other", sealed),
        (ann, "call", sealed[:-1]),
        (ann, "call", sealed + "A"),
        (ann, "call", ""),
        (ann, "call", "A" * 20_000),
    ):
        with pytest.raises(Unsealable):
            sealer.unseal(principal, purpose, text)
    now += 61
    with pytest.raises(Unsealable):
        sealer.unseal(ann, "call", sealed)


def test_questions_are_forms_and_forms_are_answers() -> None:
    form = {"type": "object", "properties": {"size": {"type": "integer"}}, "required": ["size"]}
    nested = {"type": "object", "properties": {"a": {"type": "array"}}}
    accept = {"action": "accept"}
    cases: list[tuple[Any, Any, Any]] = [
        ({"value": "Which?", "response_schema": form}, {**accept, "content": {"size": 3}}, {"size": 3}),
        ({"value": "Sure?", "response_schema": {"type": "boolean"}}, {**accept, "content": {"answer": True}}, True),
        ({"value": {"question": "Why?"}}, {**accept, "content": {"answer": "so"}}, "so"),
        ({"value": 1, "response_schema": nested}, {**accept, "content": {"answer": '{"a":[]}'}}, {"a": []}),
        (
            {"value": {"type": "tool_approval", "tool": "pay", "args": {}}},
            {"action": "decline"},
            {"decisions": [{"type": "reject"}]},
        ),
        (
            {"value": TWO_CALLS},
            {**accept, "content": {"decision": "reject", "reason": "no"}},
            {"decisions": [{"type": "reject", "message": "no"}] * 2},
        ),
        (
            {"value": {"type": "tool_review", "tool": "pay", "args": {}}},
            {**accept, "content": {"decision": "done", "reason": "paid"}},
            {"action": "done", "result": "paid"},
        ),
    ]
    elicited = {"value": {"type": "elicitation", "message": "Which?", "requested_schema": form}, "response_schema": {}}
    cases.append((elicited, {**accept, "content": {"size": 3}}, {**accept, "content": {"size": 3}}))
    cases.append((elicited, {"action": "decline"}, {"action": "decline"}))
    for question, response, answer in cases:
        assert ask_of(question).params["requestedSchema"]["type"] == "object"
        assert answer_of(question, response) == answer
    assert ask_of({"value": TWO_CALLS}).params["message"] == (
        'May the agent call pay with {"sum":1}?\nMay the agent call tell with {}?'
    )
    assert ask_of({"value": "Which?", "response_schema": form}).params["requestedSchema"] == form
    assert ask_of(elicited).params["requestedSchema"] == form
    elsewhere = {"type": "elicitation", "message": "Pay there.", "url": "https://pay.example"}
    assert ask_of({"value": elsewhere}).params["message"] == "Pay there.\nhttps://pay.example"
    for question in ({"value": "Which?"}, elicited):
        with pytest.raises(Declined):
            answer_of(question, {"action": "decline" if question is not elicited else "cancel"})
    for wrong in (None, {"action": "accept"}, {"action": "accept", "content": {}}, {"action": "perhaps"}):
        with pytest.raises(ValueError, match=r"nswer|content"):
            answer_of({"value": "Which?"}, wrong)


class OlderClient:
    """A client of 2025-11-25 by bare messages: a session, and requests that may go to several processes."""

    def __init__(self, *servers: httpx.AsyncClient) -> None:
        self._servers = servers
        self.headers = {"MCP-Protocol-Version": "2025-11-25"}

    async def begin(self, **capabilities: Any) -> "OlderClient":
        params = {"protocolVersion": "2025-11-25", "capabilities": capabilities}
        answer = await self.send({"id": 0, "method": "initialize", "params": params})
        self.headers["Mcp-Session-Id"] = answer.headers["mcp-session-id"]
        assert answer.json()["result"]["protocolVersion"] == "2025-11-25"
        return self

    async def send(self, message: dict[str, Any], server: int = 0) -> httpx.Response:
        body = {"jsonrpc": "2.0", **message}
        return await self._servers[server].post("/mcp", json=body, headers=self.headers)

    @contextlib.asynccontextmanager
    async def calling(self, number: int, agent: str, said: str) -> AsyncIterator[AsyncIterator[Any]]:
        body = {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": call(agent, said)}
        async with self._servers[0].stream("POST", "/mcp", json=body, headers=self.headers) as response:
            lines = response.aiter_lines()
            yield (msgspec.json.decode(line[6:]) async for line in lines if line.startswith("data: "))


async def test_the_answer_of_an_older_client_may_reach_another_process(
    steered: Served, http: httpx.AsyncClient, tmp_path: Any
) -> None:
    environment = {name: value for name, value in steered.environment.items() if name != "PORT"}
    second = Served(environment.pop("DATABASE_URL"), tmp_path, **environment)
    try:
        second.wait_until_ready()
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{second.port}", timeout=60) as other:
            client = await OlderClient(http, other).begin(elicitation={})
            async with client.calling(7, "careful", SUM) as messages:
                asked = await anext(messages)
                assert asked["method"] == "elicitation/create"
                approved = {"action": "accept", "content": {"decision": "approve"}}
                forged = await client.send({"id": asked["id"][:-2], "result": approved}, server=1)
                assert forged.status_code == 400
                answered = await client.send({"id": asked["id"], "result": approved}, server=1)
                assert (answered.status_code, answered.content) == (202, b"")
                done = await anext(messages)
            assert "84" in done["result"]["content"][0]["text"]
            async with client.calling(7, "careful", SUM) as messages:  # repeated, as after a broken connection
                asked_again = await anext(messages)
                again = await anext(messages)
            assert asked_again["method"] == "elicitation/create"
            assert again["result"] == done["result"]
    finally:
        second.stop()


async def test_an_older_client_cancels_by_a_notification_and_not_by_leaving(
    steered: Served, http: httpx.AsyncClient
) -> None:
    client = await OlderClient(http).begin()
    found: list[Any] = []

    async def run() -> Any:
        search = {"metadata": {"protocol": "mcp"}, "status": ["running", "interrupted"], "limit": 1}
        newest = (await http.post("/api/v1/runs/search", json=search)).json()
        return newest[0] if newest else None

    async def running() -> Any:
        newest = await run()
        return newest if newest and newest["status"] == "running" else None

    body = {"jsonrpc": "2.0", "id": 9, "method": "tools/call", "params": call("slow", "what time is it?")}
    calling = asyncio.create_task(http.post("/mcp", json=body, headers=client.headers))
    left = await eventually(running)
    calling.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await calling
    cancel = {"method": "notifications/cancelled", "params": {"requestId": 9}}
    stranger = await OlderClient(http).begin()  # another session has requests of its own
    assert (await stranger.send(cancel)).status_code == 202
    assert (await run())["status"] == "running"
    assert (await client.send(cancel)).status_code == 202

    async def stopped() -> bool:
        found.append(await run())
        return bool(found[-1]["status"] == "interrupted")

    await eventually(stopped)
    assert found[-1]["run_id"] == left["run_id"]
    client.headers["Mcp-Session-Id"] += "x"
    assert (await client.send({"id": 1, "method": "ping"})).status_code == 404
