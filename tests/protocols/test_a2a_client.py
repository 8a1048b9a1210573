"""Other agents as tools, by A2A: against our own server as the peer, and against hostile ones."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from app.agents.a2a import client, tool
from app.agents.a2a.peers import A2APeers
from app.agents.a2a.spec import A2AAgentSpec, parse_name
from app.agents.a2a.tool import A2ATool
from app.agents.config.agents_file import AgentsFile, read
from app.agents.tools.port import ToolResult
from app.agents.tools.remote import ServerError
from app.base.errors import StartError
from app.infra.egress.addresses import AddressAllowlist
from tests.database import clone, drop
from tests.journeys.conftest import Served, serving
from tests.mcp_tools.conftest import context_of, serving_http
from tests.protocols.ag_ui_streams import checked, run_input, user
from tests.waiting import eventually

SETTINGS = {"AGENT_EGRESS_ALLOW": "127.0.0.1", "AGENT_LEASE_SECONDS": "3"}
PEER_AGENTS = Path(__file__).parent / "agents" / "agents.toml"
CALLERS = """
[a2a.friend]
url = "{url}/a2a/helper"
headers = {{ Authorization = "Bearer ${{FRIEND_TOKEN}}" }}

[agents.caller]
model = "scripted:demo"
tools = ["a2a:friend", "a2a:{url}/a2a/order"]

[agents.careful]
model = "scripted:demo"
tools = ["a2a:friend"]
approve = {{ tools = ["a2a:friend"] }}
"""


@pytest.fixture(scope="module")
def peer(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server whose agents are called."""
    settings = {**SETTINGS, "AGENT_CONFIG": str(PEER_AGENTS)}
    with serving(server_url, tmp_path_factory.mktemp("peer"), **settings) as server:
        yield f"http://127.0.0.1:{server.wait_until_ready().port}"


@pytest.fixture
async def http(peer: str) -> AsyncIterator[httpx.AsyncClient]:
    """The agent ``helper`` of the peer, by HTTP+JSON."""
    headers = {"A2A-Version": "1.0"}
    async with httpx.AsyncClient(base_url=f"{peer}/a2a/helper", headers=headers, timeout=30) as http:
        yield http


def tool_of(url: str, **given: Any) -> A2ATool:
    """The agent at ``url`` as a tool."""
    peers = A2APeers({"friend": A2AAgentSpec(url=url, **given)}, lambda _: "x", AddressAllowlist(["127.0.0.1"]))
    name = parse_name("a2a:friend")
    assert name is not None
    return A2ATool(peers.get(name))


async def tasks_of(http: httpx.AsyncClient, words: str) -> list[Any]:
    """The tasks of the peer that began with ``words``."""
    found = (await http.get("/tasks", params={"pageSize": 100})).json()["tasks"]
    return [one for one in found if one["history"][0]["parts"][0]["text"] == words]


async def state_of(http: httpx.AsyncClient, words: str) -> str:
    """The state of the only such task; empty if there is none."""
    found = await tasks_of(http, words)
    assert len(found) <= 1
    return found[0]["status"]["state"].removeprefix("TASK_STATE_") if found else ""


async def _is(http: httpx.AsyncClient, words: str, state: str) -> bool:
    return await state_of(http, words) == state


class Caller:
    """The server whose agents call those of the peer ``http``, by the SDK."""

    def __init__(self, sdk: LangGraphClient, http: httpx.AsyncClient, folder: Path) -> None:
        self.sdk: Any = sdk
        self.http = http
        self.folder = folder

    async def new_thread(self) -> str:
        return str((await self.sdk.threads.create())["thread_id"])

    async def answer(self, words: str) -> Any:
        """The message of the tool after a run of ``caller``."""
        return (await self.sdk.runs.wait(await self.new_thread(), "caller", input=words))["messages"][-2]

    async def front_ends_see_a_sub_agent(self) -> None:
        thread, base = await self.new_thread(), str(self.sdk.http.client.base_url).partition("/api/")[0]
        async with httpx.AsyncClient(base_url=base, timeout=30) as http:
            given = run_input(thread, user("call friend message=hello"))
            started = checked((await http.post("/ag-ui/caller", json=given)).content)
            again = checked((await http.post("/ag-ui/caller", json=given)).content)
        (first,) = [one for one in started if one["type"] == "SUBAGENT_STARTED"]
        assert first["name"] == "friend"
        assert [one["type"] for one in started if one["type"].startswith("SUBAGENT")][1:] == ["SUBAGENT_FINISHED"]
        assert again == started

    async def results_go_to_the_model(self) -> None:
        answer = await self.answer("call friend message=hello")
        assert (answer["content"], answer["status"]) == ("did hello", "success")
        done = (await self.http.get(f"/tasks/{answer['artifact']['task_id']}")).json()
        assert done["contextId"] == answer["artifact"]["context_id"]
        ordered = await self.answer('call order message=cups data={"item":"cups"}')
        assert ordered["status"] == "error"  # the agent takes data alone, and says so
        failed = await self.answer('call friend message="fail please"')
        assert failed["status"] == "error"
        assert failed["content"].startswith("The agent friend failed: ")

    async def people_answer_questions(self) -> None:
        thread = await self.new_thread()
        values = await self.sdk.runs.wait(thread, "caller", input='call friend message="ask me"')
        for question, given in (("Which colour?", "red"), ("Which size?", {"size": 3})):
            (asked,) = values["__interrupt__"]
            assert asked["value"]["message"] == question
            assert (asked["value"]["type"], asked["value"]["agent"]) == ("a2a_question", "friend")
            assert await state_of(self.http, "ask me") == "INPUT_REQUIRED"
            values = await self.sdk.runs.wait(thread, "caller", command={"resume": given})
        assert values["messages"][-2]["content"] == "red and {'size': 3}"
        assert await state_of(self.http, "ask me") == "COMPLETED"

    async def people_approve_calls(self) -> None:
        thread = await self.new_thread()
        values = await self.sdk.runs.wait(thread, "careful", input='call friend message="with leave"')
        (asked,) = values["__interrupt__"]
        assert (asked["value"]["tool"], asked["value"]["tool_class"]) == ("friend", "reconcilable")
        assert await tasks_of(self.http, "with leave") == []
        values = await self.sdk.runs.wait(thread, "careful", command={"resume": {"action": "approve"}})
        assert values["messages"][-2]["content"] == "did with leave"

    async def a_cancelled_run_cancels_its_task(self) -> None:
        thread, run, words = await self.working("never")
        await self.sdk.runs.cancel(thread, run, wait=True)
        await eventually(lambda: _is(self.http, words, "CANCELED"))

    async def working(self, gate: str) -> tuple[str, str, str]:
        """Have the peer work until there is the file ``gate``; return thread, run, and the words of the task."""
        words = f"until {self.folder / gate}"
        thread = await self.new_thread()
        run = await self.sdk.runs.create(thread, "caller", input=f'call friend message="{words}"')
        await eventually(lambda: _is(self.http, words, "WORKING"))
        return thread, run["run_id"], words


async def test_agents_call_agents_ask_people_and_outlive_a_crash(
    server_url: str, peer: str, http: httpx.AsyncClient, tmp_path: Path
) -> None:
    (tmp_path / "agents.toml").write_text(CALLERS.format(url=peer), encoding="utf-8")
    settings = {**SETTINGS, "AGENT_CONFIG": str(tmp_path / "agents.toml"), "FRIEND_TOKEN": "secret"}
    url = await clone(server_url)
    first = Served(url, tmp_path, **settings)
    await asyncio.to_thread(first.wait_until_ready)
    async with get_client(url=first.base) as sdk:
        caller = Caller(sdk, http, tmp_path)
        await caller.results_go_to_the_model()
        await caller.front_ends_see_a_sub_agent()
        await caller.people_answer_questions()
        await caller.people_approve_calls()
        await caller.a_cancelled_run_cancels_its_task()
        thread, run, words = await caller.working("gate")
    first.process.kill()
    await asyncio.to_thread(first.process.wait, 20)
    second = Served(url, tmp_path, **settings)
    try:
        await asyncio.to_thread(second.wait_until_ready)
        (tmp_path / "gate").touch()
        async with get_client(url=second.base) as sdk:
            values: Any = await sdk.runs.join(thread, run)
            assert values["messages"][-2]["content"] == f"did {words}"
    finally:
        await asyncio.to_thread(second.stop)
    assert await state_of(http, words) == "COMPLETED"
    await drop(server_url, url)


async def test_a_task_whose_id_was_lost_is_found_by_its_context(
    peer: str, http: httpx.AsyncClient, tmp_path: Path
) -> None:
    words, key = f"until {tmp_path / 'gate'}", str(uuid.uuid4())

    async def lost(_value: Any) -> None:
        raise asyncio.CancelledError

    arguments = {"message": words}
    with contextlib.suppress(asyncio.CancelledError):
        await tool_of(f"{peer}/a2a/helper").call(arguments, context_of(idempotency_key=key, keep=lost))
    after = tool_of(f"{peer}/a2a/helper")
    assert await after.lookup(str(uuid.uuid4())) is None
    assert await after.lookup(key) is None
    (tmp_path / "gate").touch()
    events: list[Any] = []
    result = await after.call(arguments, context_of(events, idempotency_key=key))
    assert result.content == f"did {words}"
    assert await state_of(http, words) == "COMPLETED"
    assert {one["type"] for one in events} <= {"a2a_progress"}
    assert after.spec.description == "The agent helper: Does as the words of its message ask."


async def test_time_limits_cancel_tasks_and_old_peers_are_called_by_their_names(
    peer: str, http: httpx.AsyncClient, tmp_path: Path
) -> None:
    words = f"until {tmp_path / 'gate'}"
    slow = tool_of(f"{peer}/a2a/helper", timeout=1, headers={"A2A-Version": "0.3"})
    events: list[Any] = []
    result = await slow.call({"message": words}, context_of(events, idempotency_key=str(uuid.uuid4())))
    assert (result.status, result.content) == ("error", "The agent friend took longer than 1 s.")
    assert events[0] == {"type": "a2a_progress", "tool": "friend", "call_id": "call_1", "state": "working"}
    await eventually(lambda: _is(http, words, "CANCELED"))
    old = tool_of(f"{peer}/a2a/helper", headers={"A2A-Version": "0.3"})
    assert (await old.call({"message": "hello old"}, context_of(idempotency_key="old"))).content == "did hello old"
    with pytest.raises(ServerError, match=r"0\.3 of A2A, which has no ListTasks"):
        await old.lookup("old")
    authorized = await tool_of(f"{peer}/a2a/careful").call(
        {"message": "what is 12*(3+4)?"}, context_of(idempotency_key=str(uuid.uuid4()))
    )
    assert authorized.status == "error"
    assert str(authorized.content).startswith("The agent friend needs an authorization")


class HostilePeer:
    """An agent that does to a call what ``attack`` says; ``card`` changes its card."""

    def __init__(self) -> None:
        self.attack = ""
        self.card: dict[str, Any] = {}
        self.app = Starlette(
            routes=[
                Route("/.well-known/agent-card.json", self._card),
                Route("/rpc", self._call, methods=["POST"]),
            ]
        )

    async def _card(self, request: Request) -> Response:
        interface = {"url": f"{request.base_url}rpc", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}
        return JSONResponse({"name": "hostile", "supportedInterfaces": [interface], **self.card})

    async def _call(self, request: Request) -> Response:
        asked = await request.json()
        task: dict[str, Any] = {"id": "t", "contextId": "c", "status": {"state": "TASK_STATE_COMPLETED"}}
        result: dict[str, Any] = {"task": task}
        match self.attack:
            case "huge":
                task["artifacts"] = [{"artifactId": "a", "parts": [{"text": "x" * 1_100_000}]}]
            case "redirect":
                return RedirectResponse("http://169.254.169.254/latest/meta-data", 307)
            case "html":
                return Response("<html>", media_type="text/html")
            case "deep":
                return Response("[" * 100_000 + "]" * 100_000, media_type="application/json")
            case "state":
                task["status"] = {"state": "TASK_STATE_SILLY"}
            case "asks":
                asking = {"messageId": "q", "role": "ROLE_AGENT", "parts": [{"text": "and?"}]}
                task["status"] = {"state": "TASK_STATE_INPUT_REQUIRED", "message": asking}
                result = {"task": task} if asked["method"] == "SendMessage" else task
            case "error":
                return JSONResponse({"jsonrpc": "2.0", "id": 1, "error": {"code": -32602, "message": "no such thing"}})
            case "refuse":
                return Response(status_code=401)
        return JSONResponse({"jsonrpc": "2.0", "id": asked["id"], "result": result})


ATTACKS = {
    "huge": "it sent more than 1000000 bytes",
    "redirect": "it redirects to another address",
    "html": "is not JSON-RPC",
    "deep": "is not JSON-RPC",
    "state": "does not follow the protocol",
    "asks": "it asked 16 times in one call",
    "error": "no such thing",
    "refuse": "it refuses our credentials with status 401",
}


async def test_hostile_peers_cost_their_own_calls_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MAX_RESPONSE_BYTES", 1_000_000)
    monkeypatch.setattr(tool, "FIRST_PAUSE", 0.01)
    hostile = HostilePeer()

    async def call(one: A2ATool) -> ToolResult:
        return await one.call({"message": "x"}, context_of(idempotency_key=str(uuid.uuid4())))

    with serving_http(hostile.app) as url:
        for attack, words in ATTACKS.items():
            hostile.attack = attack
            result = await call(tool_of(url))
            assert result.status == "error"
            assert words in str(result.content), (attack, result.content)
        hostile.attack = ""
        assert (await call(tool_of(url))).status == "success"
        elsewhere = {"protocolBinding": "JSONRPC", "protocolVersion": "1.0", "url": "http://169.254.169.254/"}
        cards: list[tuple[dict[str, Any], str]] = [
            ({"supportedInterfaces": [elsewhere]}, "its card names the address http://169.254.169.254/"),
            ({"supportedInterfaces": []}, "offers no interface for JSON-RPC"),
            ({"name": 7}, "there is no valid agent card"),
        ]
        for card, words in cards:
            hostile.card = card
            assert words in str((await call(tool_of(url))).content)
    assert "cannot be reached" in str((await call(tool_of(url))).content)


def check(file: AgentsFile) -> None:
    """Build the peers of the agent ``a``, as a start does."""
    peers = A2APeers(file.a2a, lambda _: None)
    for name in file.agents["a"].tools:
        peers.get(parse_name(name))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text, words",
    [
        ('[agents.a]\ntools = ["a2a:x"]', "there is no A2A agent 'x': define [a2a.x]. Defined: none"),
        ('[agents.a]\ntools = ["a2a:ftp://x"]', "write a2a:NAME, or a2a: and the URL of the agent"),
        ('[agents.a]\ntools = ["a2a:http://10.0.0.1/x"]', "10.0.0.1 is not a public address"),
        (
            '[a2a.x]\nurl = "https://x.example"\nheaders = { A = "${MISSING}" }\n[agents.a]\ntools = ["a2a:x"]',
            "MISSING",
        ),
        ('[a2a.x]\nurl = "https://x.example"\ntool_class = "transactional"', "line 1: a2a.x: tool_class transactional"),
        ('[a2a.x]\nurl = "nothing"', "a2a.x: url: it must begin with http:// or https://"),
    ],
)
def test_what_is_wrong_in_the_agents_file_is_said_at_start(text: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "agents.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(StartError) as raised:
        check(read(str(file)))
    assert words in str(raised.value)
