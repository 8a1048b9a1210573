"""Subgraphs, and tools that are other agents, as sub-agents: https://docs.ag-ui.com/concepts/subagents

A call of a tool is an invocation under the call's id, from the call to its result, in whichever run that comes. The
namespace of a subgraph is the id of its invocation: it is the same when a later run continues it. Events of what it
says carry the id. It has finished when the step that called it is committed.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from app.protocols.parts import ToolResult, text_in

_encode = msgspec.json.Encoder().encode

SEPARATOR = "|"


class Subagents:
    """The sub-agents that are at work in a run, and which messages are theirs."""

    def __init__(self) -> None:
        self._open: dict[str, None] = {}
        self._calls: dict[str, None] = {}
        self._owners: dict[str, str] = {}
        self._tails: dict[str, bytes] = {}

    def begin(self, namespace: str, message_id: str | None = None) -> Iterator[dict[str, Any]]:
        """Return the events that begin what has not begun of a path of subgraphs; ``message_id`` is its message."""
        if message_id is not None and message_id not in self._owners:
            self._owners[message_id] = namespace
            self._tails[message_id] = b',"subagentRunId":%b' % _encode(namespace)
        if namespace in self._open:
            return
        path = namespace.split(SEPARATOR)
        for depth in range(1, len(path) + 1):
            invocation, parent = SEPARATOR.join(path[:depth]), SEPARATOR.join(path[: depth - 1])
            if invocation not in self._open:
                self._open[invocation] = None
                started = {
                    "type": "SUBAGENT_STARTED",
                    "subagentRunId": invocation,
                    "name": path[depth - 1].split(":")[0],
                }
                yield started | ({"parentSubagentRunId": parent} if parent else {})

    def owner_of(self, message_id: str) -> str | None:
        """Return the subgraph that says a message; None if the agent itself does."""
        return self._owners.get(message_id)

    def tail_of(self, message_id: str) -> bytes:
        """Return the last member of an event of a message as JSON: its subgraph; empty if the agent itself says it."""
        return self._tails.get(message_id, b"") if self._tails else b""

    def call(self, name: str, call_id: str, message_id: str) -> dict[str, Any]:
        """Return the event that begins the call of an agent."""
        self._calls[call_id] = None
        parents = {"parentToolCallId": call_id, "parentMessageId": message_id}
        return {"type": "SUBAGENT_STARTED", "subagentRunId": call_id, "name": name, **parents}

    def returned(self, result: ToolResult) -> Iterator[dict[str, Any]]:
        """Yield the events of the ``result`` of an agent; an earlier run may have called it."""
        call_id = result.call_id
        if call_id not in self._calls:
            yield {
                "type": "SUBAGENT_STARTED",
                "subagentRunId": call_id,
                "name": result.name,
                "parentToolCallId": call_id,
            }
        self._calls.pop(call_id, None)
        if result.failed:
            yield {
                "type": "SUBAGENT_ERROR",
                "subagentRunId": call_id,
                "message": text_in(result.content) or "It failed.",
            }
        else:
            yield {"type": "SUBAGENT_FINISHED", "subagentRunId": call_id, "outcome": {"type": "success"}}

    def finish(self) -> Iterator[dict[str, Any]]:
        """Return the events that end all subgraphs: their step is committed."""
        for invocation in reversed(self._open):
            yield {"type": "SUBAGENT_FINISHED", "subagentRunId": invocation, "outcome": {"type": "success"}}
        self._open.clear()

    def suspend(self, questions: Sequence[dict[str, Any]] = ()) -> Iterator[dict[str, Any]]:
        """Return the events that suspend all of them: until ``questions`` are answered, or their step runs again."""
        asked = {"interruptIds": [question["id"] for question in questions]} if questions else {}
        yield from self._end({"type": "SUBAGENT_FINISHED", "outcome": {"type": "suspended", **asked}})

    def fail(self, message: str, code: str) -> Iterator[dict[str, Any]]:
        """Return the events that end all of them with the run."""
        yield from self._end({"type": "SUBAGENT_ERROR", "message": message, "code": code})

    def _end(self, event: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for invocation in (*reversed(self._open), *self._calls):
            yield {**event, "subagentRunId": invocation}
        self._open.clear()
        self._calls.clear()
