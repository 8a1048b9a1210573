"""Frames on the socket between worker and engine: a length of four bytes, little-endian, then a msgpack array."""

from __future__ import annotations

import asyncio
import itertools
import struct
import threading
from collections.abc import Coroutine
from typing import Any

import ormsgpack

from agent_service_graphs.projection import storable

LENGTH = struct.Struct("<I")
COUNT = struct.Struct(">BI")
ARRAY = 0xDD
"""First byte of a msgpack array whose length has four bytes."""

FRAME_BYTES = 1024 * 1024
"""A frame that has grown to so many bytes is sent at once."""
MAX_MESSAGE_BYTES = 64 * 1024 * 1024
"""A larger message ends its run or its request."""


class Connection:
    """The worker's end. Messages of one turn of the event loop share a frame."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._reader = reader
        self._writer = writer
        self._packed: list[bytes] = []
        self._size = 0
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}

    @property
    def in_loop(self) -> bool:
        """Whether the calling thread runs the event loop."""
        return threading.get_ident() == self._thread

    def send(self, **message: Any) -> int:
        """Send ``message`` with the others of this turn of the loop; return its size in bytes."""
        packed = self._pack(message)
        if not packed:
            return 0
        if not self._packed:
            self.loop.call_soon(self._flush)
        self._packed.append(packed)
        self._size += len(packed)
        if self._size > FRAME_BYTES:
            self._flush()
        return len(packed)

    def _flush(self) -> None:
        packed, self._packed, self._size = self._packed, [], 0
        if packed:
            body = COUNT.pack(ARRAY, len(packed)) + b"".join(packed)
            self._writer.write(LENGTH.pack(len(body)) + body)

    def _pack(self, message: dict[str, Any]) -> bytes:
        """Return ``message`` as msgpack; instead of one that cannot be sent, what ends its run or its request."""
        try:
            packed = ormsgpack.packb(message)
        except TypeError:
            try:
                packed = ormsgpack.packb(_storable(message))
            except TypeError as error:
                return self._refusal(message, f"{error}. Use JSON values.")
        if len(packed) > MAX_MESSAGE_BYTES:
            return self._refusal(message, f"it has {len(packed):,} bytes, and {MAX_MESSAGE_BYTES:,} are the maximum.")
        return packed

    def _refusal(self, message: dict[str, Any], reason: str) -> bytes:
        """Return what ends the run or the request of ``message``; empty for a request of this process itself."""
        reason = f"The {message['op']!r} of a graph cannot be sent: {reason}"
        if message["op"] in {"store", "threads", "tool"}:
            self.answered(message["id"], None, reason)
            return b""
        about = {"error": "CannotSend", "message": reason}
        if "run" in message:
            return ormsgpack.packb({"op": "end", "run": message["run"], "status": "error", **about})
        return ormsgpack.packb({"op": "answer", "id": message["id"], **about})

    async def receive(self) -> list[dict[str, Any]]:
        """Return the messages of the next frame. Raises ``asyncio.IncompleteReadError`` when the engine is gone."""
        (length,) = LENGTH.unpack(await self._reader.readexactly(LENGTH.size))
        found: list[dict[str, Any]] = ormsgpack.unpackb(await self._reader.readexactly(length))
        return found

    async def request(self, **message: Any) -> Any:
        """Send ``message`` and return the engine's answer to it. Raises ``EngineError``."""
        number = next(self._numbers)
        answer = self._answers[number] = self.loop.create_future()
        self.send(**message, id=number)
        try:
            return await answer
        finally:
            del self._answers[number]

    def wait_for(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Wait for ``work`` in a thread outside the event loop. Raises ``RuntimeError`` inside of it."""
        if self.in_loop:
            work.close()
            raise RuntimeError(
                "A synchronous call would block every run of this process: call the method that begins with 'a' "
                "(aget, aput, asearch) in async nodes."
            )
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    def answered(self, number: int, value: Any, error: str = "") -> None:
        """Take the engine's answer to the request ``number``."""
        answer = self._answers.get(number)
        if answer is None or answer.done():
            return
        if error:
            answer.set_exception(EngineError(error))
        else:
            answer.set_result(value)


def _storable(value: Any) -> Any:
    """Return ``value`` with texts that have an encoding."""
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, dict):
        return {_storable(name): _storable(one) for name, one in value.items()}
    return [_storable(one) for one in value] if isinstance(value, (list, tuple)) else value


class EngineError(Exception):
    """The engine refused a request of the worker."""
