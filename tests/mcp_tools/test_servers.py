"""Tools of real MCP servers, over HTTP and as child processes, in both revisions."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, use_span

from app.agents.config.agents_file import read
from app.agents.mcp.connection import McpConnection
from app.agents.mcp.spec import McpServerSpec, McpToolSpec
from app.agents.tools.port import ToolClass
from app.base.errors import StartError
from app.domain.caller import AUTH_USER_ID
from tests.mcp_tools import server as fixture
from tests.mcp_tools.conftest import connected, context_of
from tests.waiting import eventually

TINY = """
import json, os, sys
results = {
    "initialize": {
        "protocolVersion": "2025-11-25",
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "tiny", "version": "1"},
    },
    "tools/list": {"tools": [{"name": "process", "inputSchema": {"type": "object"}}]},
    "tools/call": {"content": [{"type": "text", "text": str(os.getpid())}]},
}
for line in sys.stdin:
    asked = json.loads(line)
    if "id" in asked:
        print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": results[asked["method"]]}), flush=True)
"""
"""A server that starts at once; its tool returns the id of its process."""
GREEDY = TINY.replace("    if ", "    if asked['method'] == 'tools/call': bytearray(400 << 20)\n    if ", 1)
"""The same, and its tool takes 400 MiB."""
COMMAND = [sys.executable, str(Path(__file__).parent / "server.py")]


@pytest.mark.parametrize("revision", ["auto", "2025-11-25"])
async def test_tools_over_http_work_in_both_revisions(http_url: str, revision: Any) -> None:
    spec = McpServerSpec(url=http_url, revision=revision, tools={"add": McpToolSpec(tool_class=ToolClass.READ_ONLY)})
    async with connected(spec) as found:
        assert not found.server.problem
        add = found.tools["fix__add"]
        assert add.tool_class == ToolClass.READ_ONLY
        assert found.tools["fix__work"].tool_class == ToolClass.UNSAFE  # whatever the server says about it
        assert add.spec.description == "Add two numbers."
        assert set(add.spec.parameters["properties"]) == {"a", "b"}
        result = await found.call("add", a=2, b=3)
        assert (result.content, result.artifact, result.status) == (
            "5",
            {"structured_content": {"result": 5}},
            "success",
        )

        media = await found.call("media")
        assert media.content == [
            {"type": "text", "text": "here:"},
            {"type": "image", "base64": fixture.PIXEL, "mime_type": "image/png"},
            {"type": "text", "text": "[audio: audio/wav, 4 bytes]"},
        ]
        (sound,) = media.artifact["content"]
        assert sound["data"] == fixture.SOUND

        events: list[dict[str, object]] = []
        fixture.metas.clear()
        span = SpanContext(trace_id=0xA, span_id=0xB, is_remote=False, trace_flags=TraceFlags(1))
        with use_span(NonRecordingSpan(span)):  # as the recorder of tool calls enters it
            assert (await found.call("work", context_of(events), steps=3)).content == "worked"
        assert fixture.metas[0]["traceparent"] == f"00-{0xA:032x}-{0xB:016x}-01"
        shown = [(event["progress"], event["total"], event["message"]) for event in events]
        assert shown[0] == (1, 3, "step 1")
        assert shown[-1] == (3, 3, "step 3")  # what comes in between faster than people read may be dropped
        assert events[0]["tool"] == "fix__work"
        assert fixture.metas[0]["agent-service/idempotency-key"] == "key-1"

        failed = await found.call("broken")
        assert failed.status == "error"
        assert "there are no orders" in failed.content


@pytest.mark.parametrize("revision", ["auto", "2025-11-25"])
async def test_resources_reach_the_model_and_notifications_about_them_cost_nothing(
    http_url: str, revision: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = McpServerSpec(url=http_url, revision=revision, resources=True)
    async with connected(spec) as found:
        lists, list_tools = 0, McpConnection.list_tools

        async def counted(connection: McpConnection) -> list[dict[str, Any]]:
            nonlocal lists
            lists += 1
            return await list_tools(connection)

        monkeypatch.setattr(McpConnection, "list_tools", counted)
        events: list[Any] = []
        result = await found.call("report", context_of(events))
        assert result.content.splitlines() == [
            "[resource notes://tide]",
            "The tide turns at six.",
            "[resource notes://bell: audio/wav, 4 bytes]",
            "[resource harbour at notes://harbour: Its depth.]",
        ]
        sound, link = result.artifact["content"]
        assert (sound["resource"]["blob"], link["uri"]) == (fixture.SOUND, "notes://harbour")
        assert (
            await found.call("read_resource", uri=link["uri"])
        ).content == "[resource notes://harbour]\nNine metres."
        listed = (await found.call("list_resources")).content.splitlines()
        assert listed[0] == "notes://harbour: harbour (text/plain) - The depth of the harbour."
        assert listed[1].startswith("notes://{name}/depth: depth")
        missing = await found.call("read_resource", uri="notes://gone")
        assert (missing.status, "answered with an error" in missing.content) == ("error", True)
        assert (lists, events) == (0, [])

    async with connected(spec, names=("add", "read_resource")) as some:
        assert list(some.tools) == ["fix__read_resource", "fix__add"]
    async with connected(McpServerSpec(url=http_url), names=("read_resource",)) as none:
        assert "does not offer it" in none.server.sources[0].refusal("fix__read_resource")


@pytest.mark.parametrize("revision", ["auto", "2025-11-25"])
async def test_a_cancelled_or_timed_out_call_is_cancelled_at_the_server(http_url: str, revision: Any) -> None:
    async with connected(McpServerSpec(url=http_url, revision=revision)) as found:
        fixture.hanging.clear()
        fixture.cancelled.clear()
        task = asyncio.create_task(found.call("hang"))
        await eventually(lambda: fixture.hanging)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await eventually(lambda: fixture.cancelled)
        assert (await found.call("add", a=1, b=1)).content == "2"  # the connection is as good as before


async def test_a_child_process_has_the_configured_environment_alone_and_is_started_again(tmp_path: Path) -> None:
    spec = McpServerSpec(command=COMMAND, env={"TOKEN": "a-${SECRET}", "PYTHONPATH": str(Path.cwd())}, memory="2GiB")
    values = {"SECRET": "hush"}
    async with connected(spec, lookup=values.get) as found:
        assert not found.server.problem
        seen = msgspec.json.decode((await found.call("environment")).content)
        assert {name: text for name, text in seen.items() if not name.startswith("LC_")} == {
            "TOKEN": "a-hush",
            "PYTHONPATH": str(Path.cwd()),
        }
        ended = await found.call("die", code=3)
        assert ended.status == "error"
        assert "not known: its process ended with code 3: out of luck" in ended.content
        assert (await found.call("add", a=1, b=2)).content == "3"  # by a new process


async def test_a_child_process_has_the_configured_memory_and_no_more() -> None:
    spec = McpServerSpec(command=[sys.executable, "-S", "-c", GREEDY], memory="100MiB", revision="2025-11-25")
    async with connected(spec) as found:
        ended = await found.call("process")
        assert (ended.status, "its process ended with code 1: MemoryError" in ended.content) == ("error", True), ended


async def test_each_user_of_each_tenant_has_a_process_of_their_own() -> None:
    tenants = [f"00000000-0000-0000-0000-00000000000{number}" for number in (1, 2)]
    callers = [(tenants[0], "ann"), (tenants[0], "bob"), (tenants[1], "ann"), (tenants[0], "ann")]
    spec = McpServerSpec(command=[sys.executable, "-S", "-c", TINY], scope="user", revision="2025-11-25")
    async with connected(spec) as found:
        contexts = [context_of(tenant_id=tenant, configurable={AUTH_USER_ID: user}) for tenant, user in callers]
        results = await asyncio.gather(*(found.call("process", context) for context in contexts))
        pids = [result.content for result in results]
        assert len(set(pids)) == 3
        assert pids[0] == pids[3]


async def test_a_server_that_cannot_work_is_named_with_its_reason() -> None:
    script = "import sys; print('no licence', file=sys.stderr); sys.exit(4)"
    async with connected(McpServerSpec(command=[sys.executable, "-c", script])) as found:
        assert found.server.problem == "its process ended with code 4: no licence"
    async with connected(McpServerSpec(command=["no-such-program"])) as found:
        assert "the program 'no-such-program' is not found" in found.server.problem
    async with connected(McpServerSpec(url="http://127.0.0.1:9/mcp", headers={"A": "${GONE}"})) as found:
        assert "the variable GONE is not set: set it, or GONE_FILE" in found.server.problem
    async with connected(McpServerSpec(url="http://127.0.0.1:9/mcp")) as found:
        assert "refused" in found.server.problem.lower()
    async with connected(McpServerSpec(url="http://10.1.2.3/mcp")) as found:
        assert "10.1.2.3 is not a public address; AGENT_EGRESS_ALLOW can allow it" in found.server.problem


@pytest.mark.parametrize("name", ["a__b", "a_"])
def test_a_name_under_which_tools_of_another_server_could_be_called_is_refused(tmp_path: Path, name: str) -> None:
    file = tmp_path / "agents.toml"
    file.write_text(f'[mcp.a]\nurl = "https://a.example"\n[mcp.{name}]\nurl = "https://b.example"\n')
    with pytest.raises(
        StartError, match=rf"agents\.toml, line 3: mcp\.{name}: a name may not contain __ or end with _"
    ):
        read(str(file))
