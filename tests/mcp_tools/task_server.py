"""A server whose tool is a task (extension io.modelcontextprotocol/tasks): it goes on without its caller."""

import itertools
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

TIMES = {"createdAt": "2026-11-01T00:00:00Z", "lastUpdatedAt": "2026-11-01T00:00:00Z", "ttlMs": None}
QUESTION = {
    "method": "elicitation/create",
    "params": {
        "message": "Really?",
        "requestedSchema": {"type": "object", "properties": {"sure": {"type": "boolean"}}, "required": ["sure"]},
    },
}


class TaskServer:
    """``calls``, ``requests`` (method, Mcp-Name) and ``cancelled`` are what it has seen; tests set ``status``."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.requests: list[tuple[str, str | None]] = []
        self.cancelled: list[str] = []
        self.answers: list[Any] = []
        self.status = "working"
        self.fail = False
        self.failed = 0
        self._ids = itertools.count(1)
        self.app = Starlette(routes=[Route("/mcp", self._serve, methods=["POST"])])

    async def _serve(self, request: Request) -> JSONResponse:
        message = await request.json()
        method, params = message["method"], message.get("params", {})
        self.requests.append((method, request.headers.get("mcp-name")))
        if self.fail:
            self.failed += 1
            return JSONResponse({"detail": "away"}, 503)
        result = {"resultType": "complete", **self._result(method, params)}
        return JSONResponse({"jsonrpc": "2.0", "id": message["id"], "result": result})

    def _result(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        match method:
            case "server/discover":
                capabilities: dict[str, Any] = {"tools": {}, "extensions": {"io.modelcontextprotocol/tasks": {}}}
                cached = {"ttlMs": 0, "cacheScope": "private"}
                return {"supportedVersions": ["2026-07-28"], "capabilities": capabilities, **cached}
            case "tools/list":
                tool = {"name": "build", "description": "Build it.", "inputSchema": {"type": "object"}}
                return {"tools": [tool], "ttlMs": 0, "cacheScope": "private"}
            case "tools/call":
                self.calls.append(params)
                return {"resultType": "task", "taskId": f"task-{next(self._ids)}", "status": "working", **TIMES}
            case "tasks/cancel":
                self.cancelled.append(params["taskId"])
                return {}
            case "tasks/update":
                self.answers.append(params["inputResponses"])
                self.status = "completed"
                return {}
        task = {"taskId": params["taskId"], "status": self.status, "pollIntervalMs": 10, **TIMES}
        if self.status == "completed":
            task["result"] = {"content": [{"type": "text", "text": f"built by {params['taskId']}"}]}
        if self.status == "input_required":
            task["inputRequests"] = {"sure": QUESTION}
        return task
