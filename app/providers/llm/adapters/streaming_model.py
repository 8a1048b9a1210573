"""What the adapters of HTTP providers share: opening a stream, and driving a parser over its events."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeVar

import msgspec
import structlog

from app.base.errors import ModelCredentials, ModelError, ModelProtocol, ModelRejected
from app.domain.messages import Usage
from app.providers.llm.adapters.http_client import Endpoint, HttpClient, ProviderEventStream
from app.providers.llm.adapters.provider_errors import clean
from app.providers.llm.billing import CallBill
from app.providers.llm.port import Finished, ModelEvent, ModelRequest

TAIL_SECONDS = 5.0
"""How long an answer that said why it stopped may still take to name its usage."""

MAX_CALLS = 128
"""How many tool calls one answer may ask for."""

REASON_CHARACTERS = 40

MAX_TOKENS = 1_000_000_000
"""Tokens of one answer that are believed: more than any model takes, and far from the bounds of the database."""

log = structlog.get_logger(__name__)

_encode = msgspec.json.Encoder().encode
_Answer = TypeVar("_Answer")


class StreamParser(Protocol):
    """Reads one answer. ``complete``: it has said why it stopped. ``ended``: nothing of worth can follow.

    ``usage`` is what the provider has reported so far; ``usage_reported``: that is its final figure.
    """

    complete: bool
    ended: bool
    usage_reported: bool

    @property
    def usage(self) -> Usage | None:
        """The usage that was reported so far."""
        ...

    def feed(self, payload: bytes) -> Sequence[ModelEvent]:
        """The events in the data of one server-sent event. Raises ``ModelError``."""
        ...

    def close(self) -> Sequence[ModelEvent]:
        """The events that close an answer which is complete; the last one is ``Finished``."""
        ...


class HttpModel:
    """A model behind HTTP. Subclasses say how to ask (``_ask``) and what a listing looks like."""

    def __init__(self, name: str, http: HttpClient, endpoint: Endpoint) -> None:
        self.vendor = endpoint.vendor
        self.name = name
        self._http = http
        self._endpoint = endpoint
        self._keys = endpoint.keys
        self._version = self._keys.version
        self._first_key = endpoint.key
        self._first_key = endpoint.key

    @property
    def key_name(self) -> str:
        """A name of the key that is used now, which tells nothing of it: it differs when the key does."""
        return f"{self._version}{'' if self._endpoint.key == self._first_key else ' spare'}"

    async def _ask(self, request: ModelRequest) -> tuple[ProviderEventStream, StreamParser]:
        raise NotImplementedError

    async def list_models(self, seconds: float = 10.0) -> list[str]:
        """The names of the models on offer. Costs nothing. Raises ``ModelError``."""
        raise NotImplementedError

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """Ask and yield the answer's events (``app.providers.llm.port.Model``)."""
        bill = CallBill(f"{self.vendor}:{self.name}", request)
        try:
            stream, parser = await self._ask(request)
        except asyncio.CancelledError:
            bill.abort(None)  # the request was sent: the provider answers it all the same
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
                # Past the reason why it stopped only the usage is missing, and some servers never send it.
                if not parser.complete:
                    raise
            if not parser.complete:
                raise ModelProtocol(f"{self.vendor} ended its answer before it was complete", vendor=self.vendor)
            for event in parser.close():
                yield event if not isinstance(event, Finished) else self._billed(bill, parser, event)
            await stream.drain()
        except ModelError:
            if not bill.streamed and parser.usage is None:
                bill.void()  # the provider failed before it answered
            raise
        finally:
            stream.close()
            bill.abort(parser.usage)

    def _billed(self, bill: CallBill, parser: StreamParser, event: Finished) -> Finished:
        usage = bill.finish(parser.usage if parser.usage_reported else None)
        return event if event.usage == usage else msgspec.structs.replace(event, usage=usage)

    async def _post(self, path: str, body: dict[str, Any]) -> ProviderEventStream:
        try:
            encoded = _encode(body)
        except (TypeError, ValueError, RecursionError) as error:
            cause = type(error).__name__
            raise ModelRejected(f"the request cannot be written as JSON ({cause})", vendor=self.vendor) from None
        return await self._opened(lambda endpoint: self._http.stream(endpoint, path, encoded))

    async def _get(self, path: str, seconds: float) -> bytes:
        return await self._opened(lambda endpoint: self._http.fetch(endpoint, path, seconds))

    async def _opened(self, send: Callable[[Endpoint], Awaitable[_Answer]]) -> _Answer:
        """What ``send`` gets with our key; where that is refused, with the spare one, which is used from then on.

        Where both are, the keys are read again, and if they are others now, those count.
        """
        self._renew()
        version = self._version
        try:
            return await self._with_either(send)
        except ModelCredentials:
            # another request may have had them read anew meanwhile
            if self._keys.version == version and not self._keys.refresh():
                raise
        self._renew()
        return await self._with_either(send)

    async def _with_either(self, send: Callable[[Endpoint], Awaitable[_Answer]]) -> _Answer:
        endpoint = self._endpoint
        try:
            return await send(endpoint)
        except ModelCredentials:
            if not endpoint.spare_key:
                raise
        other = msgspec.structs.replace(endpoint, key=endpoint.spare_key, spare_key=endpoint.key)
        answer = await send(other)
        if self._endpoint is endpoint:  # not when the keys are others by now
            self._endpoint = other
            log.warning("model_key_switched", vendor=self.vendor)
        return answer

    def _renew(self) -> None:
        """Take up the keys that the ring has now; a switch to the spare one counts until they are others."""
        if self._version != self._keys.version:
            key, spare = self._keys.pair()
            self._endpoint = msgspec.structs.replace(self._endpoint, key=key, spare_key=spare)
            self._first_key = key
            self._version = self._keys.version


def unreadable(vendor: str, error: Exception) -> ModelProtocol:
    """The error for data that cannot be decoded; only the place of a wrong shape is told, no data."""
    if isinstance(error, msgspec.ValidationError):
        shape = clean(str(error), 120)
        return ModelProtocol(f"{vendor} sent JSON of a wrong shape: {shape}", vendor=vendor, provoked=True)
    return ModelProtocol(f"{vendor} sent something that is no JSON", vendor=vendor)


def count(value: int | None) -> int:
    """A provider's count of tokens, never negative and never beyond reason."""
    return min(max(0, value or 0), MAX_TOKENS)


def details(**counts: int | None) -> dict[str, int]:
    """The counts that are there and not zero."""
    return {name: count(value) for name, value in counts.items() if value and value > 0}
