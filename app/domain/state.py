"""A thread's values, kept as the JSON that is stored and sent.

``values`` is a JSON object; each member is a *channel*. A list channel is kept element by element, so that a step that
appends one message encodes, stores and copies that message alone. Elements and large values go to the thread's
append-only log of *items* (``number → JSON``) and are written once; a checkpoint is a small *head* that refers to them:
a list by ranges of item numbers, a large value by its number; a small value is inline. Large values and amendments have
numbers of their own, so they do not part the ranges of lists.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from app.base.errors import Invalid, TooLarge
from app.base.offload import rough_size

INLINE_BYTES = 512
"""A value whose JSON is at most this long is stored inline in the head."""

HIDDEN_INLINE_BYTES = 8192
"""The same for an agent's private values: they change with every checkpoint."""

FIRST_VALUE = -(1 << 40)
"""Value items are numbered upwards from here: a thread's ``last_value_number`` counts them. Elements of lists are
numbered from 1."""

MAX_CHANNELS = 1000
"""Channels of one state: each is encoded, stored in every head and included in every response."""
MAX_ELEMENTS = 10_000
"""A longer list (except messages) is stored as one value: as elements it would take as many rows."""

STATE_BYTES = 500
LIST_BYTES = 320
VALUE_BYTES = 190
ELEMENT_BYTES = 57
INDEX_BYTES = 150
"""Memory of objects in addition to their JSON: a state, a list, any other value, an element of a list, and its entry in
the index of ids. As measured (tests/runs/test_state_cache.py)."""

MESSAGES = "messages"
HIDDEN = "__"
"""Prefix of an agent's private channels: stored in checkpoints, never shown to clients."""
REMOVE_ALL = "__remove_all__"

encode = msgspec.json.Encoder().encode


def shown(update: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of ``update`` that clients see."""
    return {name: value for name, value in update.items() if not name.startswith(HIDDEN)}


class Head(msgspec.Struct, omit_defaults=True):
    """Stored form of a checkpoint. ``lists`` maps a channel to inclusive ranges ``[first, last, first, last, …]``."""

    lists: dict[str, list[int]] = {}
    items: dict[str, int] = {}
    inline: dict[str, msgspec.Raw] = {}


class Splice(msgspec.Struct, frozen=True):
    """A change of a list channel: its first ``keep`` elements stay, ``added`` (JSON) follow them."""

    keep: int
    added: tuple[msgspec.Raw, ...] = ()


class _Identity(msgspec.Struct):
    id: str | None = None
    type: str | None = None


_identity = msgspec.json.Decoder(_Identity).decode


def _identity_of(message: Any) -> tuple[Any, Any]:
    """Return id and type of a message in an update: JSON, a dict or a struct."""
    if isinstance(message, dict):
        return message.get("id"), message.get("type")
    known = _identity(message) if isinstance(message, msgspec.Raw) else message
    return getattr(known, "id", None), getattr(known, "type", None)


class ListChannel:
    """A list channel: the JSON of each element, and the ranges of item numbers that hold them, in order."""

    __slots__ = ("_positions", "checked", "elements", "ranges", "size")

    def __init__(self, elements: list[bytes] | None = None, ranges: list[int] | None = None) -> None:
        self.elements = [] if elements is None else elements
        """Only ever appended to; any other change makes a new list, so that views keep theirs."""
        self.ranges = [] if ranges is None else ranges
        self.size = sum(map(len, self.elements))
        """Bytes of its elements."""
        self.checked = 0
        """Number of leading elements that a reader has validated already."""
        self._positions: dict[str | None, int] | None = None

    def append(self, element: bytes, number: int) -> None:
        """Append ``element``, stored in the log as item ``number``."""
        self.elements.append(element)
        self.size += len(element)
        if self.ranges and self.ranges[-1] == number - 1:
            self.ranges[-1] = number
        else:
            self.ranges += (number, number)

    def extend(self, elements: Iterable[tuple[bytes, int]]) -> None:
        """Append ``elements``, as (JSON, item number), whose ids are not read."""
        self._positions = None
        for element, number in elements:
            self.append(element, number)

    def numbers(self) -> list[int]:
        """Return the item number of every element, in order."""
        pairs = zip(self.ranges[::2], self.ranges[1::2], strict=True)
        return [number for first, last in pairs for number in range(first, last + 1)]

    def prefix(self, count: int) -> list[int]:
        """Return the item ranges of the first ``count`` elements."""
        found: list[int] = []
        for first, last in zip(self.ranges[::2], self.ranges[1::2], strict=True):
            if count <= 0:
                break
            found += (first, min(last, first + count - 1))
            count -= last - first + 1
        return found

    def positions(self) -> dict[str | None, int]:
        """Return the index of each element by its ``id``; cached, and updated by callers that append."""
        if self._positions is None:
            self._positions = {_identity(element).id: position for position, element in enumerate(self.elements)}
        return self._positions

    @property
    def indexed(self) -> bool:
        """Whether the index of ids is in memory."""
        return self._positions is not None

    def only_grows_by(self, messages: Any) -> bool:
        """Whether merging ``messages`` only appends; False if finding out would require the index of ids."""
        positions = self._positions
        return (
            positions is not None
            and isinstance(messages, list)
            and not any(kind == "remove" or id_ in positions for id_, kind in map(_identity_of, messages))
        )

    def rebuild(self, elements: Sequence[tuple[bytes, int]]) -> None:
        """Replace all elements by ``elements``, as (JSON, item number)."""
        self._positions = None
        self.checked = 0
        self.elements, self.ranges, self.size = [], [], 0
        for element, number in elements:
            self.append(element, number)

    def json(self) -> bytes:
        """Return the list as JSON."""
        return b"[" + b",".join(self.elements) + b"]"


class ValueChannel:
    """Any other channel: its JSON and its item number (0: inline in the head)."""

    __slots__ = ("number", "value")

    def __init__(self, value: bytes, number: int = 0) -> None:
        self.value = value
        self.number = number

    def json(self) -> bytes:
        """Return the value as JSON."""
        return self.value


class Values(Protocol):
    """The values of a thread at one checkpoint, encoded on demand."""

    size: int
    """Approximate size as JSON, in bytes."""

    def json(self) -> bytes:
        """Return the values as one JSON object."""
        ...


class StateView:
    """An immutable view of a state's values (``Values``). Creating one copies no value."""

    __slots__ = ("_channels", "size")

    def __init__(self, channels: Mapping[str, ListChannel | ValueChannel]) -> None:
        self.size = 0
        self._channels: list[tuple[str, list[bytes] | bytes, int]] = []
        for name, channel in shown(channels).items():
            if isinstance(channel, ListChannel):
                self._channels.append((name, channel.elements, len(channel.elements)))
                self.size += channel.size
            else:
                self._channels.append((name, channel.value, 0))
                self.size += len(channel.value)

    def json(self) -> bytes:
        """Return the values as one JSON object."""
        return b"".join(self.pieces())

    def pieces(self) -> list[bytes]:
        """Return the JSON as chunks, without copying large values."""
        found = [b"{"]
        for name, value, count in self._channels:
            found += (encode(name), b":")
            if isinstance(value, bytes):
                found += (value, b",")
                continue
            found.append(b"[")
            for element in value[:count]:
                found += (element, b",")
            if count:
                found.pop()
            found += (b"]", b",")
        if len(found) > 1:
            found.pop()
        found.append(b"}")
        return found


NO_VALUES = StateView({})


class State:
    """The values of one thread as its live run reads and changes them.

    ``last_number`` is the highest number of a list's item in use on the thread (over all branches), so new items follow
    it; ``last_value_number`` counts its value items and amendments. Items made since the last ``take_items`` are in
    ``pending``.

    It may take ``max_bytes`` of JSON (0: any number). An update that exceeds them makes the state ``overfull``: it
    takes no other, nothing of that update is to be stored, and the thread's checkpoints have what was before.
    """

    __slots__ = ("_amending", "channels", "last_number", "last_value_number", "max_bytes", "overfull", "pending")

    def __init__(self, last_number: int = 0, last_value_number: int = 0) -> None:
        self.channels: dict[str, ListChannel | ValueChannel] = {}
        self.last_number = last_number
        self.last_value_number = last_value_number
        self.pending: list[tuple[int, bytes]] = []
        self.max_bytes = 0
        self.overfull = False
        self._amending = False

    @classmethod
    def load(cls, head: Head, items: Mapping[int, bytes], last_number: int, last_value_number: int = 0) -> "State":
        """Build the state of ``head`` from ``items``, which holds at least the items it names. Raises ``KeyError``."""
        state = cls(last_number, last_value_number)
        for name, ranges in head.lists.items():
            elements = [items[number] for number in ListChannel(ranges=ranges).numbers()]
            state.channels[name] = ListChannel(elements, list(ranges))
        for name, number in head.items.items():
            state.channels[name] = ValueChannel(items[number], number)
        for name, raw in head.inline.items():
            state.channels[name] = ValueChannel(bytes(raw))
        return state

    def head(self) -> Head:
        """Return the head that a checkpoint stores."""
        head = Head({}, {}, {})
        for name, channel in self.channels.items():
            if isinstance(channel, ListChannel):
                head.lists[name] = list(channel.ranges)
            elif channel.number:
                head.items[name] = channel.number
            else:
                head.inline[name] = msgspec.Raw(channel.value)
        return head

    def value_numbers(self) -> set[int]:
        """Return the numbers of its value items, and of its lists' items that amendments have made."""
        found: set[int] = set()
        for channel in self.channels.values():
            if isinstance(channel, ValueChannel):
                found.add(channel.number)
            elif channel.ranges and min(channel.ranges) < 0:
                found.update(channel.numbers())
        return found

    def take_items(self) -> list[tuple[int, bytes]]:
        """Return and clear the items made since the last call, as (number, JSON), for the journal to store."""
        items, self.pending = self.pending, []
        return items

    def size(self) -> int:
        """Return the bytes of all values as JSON, an agent's private ones included."""
        return sum(
            channel.size if isinstance(channel, ListChannel) else len(channel.value)
            for channel in self.channels.values()
        )

    def pending_size(self) -> int:
        """Return the size in bytes of the items that ``take_items`` would return."""
        return sum(len(body) for _, body in self.pending)

    def json(self) -> bytes:
        """Return the public values as one JSON object, joined from the channels' bytes without encoding again."""
        return b"".join(self.pieces())

    def pieces(self) -> list[bytes]:
        """Return the bytes of ``json`` as chunks, without copying large values."""
        return self.view().pieces()

    def view(self) -> StateView:
        """Return a view of the current values, to be encoded on demand."""
        return StateView(self.channels)

    def effort(self, update: Mapping[str, Any]) -> int:
        """Estimate the bytes of JSON that ``apply(update)`` handles: ``update`` and the lists it must read."""
        found = rough_size(update)
        for name, value in update.items():
            channel = self.channels.get(name)
            if not isinstance(channel, ListChannel):
                continue
            grows = len(channel.elements) == value.keep if isinstance(value, Splice) else False
            if not (grows or (name == MESSAGES and channel.only_grows_by(value))):
                found += channel.size
        return found

    def memory(self) -> int:
        """Estimate the memory of this state in bytes, objects included (CPython, 64 bits)."""
        found = STATE_BYTES
        for channel in self.channels.values():
            if isinstance(channel, ListChannel):
                each = ELEMENT_BYTES + (INDEX_BYTES if channel.indexed else 0)
                found += LIST_BYTES + len(channel.elements) * each + len(channel.ranges) * 40 + channel.size
            else:
                found += VALUE_BYTES + len(channel.value)
        return found

    def get(self, name: str) -> Any:
        """Return the decoded value of the channel ``name``, or None."""
        channel = self.channels.get(name)
        return None if channel is None else msgspec.json.decode(channel.json())

    def elements(self, name: str = MESSAGES) -> list[bytes]:
        """Return the JSON of each element of the list channel ``name``; empty if missing."""
        channel = self.channels.get(name)
        return channel.elements if isinstance(channel, ListChannel) else []

    def prefix(self, count: int) -> list[int]:
        """Return the inclusive item ranges of the first ``count`` messages.

        Equal ranges, later or on another branch, are equal messages: no number is used twice.
        """
        channel = self.channels.get(MESSAGES)
        return channel.prefix(count) if isinstance(channel, ListChannel) else []

    def set(self, name: str, value: Any) -> None:
        """Overwrite the channel ``name``; None removes a hidden one.

        A list keeps the items of elements it shares with its old value. Raises ``Invalid`` beyond ``MAX_CHANNELS``.
        """
        if value is None and name.startswith(HIDDEN):
            self.channels.pop(name, None)
            return
        self._check_room(name)
        if isinstance(value, list) and len(value) <= MAX_ELEMENTS:
            self._set_list(name, [encode(element) for element in value])
            return
        encoded = encode(value)
        old = self.channels.get(name)
        if isinstance(old, ValueChannel) and old.value == encoded:
            return
        inline = HIDDEN_INLINE_BYTES if name.startswith(HIDDEN) else INLINE_BYTES
        number = self._log_value(encoded) if len(encoded) > inline else 0
        self.channels[name] = ValueChannel(encoded, number)

    def apply(self, update: Mapping[str, Any]) -> None:
        """Merge ``update`` (channel → value); ``messages`` is a list of messages, structs or ``msgspec.Raw``.

        Any channel may be given as a ``Splice``, or removed by ``msgspec.UNSET``. Raises ``TooLarge`` for a state of
        more than ``max_bytes`` that has grown.
        """
        before, kept = self.size(), len(self.pending)
        if not self.overfull:
            self._merge(update)
        if self.overfull or (self.max_bytes and self.size() > max(before, self.max_bytes)):
            del self.pending[kept:]
            self.overfull = True
            raise TooLarge(
                f"The thread's values would take more than {self.max_bytes / (1 << 20):,.4g} MiB (AGENT_STATE_BYTES)."
                " The thread stays as it was: remove values or messages first, or go on in a new thread."
            )

    def _merge(self, update: Mapping[str, Any]) -> None:
        for name, value in update.items():
            if value is msgspec.UNSET:
                self.channels.pop(name, None)
            elif isinstance(value, Splice):
                self._splice(name, value)
            elif name == MESSAGES:
                self.merge_messages([bytes(m) if isinstance(m, msgspec.Raw) else encode(m) for m in value])
            else:
                self.set(name, value)

    def amend(self, update: Mapping[str, Any]) -> None:
        """Merge hidden values into the state of a stored checkpoint, as ``apply`` does. Amendments are counted."""
        self.last_value_number += 1  # orders them, also those of small values, which take no item
        self._amending = True
        try:
            self.apply(update)
        finally:
            self._amending = False

    def append(self, element: bytes, name: str = MESSAGES) -> None:
        """Append one element (JSON) to the list channel ``name``."""
        self._list(name).append(element, self._log(element))

    def merge_messages(self, messages: Iterable[bytes]) -> None:
        """Merge messages (JSON with an ``id``) with the semantics that clients expect.

        A message with a known id replaces that message, ``{"type": "remove", "id": …}`` removes it
        (``__remove_all__`` removes everything before it), any other is appended.
        """
        channel = self._list(MESSAGES)
        positions = channel.positions()
        fresh = [(message, _identity(message)) for message in messages]
        if not any(identity.type == "remove" or identity.id in positions for _, identity in fresh):
            for message, identity in fresh:
                channel.append(message, self._log(message))
                positions[identity.id] = len(channel.elements) - 1
            return
        merged: list[tuple[bytes, int] | None] = list(zip(channel.elements, channel.numbers(), strict=True))
        for message, identity in fresh:
            position = positions.get(identity.id)
            if identity.type == "remove":
                if identity.id == REMOVE_ALL:
                    merged, positions = [], {}
                elif position is not None:
                    merged[position] = None
                    del positions[identity.id]
            elif position is not None:
                merged[position] = (message, self._log(message))
            else:
                positions[identity.id] = len(merged)
                merged.append((message, self._log(message)))
        channel.rebuild([entry for entry in merged if entry is not None])

    def _splice(self, name: str, change: Splice) -> None:
        self._check_room(name)
        channel = self._list(name)
        if len(channel.elements) > change.keep:
            channel.rebuild([*zip(channel.elements, channel.numbers(), strict=True)][: change.keep])
        channel.extend([(bytes(element), self._log(bytes(element))) for element in change.added])

    def _set_list(self, name: str, elements: list[bytes]) -> None:
        old = self._list(name)
        numbers = dict(zip(old.elements, old.numbers(), strict=True))
        old.rebuild([(element, numbers.get(element) or self._log(element)) for element in elements])

    def _check_room(self, name: str) -> None:
        if name not in self.channels and len(self.channels) >= MAX_CHANNELS:
            raise Invalid(f"A thread has at most {MAX_CHANNELS:,} values at its top level: put them into one object.")

    def _list(self, name: str) -> ListChannel:
        channel = self.channels.get(name)
        if not isinstance(channel, ListChannel):
            channel = self.channels[name] = ListChannel()
        return channel

    def _log_value(self, encoded: bytes) -> int:
        self.last_value_number += 1
        number = FIRST_VALUE + self.last_value_number
        self.pending.append((number, encoded))
        return number

    def _log(self, encoded: bytes) -> int:
        if self._amending:
            return self._log_value(encoded)
        self.last_number += 1
        self.pending.append((self.last_number, encoded))
        return self.last_number
