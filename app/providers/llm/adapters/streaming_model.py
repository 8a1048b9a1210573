"""Base class of HTTP provider adapters: open a stream and feed its events to a parser."""

import abc
import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
import structlog

from app.base.errors import ModelCredentials, ModelError, ModelProtocol, ModelRejected
from app.domain.messages import Usage
from app.providers.llm.adapters.http_client import Endpoint, HttpClient, ProviderEventStream
from app.providers.llm.adapters.provider_errors import clean
from app.providers.llm.billing import CallBill, count
from app.providers.llm.port import Finished, ModelEvent, ModelRequest

TAIL_SECONDS = 5.0
"""Seconds to wait for the usage after an answer's finish reason."""

MAX_CALLS = 128
"""Limit of tool calls in one answer."""

REASON_CHARACTERS = 40

log = structlog.get_logger(__name__)

_encode = msgspec.json.Encoder().encode
_Answer = TypeVar("_Answer")


class StreamParser(abc.ABC):
    """Base class of parsers of one answer. Subclasses implement ``usage``, ``feed`` and ``close``.

    ``complete``: the finish reason has arrived. ``ended``: the stream has ended. ``usage_reported``: the usage is
    final.
    """

    reasons: Mapping[str, str]
    """The vendor's finish reasons that have another name here."""

    def __init__(self, endpoint: Endpoint, model: str) -> None:
        self.complete = False
        self.ended = False
        self.usage_reported = False
        self._endpoint = endpoint
        self._model = model
        self._reason = ""

    @property
    @abc.abstractmethod
    def usage(self) -> Usage | None:
        """The usage reported so far."""

    @abc.abstractmethod
    def feed(self, payload: bytes) -> Sequence[ModelEvent]:
        """Parse the data of one server-sent event. Raises ``ModelError``."""

    @abc.abstractmethod
    def close(self) -> Sequence[ModelEvent]:
        """Return the closing events of a complete answer; the last one is ``Finished``."""

    def _finished(self, *, calls: bool) -> Finished:
        reason = self.reasons.get(self._reason, self._reason)
        if reason == "stop" and calls:
            reason = "tool_calls"
        reason = clean(reason, REASON_CHARACTERS)
        return Finished(reason=reason, model=self._model, vendor=self._endpoint.vendor, usage=self.usage)

    def _violation(self, words: str) -> ModelProtocol:
        vendor = self._endpoint.vendor
        return ModelProtocol(f"{vendor} {words}", vendor=vendor, provoked=True)

    def _check_room(self, calls: int) -> None:
        if calls == MAX_CALLS:
            raise self._violation(f"asked for more than {MAX_CALLS} tool calls at once")


class HttpModel(abc.ABC):
    """Base class of models behind HTTP. Subclasses implement ``_ask`` and ``list_models``."""

    def __init__(self, name: str, http: HttpClient, endpoint: Endpoint) -> None:
        self.vendor = endpoint.vendor
        self.name = name
        self._http = http
        self._endpoint = endpoint
        self._keys = endpoint.keys
        self._version = self._keys.version
        self._first_key = endpoint.key

    @property
    def key_name(self) -> str:
        """An opaque name of the key in use, which changes with the key and reveals nothing about it."""
        return f"{self._version}{'' if self._endpoint.key == self._first_key else ' spare'}"

    @abc.abstractmethod
    async def _ask(self, request: ModelRequest) -> tuple[ProviderEventStream, StreamParser]: ...

    @abc.abstractmethod
    async def list_models(self, seconds: float = 10.0) -> list[str]:
        """Return the names of available models, free of charge. Raises ``ModelError``."""

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """Send the request and yield the answer's events (``app.providers.llm.port.Model``)."""
        bill = CallBill(f"{self.vendor}:{self.name}", request)
        try:
            stream, parser = await self._ask(request)
        except asyncio.CancelledError:
            bill.abort(None)  # the request was sent, and the provider charges for its answer
            raise
        try:
            try:
                while not parser.ended and (payloads := await stream.next()):
                    for payload in payloads:
                        for event in parser.feed(payload):
                            bill.add(event)
                            yield event
                    if parser.complete:
                        stream.end_within(TAIL_SECONDS)
            except ModelError:
                # After the finish reason only the usage is missing, and some servers never send it.
                if not parser.complete:
                    raise
            if not parser.complete:
                raise ModelProtocol(f"{self.vendor} ended its answer before it was complete", vendor=self.vendor)
            for event in parser.close():
                yield event if not isinstance(event, Finished) else self._with_billed_usage(bill, parser, event)
            await stream.drain()
        except ModelError:
            if not bill.streamed and parser.usage is None:
                bill.void()  # the provider failed before it answered
            raise
        finally:
            stream.close()
            bill.abort(parser.usage)

    def _with_billed_usage(self, bill: CallBill, parser: StreamParser, event: Finished) -> Finished:
        usage = bill.finish(parser.usage if parser.usage_reported else None)
        return event if event.usage == usage else msgspec.structs.replace(event, usage=usage)

    async def _post(self, path: str, body: dict[str, Any]) -> ProviderEventStream:
        try:
            encoded = _encode(body)
        except (TypeError, ValueError, RecursionError) as error:
            cause = type(error).__name__
            raise ModelRejected(f"the request cannot be written as JSON ({cause})", vendor=self.vendor) from None
        return await self._with_current_keys(lambda endpoint: self._http.stream(endpoint, path, encoded))

    async def _get(self, path: str, seconds: float) -> bytes:
        return await self._with_current_keys(lambda endpoint: self._http.fetch(endpoint, path, seconds))

    async def _with_current_keys(self, send: Callable[[Endpoint], Awaitable[_Answer]]) -> _Answer:
        """Call ``send`` with the current key; if it is rejected, switch to the spare key.

        If both are rejected, reload the keys and retry if they have changed.
        """
        self._adopt_rotated_keys()
        version = self._version
        try:
            return await self._with_spare_key(send)
        except ModelCredentials:
            # a concurrent request may have reloaded them already
            if self._keys.version == version and not self._keys.refresh():
                raise
        self._adopt_rotated_keys()
        return await self._with_spare_key(send)

    async def _with_spare_key(self, send: Callable[[Endpoint], Awaitable[_Answer]]) -> _Answer:
        endpoint = self._endpoint
        try:
            return await send(endpoint)
        except ModelCredentials:
            if not endpoint.spare_key:
                raise
        other = msgspec.structs.replace(endpoint, key=endpoint.spare_key, spare_key=endpoint.key)
        answer = await send(other)
        if self._endpoint is endpoint:  # unless the keys were rotated in the meantime
            self._endpoint = other
            log.warning("model_key_switched", vendor=self.vendor)
        return answer

    def _adopt_rotated_keys(self) -> None:
        """Adopt rotated keys. A switch to the spare key lasts until the next rotation."""
        if self._version != self._keys.version:
            key, spare = self._keys.pair()
            self._endpoint = msgspec.structs.replace(self._endpoint, key=key, spare_key=spare)
            self._first_key = key
            self._version = self._keys.version


def unreadable(vendor: str, error: Exception) -> ModelProtocol:
    """Return the error for undecodable data; it names the path of a wrong shape and quotes no data."""
    if isinstance(error, msgspec.ValidationError):
        shape = clean(str(error), 120)
        return ModelProtocol(f"{vendor} sent JSON of a wrong shape: {shape}", vendor=vendor, provoked=True)
    return ModelProtocol(f"{vendor} sent data that is not valid JSON", vendor=vendor)


def details(**counts: int | None) -> dict[str, int]:
    """Return the counts that are present and positive."""
    return {name: count(value) for name, value in counts.items() if value and value > 0}
