"""A thread's checkpoint as values of the engine's state, and the changes that a new checkpoint makes to them.

Public channels are stored under their names, as JSON, which is what clients read; lists element by element, so that a
growing list costs what is new. What JSON cannot hold exactly is stored a second time in its exact form, in hidden
values.
"""

from __future__ import annotations

import base64
import functools
import operator
from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet
from types import MappingProxyType
from typing import Any, NamedTuple

from langgraph.checkpoint.base import Checkpoint
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.types import Interrupt

from agent_service_graphs.projection import is_exact_message, is_plain, json_of, value_of
from agent_service_graphs.stored_values import JSON, MESSAGES, TYPED, Change, StoredValues

HEAD = "__graph"
"""The hidden value that holds the rest of the checkpoint: versions, metadata, how each channel is stored."""
WRITES = "__graph:writes"
"""The hidden list of writes of tasks that have finished since the checkpoint."""
CALL = "__graph:call:"
"""Prefix of hidden values: what a call of a tool has returned in the superstep that has not ended."""
CHANNEL = "__graph:channel:"
EXACT = "__graph:exact:"
NAMESPACE = "__graph:ns:"
"""Prefixes of hidden values: a private channel, the exact form of a public one, a subgraph's checkpoint."""
ENDED = "__graph:ended:"
"""Prefix of hidden values: the last checkpoint of a subgraph in the superstep that led to this checkpoint. No run reads
it; clients do."""

IDS = frozenset({"thread_id", "run_id", "assistant_id", "graph_id", "checkpoint_ns", "checkpoint_id"})
"""Metadata of a checkpoint that its run has as ids, not stored with each."""


class CannotStore(Exception):
    """A value of the graph's state has no stored form. Names the channel."""


@functools.lru_cache(maxsize=256)
def allowing(serde: JsonPlusSerializer, types: frozenset[tuple[str, ...]]) -> JsonPlusSerializer:
    """Return the serialiser that reads ``types`` too: made once, not in each run; ``serde`` itself if it does."""
    return serde.with_msgpack_allowlist(types)


class Codec:
    """Exact forms of values, by the serialiser of LangGraph with an allow-list of types."""

    def __init__(self, serde: JsonPlusSerializer) -> None:
        self.serde = serde

    def allow(self, types: frozenset[tuple[str, ...]]) -> bool:
        """Read ``types`` from now on; return whether that is new."""
        before, self.serde = self.serde, allowing(self.serde, types)
        return self.serde is not before

    def dump(self, value: Any, channel: str) -> list[str]:
        """Return type and base64 text. Raises ``CannotStore`` for a value that could not be read again.

        An exception is stored as its text, which is what LangGraph reads of it.
        """
        try:
            kind, body = self.serde.dumps_typed(value)
            again = value if isinstance(value, BaseException) else self.serde.loads_typed((kind, body))
        except Exception as error:
            raise CannotStore(
                f"The value of channel {channel!r} cannot be stored: {type(error).__name__}: {error}. "
                "Use plain values, messages, dataclasses or Pydantic models; name their types in the state's schema."
            ) from error
        own = type(value).__module__ != "builtins"  # LangGraph itself reads a tuple as a list
        if kind == "pickle" or (own and type(again) is not type(value) and not isinstance(value, Interrupt)):
            raise CannotStore(
                f"The value of channel {channel!r} has type {type(value).__module__}.{type(value).__qualname__}, which "
                "would not be read again: name that type in the state's schema, or store plain values."
            )
        return [kind, base64.b64encode(body).decode()]

    def load(self, stored: list[str]) -> Any:
        """Return the value of ``dump``'s result."""
        return self.serde.loads_typed((stored[0], base64.b64decode(stored[1])))


class ShownChannels(NamedTuple):
    """What clients see of a graph's channels, as the values of a thread.

    ``public``: the channels (None: as stored, and new ones unless their names are internal). ``result``: the channel
    whose value is all that they see, as for entry points, if there is one. ``initial``: values of public channels to
    which nothing was written.
    """

    public: Collection[str] | None = None
    result: str = ""
    initial: Mapping[str, Any] = MappingProxyType({})


class ChannelStore:
    """Turns channel values into changes. Remembers the lists it has stored, to send only what is new in them."""

    def __init__(self, codec: Codec, public: Collection[str] | None) -> None:
        """``public``: as in ``ShownChannels``."""
        self._codec = codec
        self._public = None if public is None else set(public)
        self._keys: dict[str, str] = {}
        self.kinds: dict[str, str] = {}
        self._lists: dict[str, list[Any]] = {}

    def key(self, channel: str) -> str:
        """Return the name under which ``channel`` is stored."""
        if self._public is None and channel in self._keys:
            return self._keys[channel]
        public = ":" not in channel if self._public is None else channel in self._public
        return channel if public and not channel.startswith("__") else CHANNEL + channel

    def load(self, values: StoredValues, kinds: Mapping[str, str]) -> dict[str, Any]:
        """Return the channel values stored in ``values``, each as ``kinds`` says."""
        found: dict[str, Any] = {}
        for channel, kind in kinds.items():
            self._keys[channel] = key = channel if channel in values else CHANNEL + channel
            stored = values[EXACT + channel if kind == TYPED else key]
            if isinstance(stored, list):
                found[channel] = [*map(self._exact, stored)] if kind == TYPED else values.elements(key, kind)
                self._lists[channel] = list(found[channel])
            else:
                found[channel] = self._exact(stored) if kind == TYPED else value_of(stored)
        self.kinds = dict(kinds)
        return found

    def _exact(self, stored: bytes) -> Any:
        return self._codec.load(value_of(stored))

    def changes(
        self, values: Mapping[str, Any], changed: Collection[str], touched: AbstractSet[int]
    ) -> dict[str, Change]:
        """Return the changes that store ``values``, of which ``changed`` are new since the last call.

        ``touched``: ids of objects that tasks have written since; equal objects may have other contents.
        """
        found: dict[str, Change] = {}
        for channel in [one for one in self.kinds if one not in values]:
            found.update(self._removed(channel))
        for channel, value in values.items():
            if channel in changed or channel not in self.kinds:
                found.update(self._stored(channel, value, touched))
        return found

    def _removed(self, channel: str) -> dict[str, Change]:
        kind = self.kinds.pop(channel)
        self._lists.pop(channel, None)
        return {self._keys.pop(channel, self.key(channel)): None, **({EXACT + channel: None} if kind == TYPED else {})}

    def _stored(self, channel: str, value: Any, touched: AbstractSet[int]) -> dict[str, Change]:
        before = self.kinds.get(channel)
        if type(value) is list:
            kind, found = self._list(channel, value, touched)
        else:
            self._lists.pop(channel, None)
            kind = JSON if is_plain(value) else TYPED
            found = {} if kind == TYPED and self.key(channel) != channel else {self.key(channel): ["v", json_of(value)]}
            if kind == TYPED:
                found[EXACT + channel] = ["v", json_of(self._codec.dump(value, channel))]
        self.kinds[channel] = kind
        if before == TYPED != kind:
            found[EXACT + channel] = None
        key = self.key(channel)
        if self._keys.get(channel, key) != key:  # the schema of the graph has changed
            found[self._keys[channel]] = None
        self._keys[channel] = key
        return found

    def _list(self, channel: str, value: list[Any], touched: AbstractSet[int]) -> tuple[str, dict[str, Change]]:
        known, before = self._lists.get(channel, []), self.kinds.get(channel)
        keep = _unchanged(known, value, touched)
        fresh = value[keep:]
        kind = _kind_of(fresh, before if keep else None)
        if keep and kind != before:
            kind, keep, fresh = _kind_of(value, None), 0, value
        self._lists[channel] = list(value)
        found: dict[str, Change] = {self.key(channel): ["s", keep, [json_of(one) for one in fresh]]}
        if kind == TYPED:
            exact = [json_of(self._codec.dump(one, channel)) for one in fresh]
            found[EXACT + channel] = ["s", keep, exact]
            if self.key(channel) != channel:
                found[self.key(channel)] = None
        return kind, found


def shown_change(value: Any) -> Change:
    """Return the change that shows ``value``, which is no channel's, as lists and other values are stored."""
    return ["s", 0, [*map(json_of, value)]] if type(value) is list else ["v", json_of(value)]


def _unchanged(known: list[Any], value: list[Any], touched: AbstractSet[int]) -> int:
    """Return how many leading elements of ``value`` are those of ``known``, and not touched since."""
    shared = min(len(known), len(value))
    if all(map(operator.is_, known, value)) and touched.isdisjoint(map(id, known[:shared])):
        return shared
    count = 0
    for old, new in zip(known, value, strict=False):
        if old is not new or id(new) in touched:
            break
        count += 1
    return count


def _kind_of(elements: list[Any], before: str | None) -> str:
    """Return how to store a list with the new ``elements`` after others stored as ``before``."""
    if before in {None, JSON} and all(map(is_plain, elements)):
        return JSON
    if before in {None, MESSAGES} and all(map(is_exact_message, elements)):
        return MESSAGES
    return TYPED


def head_of(checkpoint: Checkpoint, metadata: Mapping[str, Any], codec: Codec, run_id: str) -> dict[str, Any]:
    """Return the part of ``checkpoint``, written by the run ``run_id``, that is not in its channels."""
    own = {
        name: value
        for name, value in metadata.items()
        if name not in IDS or (name == "run_id" and str(value) != run_id)
    }
    plain = {name: value for name, value in own.items() if is_plain(value)}
    typed = {name: codec.dump(value, f"metadata.{name}") for name, value in own.items() if name not in plain}
    seen = {node: versions for node, versions in checkpoint["versions_seen"].items() if versions}
    return {
        "v": checkpoint["v"],
        "id": checkpoint["id"],
        "ts": checkpoint["ts"],
        "versions": checkpoint["channel_versions"],
        "seen": seen,
        "updated": checkpoint.get("updated_channels"),
        "metadata": plain,
        **({"typed": typed} if typed else {}),
    }


def checkpoint_of(head: Mapping[str, Any], values: dict[str, Any]) -> Checkpoint:
    """Return the checkpoint with ``head`` and the channel ``values``."""
    return {
        "v": head["v"],
        "id": head["id"],
        "ts": head["ts"],
        "channel_values": values,
        "channel_versions": dict(head["versions"]),
        "versions_seen": {node: dict(seen) for node, seen in head["seen"].items()},
        "updated_channels": head["updated"],
    }
