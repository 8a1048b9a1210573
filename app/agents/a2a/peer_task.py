"""One call to its end, as a task of another agent: followed, cancelled, and its questions answered by people.

The ids of the message and of its context are those of the call. So after a crash, the task that an earlier attempt
began is found in that context; the task's own id is stored as soon as it is known.
"""

import asyncio
import hashlib
from collections.abc import Mapping
from typing import Any, TypeVar
from uuid import UUID, uuid5

import msgspec

from app.agents.a2a.content import data_of, words_of
from app.agents.a2a.peers import A2APeer
from app.agents.tools.port import ToolContext
from app.agents.tools.remote import ServerError
from app.infra.wires.a2a import Message, Part, SendMessageResult, Task, TaskPage

FIRST_POLL_SECONDS = 0.2
MAX_POLL_SECONDS = 5.0
"""Seconds between requests for a task's state; half as long again each time, reset when its state changes."""
MAX_QUESTIONS = 16
MAX_QUESTION_BYTES = 64 * 1024
MAX_ID_LENGTH = 1024

ENDED = frozenset({"TASK_STATE_COMPLETED", "TASK_STATE_FAILED", "TASK_STATE_CANCELED", "TASK_STATE_REJECTED"})
GIVEN_UP = "TASK_STATE_AUTH_REQUIRED"
"""Only people at the agent can authorize the task, so that the call ends here."""

Wire = TypeVar("Wire")

_encode = msgspec.json.Encoder(order="sorted").encode


def context_id_of(key: str) -> str:
    """Return the id of the context for the call with the idempotency ``key``."""
    return f"call-{key}"


async def find_task(peer: A2APeer, key: str) -> str:
    """Return the id of the task that the call ``key`` began; empty if it began none. Raises as ``A2AClient``."""
    context_id = context_id_of(key)
    page = _read(await peer.call("ListTasks", {"contextId": context_id, "pageSize": 10}), TaskPage)
    return next((_id(task.id) for task in reversed(page.tasks) if task.context_id == context_id), "")


class PeerTask:
    """The task of ``peer`` for one call; ``id`` is empty until it is known. ``tool``: the tool's name for models."""

    def __init__(self, peer: A2APeer, tool: str, context: ToolContext, found: str = "") -> None:
        kept: Mapping[str, Any] = context.kept if isinstance(context.kept, dict) else {}
        self.id = str(kept.get("task") or found)
        self._kept = bool(kept)
        self._questions = int(kept.get("questions", 0))
        self._peer = peer
        self._tool = tool
        self._context = context
        self._reported: Any = None

    async def run(self, args: Mapping[str, Any]) -> Task | Message:
        """Return the ended task, or the message that answered without one. Raises ``NeedsAnswer``, as ``A2AClient``."""
        parts = [Part(text=args["message"])]
        if "data" in args:
            parts.append(Part(data=args["data"]))
        key = self._context.idempotency_key
        answer: Task | Message
        answer = await self._get() if self.id else await self._send(parts, key, context_id_of(key), "")
        pause = FIRST_POLL_SECONDS
        while isinstance(answer, Task) and answer.status.state not in ENDED and answer.status.state != GIVEN_UP:
            self.id = _id(answer.id)
            if not self._kept:
                await self._keep()
            if answer.status.state == "TASK_STATE_INPUT_REQUIRED":
                answer, pause = await self._answer(answer), FIRST_POLL_SECONDS
                continue
            if self._report(answer):
                pause = FIRST_POLL_SECONDS
            await asyncio.sleep(pause)
            pause = min(1.5 * pause, MAX_POLL_SECONDS)
            answer = await self._get()
        if isinstance(answer, Task):
            self.id = _id(answer.id)
        return answer

    async def find(self) -> None:
        """Find the task if the call began one whose id was not received. Raises as ``A2AClient``."""
        self.id = self.id or await find_task(self._peer, self._context.idempotency_key)

    async def cancel(self) -> None:
        """Cancel the task at the agent. Raises as ``A2AClient``."""
        await self.find()
        if self.id:
            await self._peer.call("CancelTask", {"id": self.id})

    async def _get(self) -> Task:
        return _read(await self._peer.call("GetTask", {"id": self.id, "historyLength": 0}), Task)

    async def _send(self, parts: list[Part], message_id: str, context_id: str, task_id: str) -> Task | Message:
        message = Message(
            message_id=message_id, role="ROLE_USER", parts=parts, context_id=context_id, task_id=task_id or None
        )
        params = {
            "message": msgspec.to_builtins(message),
            "configuration": {"returnImmediately": True, "historyLength": 0},
        }
        result = _read(await self._peer.call("SendMessage", params), SendMessageResult)
        answer = result.task or result.message
        if answer is None:
            raise ServerError("its answer is neither a task nor a message")
        return answer

    async def _answer(self, task: Task) -> Task | Message:
        """Send a person's answer to what the task asks. Raises ``NeedsAnswer``."""
        if self._questions >= MAX_QUESTIONS:
            raise ServerError(f"it asked {MAX_QUESTIONS} times in one call")
        asked = task.status.message
        encoded = _encode(asked)
        if len(encoded) > MAX_QUESTION_BYTES:
            raise ServerError(f"its question has more than {MAX_QUESTION_BYTES} bytes")
        value: dict[str, Any] = {
            "type": "a2a_question",
            "agent": self._peer.name,
            "tool": self._tool,
            "call_id": self._context.call_id,
            "message": words_of(asked),
        }
        if data := data_of(asked):
            value["data"] = data
        name = f"a2a {self.id} {self._questions} {hashlib.blake2b(encoded, digest_size=16).hexdigest()}"
        given = self._context.interrupt(value, None, name)
        part = Part(text=given) if isinstance(given, str) else Part(data=given)
        message_id = str(uuid5(UUID(int=0), f"{self._context.idempotency_key} {name}"))  # the same for each attempt
        answer = await self._send([part], message_id, task.context_id, self.id)
        self._questions += 1
        await self._keep()
        return answer

    def _report(self, task: Task) -> bool:
        """Emit the task's state if it has changed; return whether it has."""
        state, words = task.status.state, words_of(task.status.message)
        if (state, words) == self._reported:
            return False
        self._reported = state, words
        value = {
            "type": "a2a_progress",
            "tool": self._tool,
            "call_id": self._context.call_id,
            "state": state.removeprefix("TASK_STATE_").lower(),
        }
        self._context.emit({**value, "message": words} if words else value)
        return True

    async def _keep(self) -> None:
        self._kept = True
        await self._context.keep({"task": self.id, "questions": self._questions})


def _read(result: Any, kind: type[Wire]) -> Wire:
    """Return a result as a struct. Raises ``ServerError`` if it does not follow the protocol."""
    try:
        return msgspec.convert(result, kind)
    except msgspec.ValidationError as error:
        raise ServerError(f"its answer does not follow the protocol: {str(error)[:300]}") from None


def _id(text: str) -> str:
    if not 0 < len(text) <= MAX_ID_LENGTH:
        raise ServerError("its task has no valid id")
    return text
