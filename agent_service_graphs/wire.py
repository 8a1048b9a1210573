"""Frames on the socket between worker and engine: a length of four bytes, little-endian, then a msgpack array."""

from __future__ import annotations

import asyncio
import itertools
import struct
import threading
from typing import Any

import ormsgpack

from agent_service_graphs.projection import storable

LENGTH = struct.Struct("<I")


class Connection:
    """The worker's end. Messages of one turn of the event loop share a frame."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._reader = reader
        self._writer = writer
        self._messages: list[dict[str, Any]] = []
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}

    @property
    def in_loop(self) -> bool:
        """Whether the calling thread runs the event loop."""
        return threading.get_ident() == self._thread

    def send(self, **message: Any) -> None:
        """Send ``message`` with the others of this turn of the loop."""
        if not self._messages:
            self.loop.call_soon(self._flush)
        self._messages.append(message)

    def _flush(self) -> None:
        messages, self._messages = self._messages, []
        try:
            body = ormsgpack.packb(messages)
        except TypeError:  # the other messages, of other runs, must not be lost with one
            body = ormsgpack.packb([fit for one in messages if (fit := self._fitting(one)) is not None])
        self._writer.write(LENGTH.pack(len(body)) + body)

    def _fitting(self, message: dict[str, Any]) -> dict[str, Any] | None:
        """Return ``message`` in a form that msgpack holds; else what ends its run or its request, or None."""
        try:
            ormsgpack.packb(message := _storable(message))
        except TypeError as error:
            reason = f"The {message['op']!r} of a graph cannot be sent: {error}. Use JSON values."
            if message["op"] == "store":
                self.answered(message["id"], None, reason)
                return None
            about = {"error": "CannotSend", "message": reason}
            if "run" in message:
                return {"op": "end", "run": message["run"], "status": "error", **about}
            return {"op": "answer", "id": message["id"], **about}
        return message

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

    def request_from_thread(self, **message: Any) -> Any:
        """Like ``request``, for code outside the event loop, which waits. Raises ``RuntimeError`` inside of it."""
        if self.in_loop:
            raise RuntimeError(
                "A synchronous call would block every run of this process: call the method that begins with 'a' "
                "(aget, aput, asearch) in async nodes."
            )
        return asyncio.run_coroutine_threadsafe(self.request(**message), self.loop).result()

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
