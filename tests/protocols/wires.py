"""How each wire starts a run: data for tests of what holds on all of them."""

import json
import uuid
from collections.abc import Callable
from typing import Any, NamedTuple

import httpx

MCP_META = "io.modelcontextprotocol/"


class Sent(NamedTuple):
    """A request: its path, its body, and headers besides those of authentication."""

    path: str
    body: dict[str, Any]
    headers: dict[str, str] = {}  # noqa: RUF012  never changed


Start = Callable[[str, str, str, str], Sent]
"""Makes the request that starts a run: of an agent, on a thread, with a text, under a key that repeats it."""


class Wire(NamedTuple):
    """A wire. ``protocol``: its label in metrics and traces, "" for LangGraph's own API.

    ``errors_in_body``: their HTTP status is 200, as in JSON-RPC.
    """

    protocol: str
    start: Start
    errors_in_body: bool = False

    def status(self, of_http: int) -> int:
        """Return the status of an error that has ``of_http`` on other wires."""
        return 200 if self.errors_in_body else of_http


def _v1(agent: str, thread: str, text: str, key: str) -> Sent:
    given = {"messages": [{"role": "user", "content": text}]}
    body = {"assistant_id": agent, "input": given, "if_not_exists": "create"}
    return Sent(f"/api/v1/threads/{thread}/runs/wait", body, {"Idempotency-Key": key})


def _v2(agent: str, thread: str, text: str, key: str) -> Sent:
    given = {"messages": [{"role": "user", "content": text}]}
    body = {"id": 1, "method": "run.start", "params": {"assistant_id": agent, "input": given}}
    return Sent(f"/api/v1/threads/{thread}/commands", body, {"Idempotency-Key": key})


def _chat(agent: str, thread: str, text: str, key: str) -> Sent:
    body = {"model": agent, "messages": [{"role": "user", "content": text}]}
    return Sent("/v1/chat/completions", body, {"X-Chat-Id": thread, "Idempotency-Key": key})


def _responses(agent: str, thread: str, text: str, key: str) -> Sent:
    body = {"model": agent, "input": text}
    return Sent("/v1/responses", body, {"X-Chat-Id": thread, "Idempotency-Key": key})


def _ai_sdk(agent: str, thread: str, text: str, key: str) -> Sent:
    said = {"id": f"m-{key}", "role": "user", "parts": [{"type": "text", "text": text}]}
    return Sent(f"/ai-sdk/{agent}/chat", {"id": thread, "messages": [said]}, {"Idempotency-Key": key})


def _ag_ui_input(thread: str, text: str, key: str) -> dict[str, Any]:
    said = {"id": f"m-{key}", "role": "user", "content": text}
    given: dict[str, Any] = {"state": {}, "tools": [], "context": [], "forwardedProps": {}}
    return {"threadId": thread, "runId": key, "protocolVersion": "1.0", "messages": [said], **given}


def _ag_ui(agent: str, thread: str, text: str, key: str) -> Sent:
    return Sent(f"/ag-ui/{agent}", _ag_ui_input(thread, text, key))


def _copilotkit(agent: str, thread: str, text: str, key: str) -> Sent:
    return Sent(f"/copilotkit/agent/{agent}/run", _ag_ui_input(thread, text, key))


def _message(thread: str, text: str, key: str) -> dict[str, Any]:
    message = {"messageId": key, "contextId": thread, "role": "ROLE_USER", "parts": [{"text": text}]}
    return {"message": message}


def _a2a_rpc(agent: str, thread: str, text: str, key: str) -> Sent:
    body = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": _message(thread, text, key)}
    return Sent(f"/a2a/{agent}", body, {"A2A-Version": "1.0"})


def _a2a_http(agent: str, thread: str, text: str, key: str) -> Sent:
    return Sent(f"/a2a/{agent}/message:send", _message(thread, text, key), {"A2A-Version": "1.0"})


def _mcp(agent: str, thread: str, text: str, key: str) -> Sent:
    meta = {f"{MCP_META}protocolVersion": "2026-07-28", f"{MCP_META}clientCapabilities": {}}
    params = {"name": agent, "arguments": {"input": text, "thread_id": thread}, "_meta": meta}
    headers = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": agent}
    accept = {"Accept": "application/json, text/event-stream", "Idempotency-Key": key}
    return Sent("/mcp", {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}, {**headers, **accept})


WIRES = {
    "v1": Wire("", _v1),
    "v2": Wire("langgraph.v2", _v2),
    "chat": Wire("openai.chat", _chat),
    "responses": Wire("openai.responses", _responses),
    "ai_sdk": Wire("ai-sdk", _ai_sdk),
    "ag_ui": Wire("ag-ui", _ag_ui),
    "copilotkit": Wire("copilotkit", _copilotkit),
    "a2a_rpc": Wire("a2a", _a2a_rpc, errors_in_body=True),
    "a2a_http": Wire("a2a", _a2a_http),
    "mcp": Wire("mcp", _mcp),
}


def new_id() -> str:
    """Return the id of a new thread, or a new key."""
    return str(uuid.uuid4())


def events_in(answer: httpx.Response) -> list[Any]:
    """Return the JSON of a stream's events, or the whole answer's as one."""
    if not answer.headers["content-type"].startswith("text/event-stream"):
        return [answer.json()] if answer.content else []
    lines = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def is_refused(answer: httpx.Response) -> bool:
    """Whether an answer says no, in the shape of its wire."""
    if answer.status_code >= 400:
        return True
    last = (events_in(answer) or [{}])[-1]
    kind, result = last.get("type"), last.get("result")
    in_result = isinstance(result, dict) and result.get("isError") is True
    return kind in {"RUN_ERROR", "error"} or last.get("error") is not None or in_result
