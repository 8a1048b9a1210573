"""What messages to ``/mcp`` may do: scopes, rates, tenants, web pages, and how refusals name the issuer."""

from typing import Any
from uuid import UUID

import httpx

from app.security.access.structs import READ, ROLES
from tests.system.services import Service, serving

ISSUER = "https://login.example.com"
META = "io.modelcontextprotocol/"
TASKS: dict[str, Any] = {"extensions": {f"{META}tasks": {}}}
NAMED = {"tools/call": "name", "tasks/get": "taskId", "tasks/update": "taskId", "tasks/cancel": "taskId"}


async def send(service: Service, key: str, method: str, *, origin: str = "", **params: Any) -> httpx.Response:
    meta = {f"{META}protocolVersion": "2026-07-28", f"{META}clientCapabilities": TASKS}
    sent = {"x-api-key": key, "MCP-Protocol-Version": "2026-07-28", "Mcp-Method": method}
    if origin:
        sent["Origin"] = origin
    if method in NAMED:
        sent["Mcp-Name"] = params[NAMED[method]]
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": meta}}
    return await service.client.post("/mcp", json=body, headers=sent)


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
