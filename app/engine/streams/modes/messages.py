"""Stream mode ``messages``: for each chunk, the whole message so far. Parses incomplete JSON arguments."""

from typing import Any

import msgspec

from app.base.json_scan import UNREADABLE_JSON
from app.domain.events import Event, MessageAdded, MessageDelta, RunStarted
from app.domain.messages import AIMessage, ToolCall
from app.domain.state import Values
from app.engine.streams.modes.view import ViewFrame

REREAD = 4096
"""Length of arguments up to which they are parsed with every chunk; longer ones after each growth by an eighth."""


def read_partial(text: str) -> dict[str, Any]:
    """Parse the object that ``text`` begins; empty while it cannot be parsed.

    Open brackets and strings are closed: partial strings and nested values are kept, a member without a value is
    dropped.
    """
    for end in _ends(text):
        try:
            found = msgspec.json.decode(end)
        except UNREADABLE_JSON:
            continue
        return found if isinstance(found, dict) else {}
    return {}


def _ends(text: str) -> list[str]:
    """Return ways to complete ``text``, the one that keeps most first."""
    open_: list[str] = []
    in_string = escaped = False
    last_member = 0
    for index, character in enumerate(text):
        if in_string:
            if escaped:
                escaped = False
            elif character == "\\":
                escaped = True
            elif character == '"':
                in_string = False
        elif character == '"':
            in_string = True
        elif character in "{[":
            open_.append(character)
            last_member = index + 1
        elif character == ",":
            last_member = index
        elif character in "}]" and open_:
            open_.pop()
    closing = "".join("}" if bracket == "{" else "]" for bracket in reversed(open_))
    shorter = text[:last_member] + closing
    if in_string:
        whole = text[:-1] if escaped else text
        return [whole + '"' + closing, shorter]
    trimmed = text.rstrip()
    return [trimmed + closing, trimmed.rstrip(",") + closing, shorter]


class _Identity(msgspec.Struct):
    id: str | None = None


_identity = msgspec.json.Decoder(_Identity).decode


class PartialMessage:
    """A message while its chunks arrive."""

    def __init__(self) -> None:
        self._text = ""
        self._reasoning = ""
        self._calls: dict[int, dict[str, Any]] = {}

    def add(self, delta: MessageDelta) -> None:
        """Add the next chunk."""
        self._text += delta.text
        self._reasoning += delta.reasoning
        if delta.tool_call is not None:
            call = self._calls.setdefault(
                delta.tool_call["index"], {"id": "", "name": "", "args": "", "length": 0, "read": {}}
            )
            call["id"] = delta.tool_call.get("id") or call["id"]
            call["name"] = delta.tool_call.get("name") or call["name"]
            call["args"] += delta.tool_call.get("args") or ""

    def message(self, message_id: str) -> AIMessage:
        """Return the message so far; incomplete arguments are parsed as far as possible."""
        return AIMessage(
            content=self._text,
            id=message_id,
            additional_kwargs={"reasoning_content": self._reasoning} if self._reasoning else {},
            tool_calls=[
                ToolCall(name=call["name"], args=_read(call), id=call["id"]) for _, call in sorted(self._calls.items())
            ],
        )


def _read(call: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of ``call`` so far; parsing long ones with every chunk would take quadratic time."""
    length = len(call["args"])
    if length <= REREAD or length * 8 >= call["length"] * 9:
        call["read"] = read_partial(call["args"])
        call["length"] = length
    found: dict[str, Any] = call["read"]
    return found


class MessagesView:
    """Emits each message's ``messages/metadata`` once, then ``messages/partial`` or, for a whole one, ``complete``."""

    moves = False

    def __init__(self) -> None:
        self._run: dict[str, Any] = {}
        self._growing: dict[str, PartialMessage] = {}

    def wants(self, event: Event) -> bool:
        """Whether it is a message."""
        return isinstance(event, MessageDelta | MessageAdded)

    def needs_values(self, event: Event) -> bool:
        """Return False."""
        return False

    def render(self, event: Event, values: Values) -> list[ViewFrame]:
        """Return the frames of ``event``."""
        if isinstance(event, MessageDelta):
            return self._delta(event)
        if isinstance(event, MessageAdded):
            message_id = _identity(event.message).id or ""
            whole = ViewFrame("messages", "messages/complete", [event.message])
            return [self._metadata(message_id, event), whole]
        if isinstance(event, RunStarted):
            self._run = {"run_id": event.run_id, "thread_id": event.thread_id, "graph_id": event.agent}
        return []

    def _delta(self, event: MessageDelta) -> list[ViewFrame]:
        pieces = []
        growing = self._growing.get(event.message_id)
        if growing is None:
            growing = self._growing[event.message_id] = PartialMessage()
            pieces.append(self._metadata(event.message_id, event))
        growing.add(event)
        pieces.append(ViewFrame("messages", "messages/partial", [growing.message(event.message_id)]))
        if event.last:
            del self._growing[event.message_id]
        return pieces

    def _metadata(self, message_id: str, event: MessageDelta | MessageAdded) -> ViewFrame:
        where = {**self._run, "langgraph_node": event.node, "langgraph_step": event.step}
        if event.metadata:
            where |= msgspec.json.decode(event.metadata)
        return ViewFrame("messages", "messages/metadata", {message_id: {"metadata": where}})
