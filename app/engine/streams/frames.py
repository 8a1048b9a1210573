"""Render a run's events as frames, the bytes of server-sent events, per stream mode.

Identical for live runs and replays from the event log: frames are numbered, so the modes of a run, fixed when it is
created, determine its ids. Framing: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import functools
from collections.abc import Callable, Sequence

from app.domain.events import (
    Custom,
    Ended,
    Event,
    Failed,
    InputApplied,
    Interrupted,
    MessageAdded,
    MessageDelta,
    Retracted,
    RunStarted,
    StepCommitted,
    SubgraphOutput,
)
from app.domain.state import NO_VALUES, Values
from app.engine.streams.feed import AnyFrame, DeferredFrame, Frame
from app.engine.streams.modes.messages import MessagesView
from app.engine.streams.modes.steps import StepsView
from app.engine.streams.modes.trace_events import TracesView
from app.engine.streams.modes.view import StreamView, ViewFrame, encode

MODES = ("values", "updates", "messages", "messages-tuple", "custom", "tasks", "checkpoints", "debug", "events")
"""Stream modes with which a run can be created."""


class FrameRenderer:
    """Renders the events of one run under one owner; ``seq`` is the number of the last frame."""

    def __init__(self, modes: Sequence[str], epoch: int) -> None:
        self._values = "values" in modes
        self._updates = "updates" in modes
        self._messages = "messages-tuple" in modes
        self._custom = "custom" in modes
        self._views = _views(modes)
        self.detailed = bool(self._views)
        self.moves = any(view.moves for view in self._views)
        self.epoch = epoch
        self.seq = 0
        self._subgraphs = False
        self._chunks: dict[str, _ChunkForm] = {}
        self._delta_key: tuple[str, str, int] | None = None
        self._delta_middle = b""
        self._delta_end = b""

    @property
    def shows_updates(self) -> bool:
        """Whether any frame shows the updates of steps."""
        return self._updates or bool(self._views)

    def wants(self, event: Event) -> bool:
        """Whether ``event`` is recorded: all but messages are, as other protocols show them.

        Messages and their chunks are recorded if a stream mode shows them; without, protocols take the messages from
        the step that commits them, so that a large one is stored once.
        """
        if self._messages or not isinstance(event, MessageDelta | MessageAdded):
            return True
        return any(view.wants(event) for view in self._views)

    def needs_values(self, event: Event) -> bool:
        """Whether rendering ``event`` needs the thread's values at its checkpoint."""
        if self._values and isinstance(event, InputApplied | StepCommitted | Interrupted):
            return True
        return bool(self._views) and any(view.needs_values(event) for view in self._views)

    def render(self, event: Event, values: Values = NO_VALUES) -> list[AnyFrame]:
        """Return the frames of ``event``; ``values`` are the thread's at its checkpoint, encoded on demand."""
        if not self._views:
            return self._plain(event, values)
        seen = [piece for view in self._views for piece in view.render(event, values)]
        if isinstance(event, Failed | Ended):  # the final event stays last
            return [*map(self._piece, seen), *self._plain(event, values)]
        return [*self._plain(event, values), *map(self._piece, seen)]

    def _plain(self, event: Event, values: Values) -> list[AnyFrame]:
        match event:
            case MessageDelta():
                return [self._delta(event)] if self._messages else []
            case StepCommitted():
                updates = [self._frame("updates", update) for update in self._updates_in(event)]
                return [*updates, self._of_values(values, values.json)] if self._values else [*updates]
            case InputApplied():
                return [self._of_values(values, values.json)] if self._values and event.read else []
            case SubgraphOutput():
                shows = event.namespace or event.mode != "updates" or self._updates
                return [self._frame(event.mode, bytes(event.data), event.namespace)] if shows else []
            case MessageAdded():
                return [self._whole(event)] if self._messages else []
            case Custom():
                return [self._frame("custom", bytes(event.data))] if self._custom else []
            case Interrupted():
                return self._interrupted(event, values)
            case RunStarted():
                self._subgraphs = event.subgraphs
                return [self._control("metadata", encode({"run_id": event.run_id, "attempt": event.attempt}))]
            case Retracted():
                return [self._control("retracted", encode({"message_ids": event.message_ids, "step": event.step}))]
            case Failed():
                return [self._control("error", encode({"error": event.error, "message": event.message}))]
            case Ended():
                return [self._control("end", encode({"run_id": event.run_id, "status": event.status}))]

    def _updates_in(self, event: StepCommitted) -> list[bytes]:
        shown = map(bytes, (event.updates, *event.others)) if self._updates else ()
        return [update for update in shown if update != b"{}"]

    def _piece(self, piece: ViewFrame) -> AnyFrame:
        if piece.values is not None:
            return self._deferred(piece.mode, piece.event, piece.values, functools.partial(encode, piece.payload))
        self.seq += 1
        return Frame(piece.mode, _framed(piece.event, encode(piece.payload), self.epoch, self.seq))

    def _interrupted(self, event: Interrupted, values: Values) -> list[AnyFrame]:
        frames: list[AnyFrame] = []
        waiting = bytes(event.interrupts)
        if self._updates:
            frames.append(self._frame("updates", b'{"__interrupt__":' + waiting + b"}"))
        if self._values:
            frames.append(self._of_values(values, lambda: with_member(values.json(), "__interrupt__", waiting)))
        return frames

    def _of_values(self, values: Values, data: Callable[[], bytes]) -> AnyFrame:
        return self._deferred("values", "values", values, data)

    def _deferred(self, mode: str, event: str, values: Values, data: Callable[[], bytes]) -> AnyFrame:
        self.seq += 1
        epoch, seq = self.epoch, self.seq
        return DeferredFrame(mode, values, lambda: _framed(event, data(), epoch, seq))

    def _delta(self, event: MessageDelta) -> Frame:
        if event.metadata:
            self._chunks[event.message_id] = _ChunkForm(event)
        form = self._chunks.get(event.message_id)
        if form is not None:
            data = form.chunk(event)
            if event.last:
                del self._chunks[event.message_id]
            return self._frame("messages-tuple", data, event.namespace if self._subgraphs else "")
        key = (event.message_id, event.node, event.step)
        if key != self._delta_key:
            self._delta_key = key
            self._delta_middle = b',"type":"AIMessageChunk","id":' + encode(event.message_id)
            where = encode({"langgraph_node": event.node, "langgraph_step": event.step})
            self._delta_end = b"}," + where + b"]"
        extra = b""
        if event.tool_call is not None:
            extra = b',"tool_call_chunks":[' + encode({**event.tool_call, "type": "tool_call_chunk"}) + b"]"
        if event.reasoning:
            extra += b',"additional_kwargs":{"reasoning_content":' + encode(event.reasoning) + b"}"
        if event.last:
            extra += b',"chunk_position":"last"'
        data = b"".join((b'[{"content":', encode(event.text), self._delta_middle, extra, self._delta_end))
        return self._frame("messages-tuple", data)

    def _whole(self, event: MessageAdded) -> Frame:
        where = event.metadata or encode({"langgraph_node": event.node, "langgraph_step": event.step})
        data = b"".join((b"[", event.message, b",", where, b"]"))
        return self._frame("messages-tuple", data, event.namespace if self._subgraphs else "")

    def _frame(self, mode: str, data: bytes, namespace: str = "") -> Frame:
        self.seq += 1
        event = "messages" if mode == "messages-tuple" else mode
        return Frame(mode, _framed(f"{event}|{namespace}" if namespace else event, data, self.epoch, self.seq))

    def _control(self, name: str, data: bytes) -> Frame:
        self.seq += 1
        return Frame("", _framed(name, data, self.epoch, self.seq))


class _ChunkForm:
    """What the chunks of a message in LangChain's form share."""

    __slots__ = ("_fields", "_has_content", "_id", "_metadata")

    def __init__(self, first: MessageDelta) -> None:
        self._id = encode(first.message_id)
        self._metadata = bytes(first.metadata)
        self._fields = b""
        self._has_content = False

    def chunk(self, event: MessageDelta) -> bytes:
        """Return the chunk of ``event`` and its metadata."""
        if event.fields:
            self._fields = bytes(event.fields)[1:-1]
            self._has_content = self._fields.startswith(b'"content":')
        text = b"" if self._has_content else b'"content":' + encode(event.text) + b","
        return b"".join((b"[{", text, self._fields, b',"id":', self._id, b"},", self._metadata, b"]"))


def _framed(event: str, data: bytes, epoch: int, seq: int) -> bytes:
    return b"event: %b\r\ndata: %b\r\nid: %d-%d\r\n\r\n" % (event.encode(), data, epoch, seq)


def _views(modes: Sequence[str]) -> list[StreamView]:
    views: list[StreamView] = []
    if "messages" in modes:
        views.append(MessagesView())
    if not {"tasks", "checkpoints", "debug"}.isdisjoint(modes):
        views.append(StepsView(modes))
    if "events" in modes:
        views.append(TracesView())
    return views


def with_last_member(pieces: list[bytes], name: str, member: bytes) -> list[bytes]:
    """Return the chunks of a JSON object with one more member, whose value is the JSON ``member``."""
    comma = b"" if len(pieces) == 2 else b","  # only the brackets
    return [*pieces[:-1], comma + encode(name) + b":" + member + b"}"]


def with_member(values: bytes, name: str, member: bytes) -> bytes:
    """Return the JSON object ``values`` with one more member, whose value is the JSON ``member``."""
    comma = b"" if values == b"{}" else b","
    return values[:-1] + comma + encode(name) + b":" + member + b"}"
