"""Servers that lie, flood, hang, or point elsewhere cost their own calls alone."""

import asyncio
import contextlib
import gzip
import json
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from app.agents.mcp import http_transport
from app.agents.mcp.spec import McpServerSpec, McpToolSpec
from tests.mcp_tools.conftest import Connected, connected, context_of, serving_http
from tests.ports import free_port

GOOD = {"name": "good", "description": "Work.", "inputSchema": {"type": "object"}}
DISCOVERED = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, "ttlMs": 0, "cacheScope": "private"}

COSTLY = {
    "type": "object",
    "$ref": "#/$defs/n0",
    "$defs": {f"n{i}": {"anyOf": [{"$ref": f"#/$defs/n{i + 1}"}] * 2} for i in range(20)} | {"n20": {"type": "null"}},
}


class HostileServer:
    """Does to a call of a tool what the tool's name says; ``listed`` is what it lists, page by page."""

    def __init__(self) -> None:
        self.tools: list[dict[str, Any]] = [{**GOOD, "name": name} for name in (*ATTACKS, "shapes", "good")]
        self.endless = False
        self.elsewhere = ""
        self.app = Starlette(routes=[Route("/mcp", self._serve, methods=["POST", "GET", "DELETE"])])

    async def _serve(self, request: Request) -> Response:
        if request.method != "POST":
            return Response(status_code=405)
        message = await request.json()
        if message["method"] == "tools/call":
            return self._attack(message["params"]["name"], message["id"])
        found: dict[str, Any] = DISCOVERED
        if message["method"] == "tools/list":
            found = {"tools": self.tools, "ttlMs": 0, "cacheScope": "private"}
            if self.endless:
                found["nextCursor"] = "more"
        return JSONResponse({"jsonrpc": "2.0", "id": message["id"], "result": {"resultType": "complete", **found}})

    def _attack(self, name: str, id_: int) -> Response:
        match name:
            case "huge":
                return JSONResponse(_answer(id_, "x" * 3_000_000))
            case "huge_event":
                return _stream(f"data: {json.dumps(_answer(id_, 'x' * 3_000_000))}\n\n")
            case "endless":
                return StreamingResponse(_progress(id_), media_type="text/event-stream")
            case "silent":
                return StreamingResponse(_silence(), media_type="text/event-stream")
            case "wrong_id":
                return JSONResponse(_answer(id_ + 1_000, "of another call"))
            case "redirect":
                return RedirectResponse(self.elsewhere, 307)
            case "no_json":
                return Response("<html>", media_type="text/html")
            case "bomb":
                body = gzip.compress(json.dumps(_answer(id_, "x" * 3_000_000)).encode())
                return Response(body, media_type="application/json", headers={"Content-Encoding": "gzip"})
            case "cut":
                return Response('{"jsonrpc": "2.0"', media_type="application/json", headers={"Content-Length": "900"})
            case "shapes":
                content = [{"type": "image", "data": "%%", "mimeType": "image/png"}, {"type": "resource"}, 7]
                return JSONResponse({**_answer(id_, ""), "result": {"resultType": "complete", "content": content}})
        return JSONResponse(_answer(id_, "good"))


ATTACKS = {
    "huge": "more than 1000000 bytes",
    "huge_event": "SSE stream",
    "endless": "The tool took longer than",
    "silent": "The tool took longer than",
    "wrong_id": "The tool took longer than",
    "redirect": "not followed",
    "no_json": "Unexpected content type",
    "bomb": "a compressed body, which was not asked for",
    "cut": "not known",
}
"""What a server may do, and what the model reads of it."""


def _answer(id_: int, text: str) -> dict[str, Any]:
    content = [{"type": "text", "text": text}]
    return {"jsonrpc": "2.0", "id": id_, "result": {"resultType": "complete", "content": content}}


def _stream(text: str) -> StreamingResponse:
    return StreamingResponse(iter([text]), media_type="text/event-stream")


async def _progress(id_: int) -> AsyncIterator[str]:
    for step in range(1_000_000):
        params = {"progressToken": id_, "progress": step, "message": "y" * 10_000}
        yield f"data: {json.dumps({'jsonrpc': '2.0', 'method': 'notifications/progress', 'params': params})}\n\n"
        await asyncio.sleep(0.001)


async def _silence() -> AsyncIterator[str]:
    yield ": still here\n\n"
    await asyncio.sleep(30)


@pytest.fixture
def hostile() -> Iterator[tuple[HostileServer, str]]:
    server = HostileServer()
    with serving_http(server.app) as base:
        yield server, f"{base}/mcp"


@pytest.fixture
def nobody_calls() -> Iterator[str]:
    """The address of a service of the operator's network, which must see no connection."""
    with socket.create_server(("127.0.0.2", free_port())) as listening:
        listening.setblocking(False)
        yield f"http://127.0.0.2:{listening.getsockname()[1]}/admin"
        with pytest.raises(BlockingIOError):
            listening.accept()


async def test_every_attack_costs_its_own_call_alone(
    hostile: tuple[HostileServer, str], nobody_calls: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_transport, "MAX_MESSAGE_BYTES", 1_000_000)
    monkeypatch.setattr("app.agents.mcp.connection.MAX_MESSAGE_BYTES", 1_000_000)
    server, url = hostile
    server.elsewhere = nobody_calls
    events: list[Any] = []
    quick = McpToolSpec(timeout=1.0)
    waits = {name: quick for name, words in ATTACKS.items() if "took longer" in words}
    async with connected(McpServerSpec(url=url, tools=waits)) as found:
        attacks = [_attacked(found, name, events) for name in ATTACKS]
        others = [found.call("good") for _ in range(5)]
        results = await asyncio.gather(*attacks, *others)
        assert [result.content for result in results[len(attacks) :]] == ["good"] * 5
        for (name, words), result in zip(ATTACKS.items(), results, strict=False):
            assert result.status == "error", name
            assert words in result.content, (name, result.content)
            assert len(result.content) < 1_000
        assert 1 <= len(events) <= 30  # of hundreds of reports of progress
        assert all(len(event["message"]) == 500 for event in events)
        shapes = (await found.call("shapes")).content
        assert shapes == "[image: its data is not valid base64]\n[resource : of unknown type, 0 bytes]"
        assert (await found.call("good")).content == "good"


async def _attacked(found: Connected, name: str, events: list[Any]) -> Any:
    return await found.call(name, context_of(events if name == "endless" else None))


async def test_a_hostile_list_of_tools_stops_what_is_wrong_in_it(hostile: tuple[HostileServer, str]) -> None:
    server, url = hostile
    server.tools = [
        GOOD,
        {**GOOD, "name": "novel", "description": "z" * 10_000},
        {
            **GOOD,
            "name": "remote",
            "inputSchema": {"type": "object", "properties": {"a": {"$ref": "http://10.0.0.1/"}}},
        },
        {**GOOD, "name": "costly", "inputSchema": COSTLY},
        {**GOOD, "name": "costly_result", "outputSchema": COSTLY},
        {**GOOD, "name": "wide", "inputSchema": {"type": "object", "description": "w" * 70_000}},
        {**GOOD, "name": "a.b/" + "c" * 100},
    ]
    async with connected(McpServerSpec(url=url)) as found:
        assert sorted(name for name in found.tools if len(name) < 64) == ["fix__good"]
        (long,) = [name for name in found.tools if len(name) == 64]
        assert long.startswith("fix__a_b_ccc")
        (source,) = found.server.sources
        assert "10000 characters" in source.refusal("fix__novel")
        assert "refers to nothing in the schema" in source.refusal("fix__remote")
        for name in ("fix__costly", "fix__costly_result"):
            assert "takes too long to check" in source.refusal(name)
        assert "larger than 65536 bytes" in source.refusal("fix__wide")
    server.endless = True
    with contextlib.suppress(TimeoutError):
        async with connected(McpServerSpec(url=url)) as found:
            assert "its list of tools has more than" in found.server.problem
