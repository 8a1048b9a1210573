"""The client of MCP's conformance suite: connects as a server process does, and calls every tool that it finds.

Usage, by the suite: python -m tests.suites.mcp_client URL. Arguments come from the scenario's context, else from the
tool's schema (what is required of it); every question is answered as briefly as its form allows. One scenario wants the
schema of a tool sent back as the model would see it.
"""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import msgspec

from app.agents.mcp.pins import FirstSeen
from app.agents.mcp.servers import Connector, McpServers
from app.agents.mcp.spec import McpServerSpec, OAuthSpec, shown_name
from app.agents.testing import FakeRunContext
from app.agents.tool_loop.calls import Toolbox
from app.agents.tool_loop.conversation import PendingCalls
from app.domain.messages import ToolCall
from app.infra.egress.addresses import AddressAllowlist

EXAMPLES: dict[str, Any] = {"number": 1, "integer": 1, "boolean": True, "string": "a", "array": [], "object": {}}
MAX_ANSWERS = 10
CLIENT_METADATA = "https://conformance-test.local/client-metadata.json"
"""The address that the suite expects of clients which have a client id metadata document."""
PUBLIC_URL = "http://127.0.0.1:8000"
FIRST = FirstSeen()
LOOPBACK = AddressAllowlist(["localhost", "127.0.0.1"])


def example(schema: dict[str, Any]) -> Any:
    """Return a value for ``schema``: its default, its first choice, or one of its type."""
    for name in ("default", "const"):
        if name in schema:
            return schema[name]
    if schema.get("enum"):
        return schema["enum"][0]
    if schema.get("type") == "object":
        return {name: example(inner) for name, inner in schema.get("properties", {}).items()}
    return EXAMPLES.get(str(schema.get("type")), "a")


async def main(url: str) -> None:
    """Call the tools of the server at ``url``."""
    context = msgspec.json.decode(os.environ.get("MCP_CONFORMANCE_CONTEXT") or "{}")
    signs_in = os.environ.get("MCP_CONFORMANCE_SCENARIO", "").startswith("auth/")
    oauth = OAuthSpec(
        client_id=context.get("client_id", ""),
        client_secret=context.get("client_secret", ""),
        client_metadata_url=CLIENT_METADATA,
    )
    spec = McpServerSpec(url=url, attempts=1, timeout=20, scope="tenant", oauth=oauth if signs_in else None)
    servers = McpServers({"suite": spec}, Connector(Path.cwd(), lambda _: None, LOOPBACK, public_url=PUBLIC_URL), FIRST)
    source = servers.source("agent", "suite", ("*",))
    server = servers.get("suite")
    try:
        if not await server.probe():
            sys.exit(f"the server is not usable: {server.problem}")
        wanted = [(one["name"], one.get("arguments", {})) for one in context.get("toolCalls", [])]
        if signs_in:
            await call(Toolbox([], lambda *_: None, sources=[source]), shown_name("suite", "sign_in"), {}, servers)
        usable = {tool.spec.name: tool.spec.parameters for tool in source.tools()}
        called = {name for name, _ in wanted}
        listed = list((await FIRST.known("agent", "suite") if signs_in else server.listed).tools)
        for name, args in [*wanted, *((name, None) for name in listed if name not in called)]:
            shown = shown_name("suite", name)
            if shown not in usable:
                continue
            given = arguments_of(usable[shown]) if args is None else args
            if name == "json_schema_echo":
                given = {"schema": usable[shown_name("suite", "json_schema_2020_12_tool")]}
            # a null that a schema does not allow is not sent, as no argument that is wrong
            sent = {key: value for key, value in given.items() if value is not None}
            await call(Toolbox([], lambda *_: None, sources=[source]), shown, sent, servers)
    finally:
        await servers.aclose()


def arguments_of(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments that ``schema`` requires and has no default for."""
    properties = {name: schema.get("properties", {}).get(name, {}) for name in schema.get("required", [])}
    return {name: example(field) for name, field in properties.items() if "default" not in field}


async def sign_in(servers: McpServers, url: str) -> None:
    """Sign in as a person does whose browser follows ``url``: the suite's authorization server consents at once."""
    async with httpx.AsyncClient() as browser:
        sent_to = (await browser.get(url)).headers["Location"]
    given = dict(parse_qsl(urlsplit(sent_to).query))
    account = await servers.pending(given["state"])
    assert account is not None
    await servers.finish_sign_in(account, given["code"], given.get("iss"))


async def call(toolbox: Toolbox, name: str, args: dict[str, Any], servers: McpServers) -> None:
    """Make one call to its end."""
    context = FakeRunContext()
    pending = PendingCalls("m", [ToolCall(name=name, args=args, id="call_1")])
    for _ in range(MAX_ANSWERS):
        results = await toolbox.run(pending, context)
        for question in results.interrupts:
            if question.value["type"] == "auth_required":
                await sign_in(servers, question.value["url"])
            asked = question.value.get("requested_schema")
            content = {} if asked is None else {"content": arguments_of(asked)}
            context.answers[question.id] = {"action": "accept", **content}
        if not results.interrupts:
            sys.stdout.write(f"{name}: {results.messages[0].content}\n")
            return


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
