"""Another agent as a tool: its calls are tasks that survive crashes of this process, and end with the call."""

import asyncio
import contextlib
from typing import Any

from app.agents.a2a.content import result_of, words_of
from app.agents.a2a.peer_task import PeerTask, find_task
from app.agents.a2a.peers import A2APeer
from app.agents.tools.port import SAFE_TO_REPEAT, ToolClass, ToolContext, ToolResult
from app.agents.tools.remote import (
    CANCEL_SECONDS,
    FIRST_PAUSE,
    MAX_PAUSE,
    MAX_TIMEOUT,
    LostConnection,
    ServerAway,
    ServerError,
    failed,
)
from app.infra.wires.a2a import Message, Task
from app.providers.llm.port import ToolSpec

ATTEMPTS = 3
"""How often a message is sent that did not reach the agent."""
LOOKUP_SECONDS = 20.0

PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "message": {"type": "string", "minLength": 1, "description": "What the agent shall do or answer, in words."},
        "data": {"description": "Data for the agent in addition, any JSON."},
    },
    "required": ["message"],
    "additionalProperties": False,
}

_LOST = (ServerAway, LostConnection, ServerError)
_ENDS = {
    "TASK_STATE_FAILED": "failed",
    "TASK_STATE_REJECTED": "rejected the task",
    "TASK_STATE_CANCELED": "cancelled the task",
    "TASK_STATE_AUTH_REQUIRED": "needs an authorization that it cannot get by this call",
}


class A2ATool:
    """The agent ``peer`` as a tool (``app.agents.tools.port.Tool``)."""

    is_agent = True

    def __init__(self, peer: A2APeer) -> None:
        self._peer = peer
        self._found: dict[str, str] = {}
        self.tool_class = peer.spec.tool_class
        self.timeout: float = MAX_TIMEOUT  # ``call`` has the timeout: it can still cancel the agent's task

    @property
    def spec(self) -> ToolSpec:
        """The tool as a model sees it, with the description of the agent's card as it is now."""
        return ToolSpec(name=self._peer.name, description=self._peer.description, parameters=PARAMETERS)

    async def call(self, args: dict[str, Any], context: ToolContext) -> ToolResult:
        """Run a task of the agent; its errors, and its being unreachable, are results for the model."""
        task = PeerTask(self._peer, self._peer.name, context, self._found.pop(context.idempotency_key, ""))
        seconds = self._peer.spec.timeout
        try:
            async with asyncio.timeout(seconds):
                return await self._attempts(task, args)
        except TimeoutError:
            await self._cancel(task)
            return failed(f"The agent {self._peer.name} took longer than {seconds:g} s.")
        except asyncio.CancelledError:
            if context.cancelled():  # not if another process continues the run and the task
                await self._cancel(task)
            raise

    async def lookup(self, key: str) -> ToolResult | None:
        """Find the task that the call began, which the next call continues; return None.

        Raises as ``A2AClient`` if the agent cannot list its tasks.
        """
        pause = FIRST_PAUSE
        async with asyncio.timeout(LOOKUP_SECONDS):
            while True:
                try:
                    if found := await find_task(self._peer, key):
                        self._found[key] = found
                    return None
                except (ServerAway, LostConnection):
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, MAX_PAUSE)

    async def _attempts(self, task: PeerTask, args: dict[str, Any]) -> ToolResult:
        attempt, pause = 0, FIRST_PAUSE
        while True:
            attempt += 1
            try:
                return await self._ended(task, await task.run(args))
            except ServerError as error:
                return failed(f"The agent {self._peer.name} answered with an error: {error}")
            except LostConnection as error:
                if not await self._may_go_on(task):
                    return failed(f"The connection was lost and whether the call took effect is not known: {error}")
                reason = str(error)
            except ServerAway as error:
                reason = str(error)
            if attempt >= ATTEMPTS and not task.id:
                return failed(f"The agent {self._peer.name} cannot be reached: {reason}")
            await asyncio.sleep(pause)
            pause = min(2 * pause, MAX_PAUSE)

    async def _may_go_on(self, task: PeerTask) -> bool:
        """Whether the task is known, or its message may be sent once more."""
        if task.id or self.tool_class in SAFE_TO_REPEAT:
            return True
        if self.tool_class is not ToolClass.RECONCILABLE:
            return False
        try:
            await task.find()
        except _LOST:
            return False
        return True

    async def _ended(self, task: PeerTask, answer: Task | Message) -> ToolResult:
        if isinstance(answer, Message) or answer.status.state == "TASK_STATE_COMPLETED":
            return result_of(answer)
        if answer.status.state == "TASK_STATE_AUTH_REQUIRED":
            await self._cancel(task)
        words = words_of(answer.status.message) or "it gave no reason"
        return failed(f"The agent {self._peer.name} {_ENDS[answer.status.state]}: {words}")

    async def _cancel(self, task: PeerTask) -> None:
        with contextlib.suppress(*_LOST, TimeoutError):
            async with asyncio.timeout(CANCEL_SECONDS):
                await task.cancel()
