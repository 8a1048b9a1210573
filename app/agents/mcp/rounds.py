"""One call of a tool to its end: questions to people in between, and tasks that outlive a request.

What identifies the work at the server is stored before anything else happens, so that another process, after a
crash or an answer, continues it instead of calling again. Sources: multi-round-trip requests (SEP-2322) and the
tasks extension (SEP-2663).
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from app.agents.mcp.elicitation import answers_to
from app.agents.mcp.port import Connection, OnProgress
from app.agents.tools.port import ToolContext
from app.agents.tools.remote import ServerError

MAX_ROUNDS = 16
"""How often a server may ask in one call."""
MAX_STATE_LENGTH = 64 * 1024
"""Characters of the state that a server has us carry between two rounds."""
MIN_POLL_SECONDS = 0.1
MAX_POLL_SECONDS = 30.0
DEFAULT_POLL_SECONDS = 1.0


class CallRounds:
    """The rounds of one call of ``tool`` at ``server``; ``shown`` is its name for models."""

    def __init__(self, server: str, tool: str, shown: str, context: ToolContext) -> None:
        self._server = server
        self._tool = tool
        self._shown = shown
        self._context = context
        self._asked = 0
        self._kept: dict[str, Any] = context.kept if isinstance(context.kept, dict) else {}

    @property
    def is_task(self) -> bool:
        """Whether the call continues as a task, which can be asked about again at any time."""
        return bool(self._kept.get("task"))

    async def run(
        self, connection: Connection, args: Mapping[str, Any], meta: Mapping[str, Any], on_progress: OnProgress
    ) -> dict[str, Any]:
        """Return the call's result. Raises ``NeedsAnswer``, and as ``Connection``."""
        while not self.is_task:
            given = self._continuation()
            self._asked = 0
            raw = await connection.call_tool(self._tool, args, meta, on_progress, self._on_question, given)
            kind = raw.get("resultType", "complete")
            if kind == "input_required":
                await self._pause(raw)
            elif kind == "task":
                await self._keep({"task": _text(raw, "taskId"), "round": self._kept.get("round", 0)})
            else:
                return raw
        return await self._follow(connection)

    def _continuation(self) -> dict[str, Any]:
        """Return what the next request of this call carries. Raises ``NeedsAnswer``."""
        given: dict[str, Any] = {}
        if asked := self._kept.get("asked"):
            given["inputResponses"] = self._answers(asked, f"round {self._kept['round']}")
        if (state := self._kept.get("state")) is not None:
            given["requestState"] = state
        return given

    async def _pause(self, raw: Mapping[str, Any]) -> None:
        """Keep the server's questions and state; wait a moment if it has none."""
        number = int(self._kept.get("round", 0)) + 1
        if number > MAX_ROUNDS:
            raise ServerError(f"it asked {MAX_ROUNDS} times in one call")
        state, asked = raw.get("requestState"), raw.get("inputRequests") or {}
        if not isinstance(asked, Mapping) or not (state is None or isinstance(state, str)):
            raise ServerError("its questions do not follow the protocol")
        if state is not None and len(state) > MAX_STATE_LENGTH:
            raise ServerError(f"the state of its call has more than {MAX_STATE_LENGTH} characters")
        kept = {"round": number, "asked": asked, "state": state}
        if asked:
            await self._keep(kept)
        else:
            self._kept = kept
            await asyncio.sleep(min(MIN_POLL_SECONDS * number, DEFAULT_POLL_SECONDS))

    async def _follow(self, connection: Connection) -> dict[str, Any]:
        """Ask about the task until it has ended."""
        task = str(self._kept["task"])
        said = ""
        while True:
            found = await connection.task("tasks/get", {"taskId": task})
            status, asked = found.get("status"), found.get("inputRequests")
            if status == "completed" and isinstance(found.get("result"), Mapping):
                return dict(found["result"])
            if status in {"completed", "failed", "cancelled"}:
                raise ServerError(_reason(found))
            if (words := str(found.get("statusMessage") or "")) and words != said:
                said = words
                self._context.emit({"type": "mcp_progress", "tool": self._shown, "message": words[:500]})
            if status == "input_required" and isinstance(asked, Mapping) and asked:
                answers = self._answers(asked, "task")
                await connection.task("tasks/update", {"taskId": task, "inputResponses": answers})
            await asyncio.sleep(_pause_of(found))

    async def cancel(self, connection: Connection) -> None:
        """Cancel the task at the server."""
        await connection.task("tasks/cancel", {"taskId": str(self._kept["task"])})

    def _on_question(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Answer a question that the server asks during the call: the call starts over once there is an answer."""
        self._asked += 1
        answer: Mapping[str, Any] = self._answers({"": request}, f"question {self._asked}")[""]
        return answer

    def _answers(self, asked: Mapping[str, Any], part: str) -> dict[str, Any]:
        return answers_to(asked, self._server, self._shown, part, self._context)

    async def _keep(self, value: dict[str, Any]) -> None:
        self._kept = value
        await self._context.keep(value)


def _text(raw: Mapping[str, Any], name: str) -> str:
    value = raw.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= 1024:
        raise ServerError(f"its task has no valid {name}")
    return value


def _pause_of(found: Mapping[str, Any]) -> float:
    asked = found.get("pollIntervalMs")
    seconds = asked / 1000 if isinstance(asked, int | float) else DEFAULT_POLL_SECONDS
    return min(max(seconds, MIN_POLL_SECONDS), MAX_POLL_SECONDS)


def _reason(found: Mapping[str, Any]) -> str:
    error = found.get("error")
    said = error.get("message") if isinstance(error, Mapping) else found.get("statusMessage")
    return f"the task ended as {found.get('status')}: {str(said or 'no reason was given')[:1000]}"
