"""What a client subscribes to: channels, and namespaces of subgraphs."""

from collections.abc import Sequence
from typing import NamedTuple

from app.base.errors import Invalid
from app.protocols.langgraph_v2.structs import MAX_SEQ, StreamRequest

CHANNELS = ("values", "updates", "messages", "tools", "lifecycle", "input", "checkpoints", "tasks", "custom")
NAMED = "custom:"
MAX_NAMESPACES = 100
MAX_DEPTH = 64

ROOT: tuple[str, ...] = ()
"""The namespace of the graph or agent itself."""


class Topic(NamedTuple):
    """The channel and the namespace of an event; ``name``: the name of a custom event, if it has one."""

    channel: str
    namespace: tuple[str, ...] = ROOT
    name: str = ""


class Subscription:
    """Selects events. A part of a namespace matches with its id (``node:id``), or by its name alone."""

    def __init__(self, channels: Sequence[str], namespaces: Sequence[Sequence[str]] | None, depth: int | None) -> None:
        self._channels = frozenset(channels)
        self._namespaces = [tuple(one) for one in namespaces] if namespaces else None
        self._depth = depth
        self._known: dict[Topic, bool] = {}
        self.only_control = self._channels <= {"lifecycle", "input"}
        """Whether it selects nothing that runs say."""

    @classmethod
    def of(cls, request: StreamRequest) -> "Subscription":
        """Validate ``request``. Raises ``Invalid``."""
        if not request.channels:
            raise Invalid.at("channels must name at least one channel.", "/channels")
        for number, channel in enumerate(request.channels):
            if channel not in CHANNELS and not (channel.startswith(NAMED) and len(channel) > len(NAMED)):
                raise Invalid.at(
                    f"{channel[:100]!r} is not a channel: use {', '.join(CHANNELS)} or custom:NAME.",
                    f"/channels/{number}",
                )
        if request.depth is not None and not 0 <= request.depth <= MAX_DEPTH:
            raise Invalid.at(f"depth must be from 0 to {MAX_DEPTH}.", "/depth")
        if len(request.namespaces or ()) > MAX_NAMESPACES or any(
            len(one) > MAX_DEPTH for one in request.namespaces or ()
        ):
            raise Invalid.at(
                f"At most {MAX_NAMESPACES} namespaces of at most {MAX_DEPTH} parts: subscribe to their parent.",
                "/namespaces",
            )
        if request.since is not None and not 0 <= request.since <= MAX_SEQ:
            raise Invalid.at(f"since must be the seq of an event, from 0 to {MAX_SEQ}.", "/since")
        return cls(request.channels, request.namespaces, request.depth)

    def wants(self, topic: Topic) -> bool:
        """Whether events of ``topic`` are selected."""
        known = self._known.get(topic)
        if known is None:
            if len(self._known) > 10_000:
                self._known.clear()
            known = self._known[topic] = self._selects(topic)
        return known

    def _selects(self, topic: Topic) -> bool:
        if topic.channel not in self._channels and not (topic.name and NAMED + topic.name in self._channels):
            return False
        if self._namespaces is None:
            return self._depth is None or len(topic.namespace) <= self._depth
        return any(
            _is_within(topic.namespace, prefix)
            and (self._depth is None or len(topic.namespace) - len(prefix) <= self._depth)
            for prefix in self._namespaces
        )


def _is_within(namespace: tuple[str, ...], prefix: tuple[str, ...]) -> bool:
    return len(prefix) <= len(namespace) and all(
        part in (own, own.partition(":")[0]) for part, own in zip(prefix, namespace, strict=False)
    )
