"""Every protocol refuses in its own shape, whatever is wrong."""

import time
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

import httpx
import msgspec
import pytest
from litestar import Request

from app.infra.http.problems import _shape_of
from app.infra.telemetry.labels import PROTOCOL
from app.server.asgi import litestar
from tests.database import age
from tests.protocols.ag_ui_streams import run_input, user
from tests.system.services import Service, built, opened, serving

MCP = "2026-07-28"


class Asked(NamedTuple):
    """A request that starts a run."""

    path: str
    body: Any
    headers: dict[str, str] = {}  # noqa: RUF012  never changed


def chat(agent: str, thread: str) -> Asked:
    body = {"model": agent, "messages": [{"role": "user", "content": "x"}]}
    return Asked("/v1/chat/completions", body, {"x-chat-id": thread})


def responses(agent: str, thread: str) -> Asked:
    conversation = f"conv_{uuid.UUID(thread).hex}"
    return Asked("/v1/responses", {"model": agent, "input": "x", "conversation": conversation})


def ai_sdk(agent: str, thread: str) -> Asked:
    message = {"id": "u", "role": "user", "parts": [{"type": "text", "text": "x"}]}
    return Asked(f"/ai-sdk/{agent}/chat", {"id": thread, "messages": [message]})


def ag_ui(agent: str, thread: str) -> Asked:
    return Asked(f"/ag-ui/{agent}", run_input(thread, user("x")))


def copilotkit(agent: str, thread: str) -> Asked:
    return Asked(f"/copilotkit/agent/{agent}/run", run_input(thread, user("x")))


def _message(thread: str) -> Any:
    sent = {"messageId": uuid.uuid4().hex, "role": "ROLE_USER", "parts": [{"text": "x"}], "contextId": thread}
    return {"message": sent}


def a2a_rpc(agent: str, thread: str) -> Asked:
    body = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": _message(thread)}
    return Asked(f"/a2a/{agent}", body, {"a2a-version": "1.0"})


def a2a_http(agent: str, thread: str) -> Asked:
    return Asked(f"/a2a/{agent}/message:send", _message(thread), {"a2a-version": "1.0"})


def mcp(agent: str, thread: str) -> Asked:
    meta = {"io.modelcontextprotocol/protocolVersion": MCP, "io.modelcontextprotocol/clientCapabilities": {}}
    call = {"name": agent, "arguments": {"input": "x", "thread_id": thread}, "_meta": meta}
    headers = {"MCP-Protocol-Version": MCP, "Mcp-Method": "tools/call", "Mcp-Name": agent}
    return Asked("/mcp", {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}, headers)


def langgraph_v2(agent: str, thread: str) -> Asked:
    params = {"assistant_id": agent, "input": {"messages": ["x"]}}
    return Asked(f"/api/v1/threads/{thread}/commands", {"id": 1, "method": "run.start", "params": params})


def of_openai(error: Any) -> Any:
    assert error.keys() == {"error"}
    assert error["error"].keys() == {"message", "type", "param", "code"}
    return error["error"]["type"]


def of_problem(error: Any) -> Any:
    assert error.keys() >= {"type", "title", "status", "detail", "instance", "request_id"}
    return error["title"]


def of_ag_ui(error: Any) -> Any:
    assert error.keys() == {"type", "message", "code"}
    assert error["type"] == "RUN_ERROR"
    return error["code"]


def of_copilotkit(error: Any) -> Any:
    assert error.keys() == {"error", "message"}
    return error["error"]


def of_a2a_rpc(error: Any) -> Any:
    assert error.keys() == {"jsonrpc", "id", "error"}
    assert error["error"].keys() == {"code", "message", "data"}
    return error["error"]["code"], error["error"]["data"][-1]["reason"]


def of_a2a_http(error: Any) -> Any:
    assert error.keys() == {"error"}
    assert error["error"].keys() == {"code", "status", "message", "details"}
    return error["error"]["status"]


def of_mcp(error: Any) -> Any:
    assert error.keys() == {"jsonrpc", "id", "error"}
    return error["error"]["code"]


def of_langgraph_v2(error: Any) -> Any:
    if error["type"] != "error":  # before the command is read, as on all routes of LangGraph's API
        return of_problem(error)
    assert error.keys() == {"type", "id", "error", "message"}
    return error["error"]


class Wire(NamedTuple):
    """How a protocol starts a run, reads its own errors, and names each: status and kind."""

    ask: Callable[[str, str], Asked]
    read: Callable[[Any], Any]
    unknown: tuple[int, Any]
    malformed: tuple[int, Any]
    not_json: tuple[int, Any]
    wrong: tuple[int, Any]
    limited: tuple[int, Any]


_INVALID, _RATE = "invalid_request_error", "rate_limit_error"
_OPENAI = ((404, "not_found_error"), (400, _INVALID), (415, _INVALID), (400, _INVALID), (429, _RATE))
_PROBLEMS = ((422, "Unprocessable content"), (415, "Unsupported media type"), (422, "Unprocessable content"))
_BUSY = (429, "Too many requests")
_CODES = (
    (404, "not_found"),
    (422, "invalid_input"),
    (415, "wrong_type"),
    (422, "invalid_input"),
    (429, "rate_limited"),
)

WIRES = {
    "openai.chat": Wire(chat, of_openai, *_OPENAI),
    "openai.responses": Wire(responses, of_openai, *_OPENAI),
    "ai-sdk": Wire(ai_sdk, of_problem, (422, "Unprocessable content"), *_PROBLEMS, _BUSY),
    "ag-ui": Wire(ag_ui, of_ag_ui, *_CODES),
    "copilotkit": Wire(copilotkit, of_copilotkit, *_CODES),
    "a2a": Wire(
        a2a_rpc,
        of_a2a_rpc,
        unknown=(200, (-32000, "NOT_FOUND")),
        malformed=(200, (-32700, "INVALID_ARGUMENT")),
        not_json=(415, (-32005, "CONTENT_TYPE_NOT_SUPPORTED")),
        wrong=(200, (-32600, "INVALID_ARGUMENT")),
        limited=(200, (-32000, "RESOURCE_EXHAUSTED")),
    ),
    "a2a over HTTP": Wire(
        a2a_http,
        of_a2a_http,
        unknown=(404, "NOT_FOUND"),
        malformed=(400, "INVALID_ARGUMENT"),
        not_json=(415, "INVALID_ARGUMENT"),
        wrong=(400, "INVALID_ARGUMENT"),
        limited=(429, "RESOURCE_EXHAUSTED"),
    ),
    "mcp": Wire(mcp, of_mcp, (200, -32602), (400, -32700), (415, -32600), (400, -32600), (429, -32600)),
    "langgraph.v2": Wire(langgraph_v2, of_langgraph_v2, (200, "invalid_argument"), *_PROBLEMS, _BUSY),
}

WORDS = {
    "unknown": "echo",
    "malformed": "Invalid JSON in request body",
    "not_json": "Send the body as application/json, not as text/csv.",
    "wrong": "The body must be an object, not an array.",
    "limited": "This key may start 1 runs a minute",
    "over budget": "This tenant has used its 1 tokens per minute",
}
"""What each refusal says, on every wire; an unknown agent: which there are."""

SECRET = "the word is swordfish"


@pytest.fixture
async def service(database_url: str) -> AsyncIterator[Service]:
    """A service with a limit of runs, which agents with a model reach after that of tokens."""
    limits = {"AGENT_RATE_PER_MINUTE": "1", "AGENT_TOKENS_PER_MINUTE": "1"}
    async with opened(built(database_url, AGENT_AUTH="api_key", **limits)) as service:
        yield service


async def sent(
    service: Service, asked: Asked, key: str = "", content: bytes | None = None, given: dict[str, str] | None = None
) -> httpx.Response:
    headers = {"content-type": "application/json", **asked.headers, **(given or {}), "x-api-key": key}
    body = msgspec.json.encode(asked.body) if content is None else content
    return await service.client.post(asked.path, content=body, headers=headers)


async def test_each_protocol_refuses_in_its_own_shape_and_is_counted(service: Service) -> None:
    tenant = f"tenant {uuid.uuid4()}"
    spent = await service.key(tenant)
    thread = str(uuid.uuid4())
    await sent(service, langgraph_v2("echo", thread), spent)
    for name, wire in WIRES.items():
        known, unknown, costly = (wire.ask(agent, thread) for agent in ("echo", "unknown", "assistant"))
        whole = msgspec.json.encode(known.body)
        answers = {
            "unknown": await sent(service, unknown, await service.key(tenant)),
            "malformed": await sent(service, known, await service.key(tenant), whole[:-3]),
            "not_json": await sent(service, known, await service.key(tenant), given={"content-type": "text/csv"}),
            "wrong": await sent(service, known, await service.key(tenant), b"[]"),
            "limited": await sent(service, known, spent),
            "over budget": await sent(service, costly, await service.key(tenant)),
        }
        for case, answer in answers.items():
            expected = wire.limited if case == "over budget" else getattr(wire, case)
            assert (answer.status_code, wire.read(answer.json())) == expected, (name, case, answer.text)
            assert (WORDS[case] in answer.text) or (name, case) == ("mcp", "unknown"), (name, case, answer.text)
            assert "UNSET" not in answer.text
            assert ("retry-after" in answer.headers) == (expected is wire.limited), (name, case)
    key = {"x-api-key": await service.key(tenant)}
    assert (await service.client.get("/v1/conversations/conv_1", headers=key)).status_code == 404
    assert (await service.client.post("/mcp/admin", json=mcp("echo", thread).body, headers=key)).status_code == 404
    counted = {protocol for protocol, _ in service.services.telemetry.meters.protocol_requests.series}
    assert counted == {*PROTOCOL.values}


async def test_a_thread_of_another_tenant_is_not_there_on_any_wire(database_url: str) -> None:
    async with serving(database_url, AGENT_AUTH="api_key") as service:
        for name, wire in WIRES.items():
            other, own = f"tenant {uuid.uuid4()}", f"tenant {uuid.uuid4()}"
            thread, key = str(uuid.uuid4()), {"x-api-key": await service.key(other)}
            await service.client.post("/api/v1/threads", json={"thread_id": thread}, headers=key)
            run = {"assistant_id": "echo", "input": {"messages": [{"role": "user", "content": SECRET}]}}
            answer = await service.client.post(f"/api/v1/threads/{thread}/runs/wait", json=run, headers=key)
            assert SECRET in answer.text
            before = (await service.client.get(f"/api/v1/threads/{thread}", headers=key)).json()
            assert SECRET in str(before["values"])
            answer = await sent(service, wire.ask("echo", thread), await service.key(own))
            assert SECRET not in answer.text, name
            assert (await service.client.get(f"/api/v1/threads/{thread}", headers=key)).json() == before
            if name == "openai.responses":  # others take the id for a new conversation of their own
                assert (answer.status_code, of_openai(answer.json())) == (404, "not_found_error")


async def test_a_stream_that_cannot_resume_says_so(database_url: str) -> None:
    gone = {"responses": "invalid_request_error", "ag_ui": "gone", "copilotkit": "gone"}
    async with serving(database_url, AGENT_AUTH="none") as service:
        for wire, read in ((responses, of_openai), (ag_ui, of_ag_ui), (copilotkit, of_copilotkit)):
            thread = str(uuid.uuid4())
            await service.client.post("/api/v1/threads", json={"thread_id": thread})
            asked = wire("echo", thread)
            assert (await sent(service, asked)).status_code == 200
            (run,) = (await service.get(f"/threads/{thread}/runs")).json()
            await age(database_url, run["run_id"])
            if wire is responses:
                path = f"/v1/responses/resp_{uuid.UUID(run['run_id']).hex}"
                answer = await service.client.get(path, params={"stream": "true", "starting_after": 1})
            else:
                answer = await sent(service, asked, given={"last-event-id": f"{run['run_id']}:1"})
            assert (answer.status_code, read(answer.json())) == (410, gone[wire.__name__])


async def test_a_path_or_a_method_that_no_route_has_is_refused_in_the_shape_of_its_protocol(database_url: str) -> None:
    unknown = {
        "/v1/embeddings": of_openai,
        "/v1": of_openai,
        "/a2a/echo/no/such": of_a2a_http,
        "/ag-ui/echo/no/such": of_ag_ui,
        "/copilotkit/no/such/thing/here": of_copilotkit,
        "/mcp/no/such/thing": of_mcp,
        "/ai-sdk/no": of_problem,
        "/api/v1/no": of_problem,
        "/no": of_problem,
    }
    wrong = {"/v1/models": of_openai, "/ag-ui/echo": of_ag_ui, "/a2a/echo": of_a2a_rpc, "/api/v1/threads": of_problem}
    async with serving(database_url, AGENT_AUTH="none") as service:
        for paths, method, status in ((unknown, "POST", 404), (wrong, "PUT", 405)):
            for path, read in paths.items():
                answer = await service.client.request(method, path, json={})
                assert answer.status_code == status, (path, answer.text)
                read(answer.json())


def test_the_nearest_route_of_an_unmatched_path_is_found_at_once(database_url: str) -> None:
    """A client that asks for paths that do not exist costs no more than others: all routes were looked through."""
    app = litestar(built(database_url))
    paths = [f"/{one}/unknown-{n}" for one in ("api/v1/threads/x", "v1/x", "a2a/x/y", "x") for n in range(500)]
    scopes: list[Any] = [{"type": "http", "path": path, "litestar_app": app} for path in paths]
    requests = [Request[Any, Any, Any](scope) for scope in scopes]
    _shape_of(requests[0])
    began = time.thread_time()
    shapes = [_shape_of(request) for request in requests]
    assert time.thread_time() - began < 0.1  # 50 microseconds each
    assert len(set(shapes)) > 2
    assert shapes[-1] is None
