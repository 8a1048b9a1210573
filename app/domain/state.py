"""A thread's values, kept as the JSON they travel and rest in.

``values`` is a JSON object; each member is a *channel*. A channel that holds a list is kept element by element, so that
a step which appends one message encodes, stores and copies that message alone. Elements and large values live in the
thread's append-only log of *items* (``sequence number → JSON``) and are written once; a checkpoint is a small *head*
that names them: for a list its sequence numbers as ranges, for a large value one number, for a small value the value.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from app.base.errors import Invalid
from app.base.offload import rough_size

INLINE_BYTES = 512
"""A value whose JSON is at most this long is kept in the head itself."""

MAX_CHANNELS = 1000
"""Channels of one state: each is encoded, stored in every head and shown in every answer."""
MAX_ELEMENTS = 10_000
"""A longer list (but for the messages) is kept as one value: as elements it would be as many rows."""

STATE_BYTES = 500
LIST_BYTES = 320
VALUE_BYTES = 190
ELEMENT_BYTES = 57
PLACE_BYTES = 150
"""What objects take in memory beside the JSON that they hold: a state, a list, any other value, an element of a list,
and its entry in the index of ids. As measured (tests/runs/test_state_cache.py)."""

MESSAGES = "messages"
HIDDEN = "__"
"""Channels whose names begin so are an agent's own: they rest in checkpoints and are shown to nobody."""
REMOVE_ALL = "__remove_all__"

encode = msgspec.json.Encoder().encode


def shown(update: Mapping[str, Any]) -> dict[str, Any]:
    """The part of ``update`` that clients see."""
    return {name: value for name, value in update.items() if not name.startswith(HIDDEN)}


class Head(msgspec.Struct, omit_defaults=True):
    """What a checkpoint stores. ``lists`` maps a channel to ``[first, last, first, last, …]`` (inclusive ranges)."""

    lists: dict[str, list[int]] = {}
    items: dict[str, int] = {}
    inline: dict[str, msgspec.Raw] = {}


class _Identity(msgspec.Struct):
    id: str | None = None
    type: str | None = None


_identity = msgspec.json.Decoder(_Identity).decode


def _identity_of(message: Any) -> tuple[Any, Any]:
    """The id and the type of a message as an update holds it: JSON, an object or a struct."""
    if isinstance(message, dict):
        return message.get("id"), message.get("type")
    known = _identity(message) if isinstance(message, msgspec.Raw) else message
    return getattr(known, "id", None), getattr(known, "type", None)


class ListChannel:
    """A list: the JSON of each element, and the ranges of log numbers that hold them, in order."""

    __slots__ = ("_places", "checked", "elements", "ranges", "size")

    def __init__(self, elements: list[bytes] | None = None, ranges: list[int] | None = None) -> None:
        self.elements = [] if elements is None else elements
        """Only ever appended to: what is changed otherwise becomes another list, so that a view keeps its own."""
        self.ranges = [] if ranges is None else ranges
        self.size = sum(map(len, self.elements))
        """Bytes of its elements."""
        self.checked = 0
        """Elements, from the first on, of which a reader knows already what it wanted to know."""
        self._places: dict[str | None, int] | None = None

    def append(self, element: bytes, number: int) -> None:
        """Add ``element``, which the log holds under ``number``."""
        self.elements.append(element)
        self.size += len(element)
        if self.ranges and self.ranges[-1] == number - 1:
            self.ranges[-1] = number
        else:
            self.ranges += (number, number)

    def numbers(self) -> list[int]:
        """The log number of every element, in order."""
        pairs = zip(self.ranges[::2], self.ranges[1::2], strict=True)
        return [number for first, last in pairs for number in range(first, last + 1)]

    def prefix(self, count: int) -> list[int]:
        """The ranges that hold the first ``count`` elements."""
        found: list[int] = []
        for first, last in zip(self.ranges[::2], self.ranges[1::2], strict=True):
            if count <= 0:
                break
            found += (first, min(last, first + count - 1))
            count -= last - first + 1
        return found

    def places(self) -> dict[str | None, int]:
        """The place of each element by its ``id``; kept between calls, and by the caller when it appends."""
        if self._places is None:
            self._places = {_identity(element).id: place for place, element in enumerate(self.elements)}
        return self._places

    @property
    def indexed(self) -> bool:
        """Whether the index of ids is in memory."""
        return self._places is not None

    def only_grows_by(self, messages: Any) -> bool:
        """Whether merging ``messages`` is known to append them alone, without a look at what is there."""
        places = self._places
        return (
            places is not None
            and isinstance(messages, list)
            and not any(kind == "remove" or id_ in places for id_, kind in map(_identity_of, messages))
        )

    def rebuild(self, elements: Sequence[tuple[bytes, int]]) -> None:
        """Hold exactly ``elements``, as (JSON, log number)."""
        self._places = None
        self.checked = 0
        self.elements, self.ranges, self.size = [], [], 0
        for element, number in elements:
            self.append(element, number)

    def json(self) -> bytes:
        """The list as JSON."""
        return b"[" + b",".join(self.elements) + b"]"


class ValueChannel:
    """Any other value: its JSON, and its log number (0: small enough to stay in the head)."""

    __slots__ = ("number", "value")

    def __init__(self, value: bytes, number: int = 0) -> None:
        self.value = value
        self.number = number

    def json(self) -> bytes:
        """The value as JSON."""
        return self.value


class Values(Protocol):
    """The values of a thread at one checkpoint, to be encoded when a reader wants them."""

    size: int
    """About how many bytes of JSON they are."""

    def json(self) -> bytes:
        """The values as one JSON object."""
        ...


class StateView:
    """The values of a state at one moment, whatever becomes of it later (``Values``). Taking one copies no value."""

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
        """As ``State.json``."""
        return b"".join(self.pieces())

    def pieces(self) -> list[bytes]:
        """As ``State.pieces``."""
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
    """The values of one thread as its one live run sees and changes them.

    ``last_number`` is the highest log number in use on the thread (over all branches), so new items follow it.
    Items made since the last ``take_items`` wait in ``pending``.
    """

    __slots__ = ("channels", "last_number", "pending")

    def __init__(self, last_number: int = 0) -> None:
        self.channels: dict[str, ListChannel | ValueChannel] = {}
        self.last_number = last_number
        self.pending: list[tuple[int, bytes]] = []

    @classmethod
    def load(cls, head: Head, items: Mapping[int, bytes], last_number: int) -> "State":
        """The state that ``head`` describes; ``items`` holds at least the log items it names. Raises ``KeyError``."""
        state = cls(last_number)
        for name, ranges in head.lists.items():
            elements = [items[number] for number in ListChannel(ranges=ranges).numbers()]
            state.channels[name] = ListChannel(elements, list(ranges))
        for name, number in head.items.items():
            state.channels[name] = ValueChannel(items[number], number)
        for name, raw in head.inline.items():
            state.channels[name] = ValueChannel(bytes(raw))
        return state

    def head(self) -> Head:
        """The small description of this state that a checkpoint stores."""
        head = Head({}, {}, {})
        for name, channel in self.channels.items():
            if isinstance(channel, ListChannel):
                head.lists[name] = list(channel.ranges)
            elif channel.number:
                head.items[name] = channel.number
            else:
                head.inline[name] = msgspec.Raw(channel.value)
        return head

    def take_items(self) -> list[tuple[int, bytes]]:
        """The log items made since the last call, as (number, JSON): the journal stores them with the next head."""
        items, self.pending = self.pending, []
        return items

    def pending_size(self) -> int:
        """Bytes of the log items that ``take_items`` would give."""
        return sum(len(body) for _, body in self.pending)

    def json(self) -> bytes:
        """The values that clients see as one JSON object. Nothing is encoded again: the channels' bytes are joined."""
        return b"".join(self.pieces())

    def pieces(self) -> list[bytes]:
        """The bytes of ``json`` in pieces that the channels hold anyway: large values are not copied."""
        return self.view().pieces()

    def view(self) -> StateView:
        """The values as they are now, to be encoded when they are asked for."""
        return StateView(self.channels)

    def effort(self, update: Mapping[str, Any]) -> int:
        """About how many bytes of JSON ``apply(update)`` handles: those of ``update`` and of the lists it must read."""
        found = rough_size(update)
        for name, value in update.items():
            channel = self.channels.get(name)
            if isinstance(channel, ListChannel) and not (name == MESSAGES and channel.only_grows_by(value)):
                found += channel.size
        return found

    def memory(self) -> int:
        """About how many bytes of memory this state takes, its objects included (CPython, 64 bits)."""
        found = STATE_BYTES
        for channel in self.channels.values():
            if isinstance(channel, ListChannel):
                each = ELEMENT_BYTES + (PLACE_BYTES if channel.indexed else 0)
                found += LIST_BYTES + len(channel.elements) * each + len(channel.ranges) * 40 + channel.size
            else:
                found += VALUE_BYTES + len(channel.value)
        return found

    def get(self, name: str) -> Any:
        """The decoded value of the channel ``name``, or None."""
        channel = self.channels.get(name)
        return None if channel is None else msgspec.json.decode(channel.json())

    def elements(self, name: str = MESSAGES) -> list[bytes]:
        """The JSON of each element of the list channel ``name`` (empty where there is none)."""
        channel = self.channels.get(name)
        return channel.elements if isinstance(channel, ListChannel) else []

    def prefix(self, count: int, name: str = MESSAGES) -> list[int]:
        """Where the log has the first ``count`` elements of the list ``name``, as ranges (inclusive).

        The same ranges later on, or on another branch, are the same elements: no number is given twice.
        """
        channel = self.channels.get(name)
        return channel.prefix(count) if isinstance(channel, ListChannel) else []

    def set(self, name: str, value: Any) -> None:
        """Overwrite the channel ``name``; None takes a hidden one away.

        A list keeps the log items of the elements it shares with its old value. Raises ``Invalid`` for a channel too
        many.
        """
        if value is None and name.startswith(HIDDEN):
            self.channels.pop(name, None)
            return
        if name not in self.channels and len(self.channels) >= MAX_CHANNELS:
            raise Invalid(f"A thread has at most {MAX_CHANNELS:,} values at its top level: put them into one object.")
        if isinstance(value, list) and len(value) <= MAX_ELEMENTS:
            self._set_list(name, [encode(element) for element in value])
            return
        encoded = encode(value)
        old = self.channels.get(name)
        if isinstance(old, ValueChannel) and old.value == encoded:
            return
        number = self._log(encoded) if len(encoded) > INLINE_BYTES else 0
        self.channels[name] = ValueChannel(encoded, number)

    def apply(self, update: Mapping[str, Any]) -> None:
        """Merge ``update`` (channel → value); ``messages`` is a list of messages, structs or ``msgspec.Raw``."""
        for name, value in update.items():
            if name == MESSAGES:
                self.merge_messages([bytes(m) if isinstance(m, msgspec.Raw) else encode(m) for m in value])
            else:
                self.set(name, value)

    def append(self, element: bytes, name: str = MESSAGES) -> None:
        """Add one element (JSON) at the end of the list channel ``name``."""
        self._list(name).append(element, self._log(element))

    def merge_messages(self, messages: Iterable[bytes]) -> None:
        """Merge messages (JSON with an ``id``) the way clients expect.

        A message whose id is there already takes that one's place, ``{"type": "remove", "id": …}`` takes it out
        (``__remove_all__`` takes out everything before it), any other is appended.
        """
        channel = self._list(MESSAGES)
        places = channel.places()
        fresh = [(message, _identity(message)) for message in messages]
        if not any(identity.type == "remove" or identity.id in places for _, identity in fresh):
            for message, identity in fresh:
                channel.append(message, self._log(message))
                places[identity.id] = len(channel.elements) - 1
            return
        kept: list[tuple[bytes, int] | None] = list(zip(channel.elements, channel.numbers(), strict=True))
        for message, identity in fresh:
            place = places.get(identity.id)
            if identity.type == "remove":
                if identity.id == REMOVE_ALL:
                    kept, places = [], {}
                elif place is not None:
                    kept[place] = None
                    del places[identity.id]
            elif place is not None:
                kept[place] = (message, self._log(message))
            else:
                places[identity.id] = len(kept)
                kept.append((message, self._log(message)))
        channel.rebuild([entry for entry in kept if entry is not None])

    def _set_list(self, name: str, elements: list[bytes]) -> None:
        old = self._list(name)
        numbers = dict(zip(old.elements, old.numbers(), strict=True))
        old.rebuild([(element, numbers.get(element) or self._log(element)) for element in elements])

    def _list(self, name: str) -> ListChannel:
        channel = self.channels.get(name)
        if not isinstance(channel, ListChannel):
            channel = self.channels[name] = ListChannel()
        return channel

    def _log(self, encoded: bytes) -> int:
        self.last_number += 1
        self.pending.append((self.last_number, encoded))
        return self.last_number
