"""Agents of a served process that use tools of MCP servers."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from langgraph_sdk import get_client

from tests.cli.commands import Running, run_command
from tests.journeys.conftest import Served, serving
from tests.mcp_tools import server as fixture
from tests.mcp_tools.conftest import serving_http
from tests.mcp_tools.oauth_server import OAuthServer

AGENTS = """
[mcp.fix]
url = "{url}"
headers = {{ X-Token = "Bearer ${{FIX_TOKEN}}" }}
[mcp.fix.tools.add]
tool_class = "read_only"

[mcp.locked]
url = "{issuer}/mcp"
scope = "tenant"
[mcp.locked.oauth]

[mcp.gone]
url = "http://127.0.0.1:9/mcp"

[agents.helper]
model = "scripted:demo"
tools = ["mcp:fix/*", "clock"]
approve = {{ tools = ["mcp:fix/environment"] }}

[agents.lost]
model = "scripted:demo"
tools = ["mcp:gone/*"]

[agents.hosted]
graph = "./hosted.py:hosted"
tools = ["mcp:fix/*"]
approve = {{ tools = ["mcp:fix/environment"] }}

[agents.direct]
graph = "./hosted.py:direct"
tools = ["mcp:fix/work", "mcp:fix/order", "mcp:fix/broken"]

[agents.member]
model = "scripted:demo"
tools = ["mcp:locked/*"]

[agents.typed]
function = "./typed.py:run"
tools = ["mcp:fix/add"]
"""

TYPED = """
from app.agents.function import Context

async def run(context: Context, number: int) -> str:
    return str(await context.tools.call("fix__add", int, a=number, b=1))
"""

HOSTED = """
import json
from typing import TypedDict
from agent_service_graphs.tools import agent_tools
from langchain_core.messages import AIMessage
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode

def model(state):
    name, _, args = state["messages"][-1].content.partition(" ")
    call = {"name": name, "args": json.loads(args or "{}"), "id": "call_1"}
    return {"messages": [AIMessage("", tool_calls=[call])]}

hosted = StateGraph(MessagesState).add_node("model", model).add_node("tools", ToolNode(agent_tools()))
hosted = hosted.add_edge(START, "model").add_edge("model", "tools").compile()

class Said(TypedDict, total=False):
    said: list[str]

def both(state):
    tools = {tool.name: tool for tool in agent_tools()}
    said = [tools["fix__broken"].invoke({}), tools["fix__work"].invoke({"steps": 1})]
    return {"said": [*said, tools["fix__order"].invoke({"item": "tea"})]}

def direct():
    return StateGraph(Said).add_node("both", both).add_edge(START, "both").compile()
"""


@pytest.fixture(scope="module")
def issuer() -> Iterator[str]:
    mcp = fixture.mcp_server("locked")
    mcp.add_tool(lambda: "opened", name="open", description="Open.")
    server = OAuthServer(mcp.streamable_http_app())
    with serving_http(server.app) as server.base:
        yield server.base


@pytest.fixture(scope="module")
def folder(http_url: str, issuer: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mcp")
    (path / "agents.toml").write_text(AGENTS.format(url=http_url, issuer=issuer), encoding="utf-8")
    (path / "typed.py").write_text(TYPED, encoding="utf-8")
    (path / "hosted.py").write_text(HOSTED, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def served(server_url: str, folder: Path) -> Iterator[Served]:
    given = {"AGENT_CONFIG": str(folder / "agents.toml"), "AGENT_EGRESS_ALLOW": "127.0.0.1", "FIX_TOKEN": "t-1"}
    with serving(server_url, folder, **given) as server:
        server.start_seconds = 100.0  # it imports langgraph
        yield server.wait_until_ready()


async def test_agents_use_the_tools_of_a_server_and_those_of_a_broken_one_are_refused(served: Served) -> None:
    async with get_client(url=served.base) as client:
        await _use(client)
    async with httpx.AsyncClient() as http:
        refused = await http.post(f"{served.base}/runs/wait", json={"assistant_id": "lost", "input": "hello"})
    assert refused.status_code == 503
    assert "the MCP server 'gone': Connection refused" in refused.json()["detail"]
    assert "mcp_server_unavailable" in served.log.read_text()


async def _use(client: Any) -> None:
    fixture.metas.clear()
    fixture.headers.clear()
    custom: list[Any] = []
    answers: list[Any] = []
    async for part in client.runs.stream(
        None, "helper", input="call fix__work steps=2", stream_mode=["custom", "updates"]
    ):
        if part.event == "custom":
            custom.append(part.data)
        elif part.event == "updates":
            answers += part.data.get("tools", {}).get("messages", [])
    assert [(one["name"], one["content"], one["status"]) for one in answers] == [("fix__work", "worked", "success")]
    assert (custom[0]["type"], custom[0]["tool"], custom[0]["progress"]) == ("mcp_progress", "fix__work", 1)
    assert custom[-1]["progress"] == 2
    assert fixture.metas[-1]["agent-service/idempotency-key"]
    assert fixture.headers[-1]["x-token"] == "Bearer t-1"

    wrong = await client.runs.wait(None, "helper", input="call fix__add a=two b=3")
    assert "The call was not run, its arguments are wrong: /a:" in wrong["messages"][-2]["content"]

    asked = await client.runs.wait(None, "helper", input="call fix__environment")
    assert asked["__interrupt__"][0]["value"]["tool"] == "fix__environment"

    shown = (await client.runs.wait(None, "helper", input="call fix__media"))["messages"][-2]
    assert [part["type"] for part in shown["content"]] == ["text", "image", "text"]
    assert [block["data"] for block in shown["artifact"]["content"]] == [fixture.SOUND]
    added = (await client.runs.wait(None, "helper", input="call fix__add a=2 b=3"))["messages"][-2]
    assert added["artifact"] == {"structured_content": {"result": 5}}

    fixture.orders.clear()
    thread = (await client.threads.create())["thread_id"]
    waiting = await client.runs.wait(thread, "helper", input="call fix__order item=tea")
    assert waiting["__interrupt__"][0]["value"]["message"] == "Which size of tea?"
    with pytest.raises(httpx.HTTPStatusError, match="422"):
        await client.runs.wait(thread, "helper", command={"resume": {"action": "accept", "content": {"size": "XXL"}}})
    answer = {"action": "accept", "content": {"size": "L"}}
    ordered = await client.runs.wait(thread, "helper", command={"resume": answer})
    assert ordered["messages"][-2]["content"] == "ordered tea L"
    assert fixture.orders == ["tea L"]

    typed = await client.runs.wait(None, "typed", input=41)
    assert typed["messages"][-1]["content"] == "42"


async def test_a_graph_uses_the_tools_of_a_server_as_other_agents_do(served: Served) -> None:
    async with get_client(url=served.base) as sdk:
        client: Any = sdk

        async def call(words: str) -> Any:
            return await client.runs.wait(None, "hosted", input={"messages": [{"role": "user", "content": words}]})

        added = (await call('fix__add {"a": 2, "b": 3}'))["messages"][-1]
        assert (added["content"], added["tool_call_id"], added["status"]) == ("5", "call_1", "success")
        wrong = (await call('fix__add {"a": "two", "b": 3}'))["messages"][-1]
        assert (wrong["status"], "its arguments are wrong: /a:" in wrong["content"]) == ("error", True)
        nodes = [node["id"] for node in (await client.assistants.get_graph("hosted"))["nodes"]]
        assert "tools" in nodes

        thread = (await client.threads.create())["thread_id"]
        words = {"messages": [{"role": "user", "content": "fix__environment"}]}
        asked = (await client.runs.wait(thread, "hosted", input=words))["__interrupt__"][0]["value"]
        assert (asked["type"], asked["tool"], asked["call_id"]) == ("tool_approval", "fix__environment", "call_1")
        refused = await client.runs.wait(thread, "hosted", command={"resume": {"action": "reject", "reason": "no"}})
        assert refused["messages"][-1]["content"] == "A person refused this call; it was not run: no"


async def test_a_node_that_starts_again_does_not_repeat_calls_that_it_has_made(served: Served) -> None:
    for seen in (fixture.orders, fixture.metas, fixture.failures):
        seen.clear()
    async with get_client(url=served.base) as sdk:
        client: Any = sdk
        thread = (await client.threads.create())["thread_id"]
        waiting = await client.runs.wait(thread, "direct", input={"said": []})
        assert waiting["__interrupt__"][0]["value"]["message"] == "Which size of tea?"
        with pytest.raises(httpx.HTTPStatusError, match="422"):
            await client.runs.wait(
                thread, "direct", command={"resume": {"action": "accept", "content": {"size": "XXL"}}}
            )
        answer = {"action": "accept", "content": {"size": "L"}}
        done = await client.runs.wait(thread, "direct", command={"resume": answer})
        assert done["said"][1:] == ["worked", "ordered tea L"]
        assert "there are no orders" in done["said"][0]
        assert (len(fixture.metas), len(fixture.failures), fixture.orders) == (1, 1, ["tea L"])


async def test_a_person_signs_in_with_a_browser_where_a_task_of_another_agent_says_so(served: Served) -> None:
    root = served.base.removesuffix("/api/v1")
    async with httpx.AsyncClient(base_url=root, follow_redirects=True) as browser:

        async def send(text: str, **more: Any) -> Any:
            message = {"messageId": f"m-{text}", "role": "ROLE_USER", "parts": [{"text": text}], **more}
            asked = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {"message": message}}
            sent = await browser.post("/a2a/member", json=asked, headers={"A2A-Version": "1.0"})
            return sent.json()["result"]["task"]

        task = await send("call locked__sign_in")
        assert task["status"]["state"] == "TASK_STATE_AUTH_REQUIRED"
        words = task["status"]["message"]["parts"][0]["text"]
        consent = await browser.get(words.partition("Sign in to locked to go on: ")[2])
        assert "Give agents of the tenant" in consent.text
        assert f" at {urlsplit(served.base).netloc} access to your account at locked?" in consent.text
        assert "form-action 'self'" in consent.headers["content-security-policy"]
        fields = dict(re.findall(r'name="(\w+)" value="([^"]*)"', consent.text))
        signed_in = await browser.get("/mcp/oauth/callback", params=fields)
        assert "Signed in at locked" in signed_in.text
        used = await browser.get("/mcp/oauth/callback", params=fields)
        assert (used.status_code, "not known" in used.text) == (404, True)

        done = await send("done", taskId=task["id"])
        assert done["status"]["state"] == "TASK_STATE_COMPLETED", done
        async with get_client(url=served.base) as sdk:
            client: Any = sdk
            opened = await client.runs.wait(None, "member", input="call locked__open")
        assert opened["messages"][-2]["content"] == "opened"


def test_a_sign_in_from_the_command_line_comes_back_to_the_service(folder: Path, served: Served) -> None:
    settings = {name: text for name, text in served.environment.items() if name.isupper()}
    command = Running(folder, "mcp", "sign-in", "locked", "--tenant", "other", fresh=False, **settings)
    with httpx.Client(follow_redirects=True) as browser:
        consent = browser.get(command.printed(r"http://\S+/authorize\S+")[0])
        assert f" at 127.0.0.1:{served.port} access to your account at locked?" in consent.text
        fields = dict(re.findall(r'name="(\w+)" value="([^"]*)"', consent.text))
        browser.get(consent.url, params=fields)
    assert command.process.wait(30) == 0, command.output()
    done = run_command(folder, "mcp", "call", "locked", "open", "--tenant", "other", **settings)
    assert (done.returncode, '"opened"' in done.stdout) == (0, True), done.stderr


def test_the_check_of_agents_names_a_broken_server(folder: Path, served: Served) -> None:
    settings = {name: served.environment[name] for name in ("AGENT_EGRESS_ALLOW", "FIX_TOKEN")}
    done = run_command(folder, "agents", "check", **settings)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert [line.split()[:2] for line in lines if line.startswith("ok")][-5:] == [
        ["ok", name] for name in ("helper", "hosted", "direct", "member", "typed")
    ]
    (failed,) = [line for line in lines if line.startswith("failed")]
    assert "agent 'lost': the MCP server 'gone': Connection refused" in failed
