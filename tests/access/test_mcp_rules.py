"""What messages to ``/mcp`` may do: scopes, rates, tenants, web pages, and how refusals name the issuer."""

from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import jsonschema_rs
import msgspec

from app.domain.events import Ended, StepCommitted
from app.protocols.mcp.results import ResultCollector
from app.security.access.structs import READ, ROLES
from tests.system.services import API, Service, serving

ISSUER = "https://login.example.com"
META = "io.modelcontextprotocol/"
TASKS: dict[str, Any] = {"extensions": {f"{META}tasks": {}}}
NAMED = {"tools/call": "name", "tasks/get": "taskId", "tasks/update": "taskId", "tasks/cancel": "taskId"}
NAMED |= {"resources/read": "uri", "prompts/get": "name"}


async def send(
    service: Service, key: str, method: str, *, origin: str = "", path: str = "/mcp", tasks: bool = True, **params: Any
) -> httpx.Response:
    meta = {f"{META}protocolVersion": "2026-07-28", f"{META}clientCapabilities": TASKS if tasks else {}}
    sent = {"x-api-key": key, "MCP-Protocol-Version": "2026-07-28", "Mcp-Method": method}
    if origin:
        sent["Origin"] = origin
    if method in NAMED:
        sent["Mcp-Name"] = params[NAMED[method]]
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": meta}}
    return await service.client.post(path, json=body, headers=sent)


async def test_rights_rates_tenants_and_pages(database_url: str) -> None:
    async with serving(database_url, AGENT_RATE_PER_MINUTE="2") as service:
        reader, member = await service.key("mcp", READ), await service.key("mcp", *ROLES["member"])
        stranger = await service.key("mcp other", *ROLES["member"])
        call: dict[str, Any] = {"name": "echo", "arguments": {"input": "hi"}}
        assert (await send(service, reader, "tools/list")).status_code == 200
        assert (await send(service, reader, "tools/call", **call)).status_code == 403

        made = (await send(service, member, "tools/call", **call)).json()["result"]
        task: dict[str, Any] = {"taskId": made["taskId"]}
        for method in ("tasks/get", "tasks/update"):
            assert (await send(service, reader, method, **task)).status_code == 200
            refused = await send(service, stranger, method, **task)
            assert refused.json()["error"]["code"] == -32602, method
        assert (await send(service, reader, "tasks/cancel", **task)).status_code == 403
        unknown: dict[str, Any] = {"taskId": f"{UUID(int=7).hex}.{UUID(int=7).hex}"}
        assert (await send(service, stranger, "tasks/get", **unknown)).json()["error"]["code"] == -32602

        assert (await send(service, member, "tools/call", **call)).status_code == 200
        limited = await send(service, member, "tools/call", **call)
        assert (limited.status_code, "retry-after" in limited.headers) == (429, True)
        assert (await send(service, member, "tools/list")).status_code == 200  # lists start no runs

        for origin, status in (("http://evil.example", 403), ("http://localhost", 200), ("http://127.0.0.1:3", 200)):
            answer = await send(service, member, "tools/list", origin=origin)
            assert answer.status_code == status, origin
        audit = service.services.persistence.audit
        await audit.flush()
        entries = (await service.get("/audit", await service.key("mcp", *ROLES["operator"]))).json()
        refusals = [one["count"] for one in entries if one["action"] == "request.forbidden"]
        assert sum(refusals) == 2
        anonymous = await service.client.post("/mcp", json={})
        assert (anonymous.status_code, anonymous.headers["www-authenticate"]) == (401, "Bearer")
        assert anonymous.json()["error"]["message"].startswith("An API key is needed")
        assert (await service.client.get("/.well-known/oauth-protected-resource")).status_code == 404


async def test_a_refusal_names_the_metadata_and_that_the_issuer(database_url: str) -> None:
    tokens: dict[str, Any] = {"AGENT_AUTH": "jwt", "AGENT_JWT_ISSUER": ISSUER, "AGENT_JWT_AUDIENCE": "us"}
    async with serving(database_url, **tokens, ROOT_PATH="/agents") as service:
        refused = await service.client.post("/agents/mcp/echo", json={})
        named = "http://localhost/agents/.well-known/oauth-protected-resource/mcp/echo"
        assert refused.headers["www-authenticate"] == f'Bearer resource_metadata="{named}"'
        found = (await service.client.get("/.well-known/oauth-protected-resource/mcp/echo")).json()
        assert (found["resource"], found["authorization_servers"]) == ("http://localhost/agents/mcp/echo", [ISSUER])


def said_in(answer: httpx.Response) -> Any:
    """Return the text of a tool's result, from JSON or from the end of a stream."""
    lines = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
    result = msgspec.json.decode(lines[-1] if lines else answer.content)["result"]
    text = result["content"][0]["text"]
    return text if result["isError"] or lines else msgspec.json.decode(text)


async def test_operators_operate_the_server_by_tools(database_url: str) -> None:
    async with serving(database_url, AGENT_MCP_ADMIN="on") as service:
        member = await service.key("mcp admin", *ROLES["member"])
        operator = await service.key("mcp admin", *ROLES["operator"])
        stranger = await service.key("mcp admin other", *ROLES["operator"])
        assert (await send(service, member, "tools/list", path="/mcp/admin")).status_code == 403

        async def call(tool: str, key: str = operator, **arguments: Any) -> Any:
            return said_in(await send(service, key, "tools/call", path="/mcp/admin", name=tool, arguments=arguments))

        tools = (await send(service, operator, "tools/list", path="/mcp/admin")).json()["result"]["tools"]
        assert {tool["name"] for tool in tools if not tool["annotations"]["readOnlyHint"]} == {
            "start_run",
            "cancel_run",
            "answer_question",
        }
        assert "assistant" in {agent["name"] for agent in await call("list_agents")}
        run = await call("start_run", agent="echo", input="hello")
        assert await call("follow_run", **run) == "echo: hello"
        read = await call("read_run", **run)
        assert (read["status"], read["events"][0]["type"], read["events"][-1]["status"]) == (
            "success",
            "started",
            "success",
        )
        assert (await call("search_threads", status="idle"))["threads"][0]["thread_id"] == run["thread_id"]
        assert [one["run_id"] for one in (await call("search_runs", agent="echo"))["runs"]] == [run["run_id"]]
        assert (await call("read_thread", thread_id=run["thread_id"]))["status"] == "idle"
        assert "not found" in await call("read_thread", stranger, thread_id=run["thread_id"])
        assert "not found" in await call("follow_run", stranger, **run)
        assert "Invalid arguments" in await call("start_run", agent="echo")
        assert "409" not in await call("answer_question", thread_id=run["thread_id"], answers={"x": 1})
        pages = (await send(service, operator, "resources/list", path="/mcp/admin")).json()["result"]["resources"]
        assert {"docs://llms.txt", "docs://how-to/mcp.md"} <= {page["uri"] for page in pages}
        page = await send(service, operator, "resources/read", path="/mcp/admin", uri="docs://how-to/mcp.md")
        assert page.json()["result"]["contents"][0]["text"].startswith("# Offer agents over MCP")
        outside = await send(service, operator, "resources/read", path="/mcp/admin", uri="docs://../pyproject.toml")
        assert outside.json()["error"]["code"] == -32602
    async with serving(database_url) as service:
        key = await service.key("mcp admin", *ROLES["admin"])
        off = await send(service, key, "tools/list", path="/mcp/admin")
        assert "AGENT_MCP_ADMIN" in off.json()["error"]["message"]


async def test_threads_documents_and_the_store_are_resources_of_their_tenant(database_url: str) -> None:
    async with serving(database_url) as service:
        owner, stranger = await service.key("mcp own", *ROLES["member"]), await service.key("mcp own not", READ)
        headers = {"x-api-key": owner}
        item = {"namespace": ["notes", "ann"], "key": "a b", "value": {"text": "tea"}}
        assert (await service.client.put(f"{API}/store/items", json=item, headers=headers)).status_code < 300
        thread = (await service.client.post(f"{API}/threads", json={}, headers=headers)).json()["thread_id"]
        templates = (await send(service, owner, "resources/templates/list")).json()["result"]
        assert [one["name"] for one in templates["resourceTemplates"]] == ["threads", "documents", "store"]
        assert templates["cacheScope"] == "private"
        for uri, said in ((f"agent://threads/{thread}", thread), ("agent://store/notes.ann/a%20b", "tea")):
            read = (await send(service, owner, "resources/read", uri=uri)).json()["result"]
            assert said in read["contents"][0]["text"]
            assert (read["ttlMs"], read["cacheScope"]) == (0, "private")
            refused = (await send(service, stranger, "resources/read", uri=uri)).json()["error"]
            assert (refused["code"], refused["data"]) == (-32602, {"uri": uri})
        for uri in ("agent://threads/x", "agent://documents/" + thread, "agent://nothing/1", "file:///etc/passwd"):
            assert (await send(service, owner, "resources/read", uri=uri)).json()["error"]["code"] == -32602

        async def completed(reference: dict[str, str], argument: str, typed: str, key: str = owner) -> list[str]:
            wanted: dict[str, Any] = {"ref": reference, "argument": {"name": argument, "value": typed}}
            answer = await send(service, key, "completion/complete", **wanted)
            return list(answer.json()["result"]["completion"]["values"])

        threads = {"type": "ref/resource", "uri": "agent://threads/{thread_id}"}
        assert await completed(threads, "thread_id", thread[:8]) == [thread]
        assert await completed(threads, "thread_id", "", stranger) == []
        store = {"type": "ref/resource", "uri": "agent://store/{namespace}/{key}"}
        assert await completed(store, "namespace", "no") == ["notes.ann"]
        prompts = (await send(service, owner, "prompts/list")).json()["result"]["prompts"]
        assert [prompt["name"] for prompt in prompts] == ["assistant"]
        got = (await send(service, owner, "prompts/get", name="assistant", arguments={"input": "hi"})).json()["result"]
        assert [message["content"]["text"][:9] for message in got["messages"]] == ["You are a", "hi"]
        assert (await send(service, owner, "prompts/get", name="echo")).json()["error"]["code"] == -32602


TYPED = """
from typing import TypedDict

from app.agents.function import Context


class Order(TypedDict):
    number: int
    items: list[str]


class Total(TypedDict):
    cents: int
    order: Order


async def total(context: Context, order: Order) -> Total:
    return {"cents": 100 * len(order["items"]), "order": order}
"""


async def test_typed_agents_have_schemas_and_structured_content(database_url: str, tmp_path: Path) -> None:
    (tmp_path / "typed.py").write_text(TYPED)
    (tmp_path / "agents.toml").write_text('[agents.total]\nfunction = "./typed.py:total"\n')
    async with serving(database_url, AGENT_CONFIG=str(tmp_path / "agents.toml")) as service:
        key = await service.key("mcp typed", *ROLES["member"])
        tools = (await send(service, key, "tools/list")).json()["result"]["tools"]
        (tool,) = [one for one in tools if one["name"] == "total"]
        for schema in ("inputSchema", "outputSchema"):
            jsonschema_rs.meta.validate(tool[schema])
        order = {"number": 7, "items": ["tea", "cup"]}
        assert jsonschema_rs.is_valid(tool["inputSchema"], {"input": order})
        assert not jsonschema_rs.is_valid(tool["inputSchema"], {"input": {"number": "x"}})
        call: dict[str, Any] = {"name": "total", "arguments": {"input": order}}
        answer = await send(service, key, "tools/call", tasks=False, **call)
        result = msgspec.json.decode(answer.text.split("data: ")[-1])["result"]
        assert result["structuredContent"] == {"cents": 200, "order": order}
        assert jsonschema_rs.is_valid(tool["outputSchema"], result["structuredContent"])
        assert msgspec.json.decode(result["content"][0]["text"]) == result["structuredContent"]
        wrong: dict[str, Any] = {"name": "total", "arguments": {"input": {"number": "x"}}}
        refused = await send(service, key, "tools/call", tasks=False, **wrong)
        assert refused.json()["result"]["isError"]
        unknown = await send(service, key, "tools/call", name="nothing", arguments={})
        assert unknown.json()["error"]["code"] == -32602


def test_content_blocks_of_a_message_are_content() -> None:
    blocks = [
        "So",
        {"type": "text", "text": "look"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
        {"type": "image_url", "image_url": "https://example.com/a.png"},
        {"type": "audio", "base64": "AA==", "mime_type": "audio/mp3"},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,AA==", "filename": "a.pdf"}},
        {"type": "reasoning", "reasoning": "hidden"},
    ]
    message = {"type": "ai", "id": "m", "content": blocks}
    collector = ResultCollector(structured=False)
    update = msgspec.Raw(msgspec.json.encode({"agent": {"messages": [message]}}))
    for event in (StepCommitted(1, "c", update, "agent"), Ended("r", "success")):
        list(collector.add(event))
    assert collector.result({})["content"] == [
        {"type": "text", "text": "So"},
        {"type": "text", "text": "look"},
        {"type": "image", "data": "AA==", "mimeType": "image/png"},
        {"type": "resource_link", "uri": "https://example.com/a.png", "name": "image"},
        {"type": "audio", "data": "AA==", "mimeType": "audio/mp3"},
        {"type": "resource", "resource": {"uri": "file:///a.pdf", "mimeType": "application/pdf", "blob": "AA=="}},
    ]
