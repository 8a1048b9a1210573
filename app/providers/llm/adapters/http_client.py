"""The HTTP client for all providers, with timeouts and size limits. Responses are untrusted."""

import asyncio
import io
import os

import aiohttp
import msgspec

from app.base.errors import ModelError, ModelProtocol, ModelTimeout, ModelUnavailable
from app.infra.secrets.rotating_secret import RotatingSecret
from app.infra.secrets.secret import Secret
from app.providers.llm.adapters.provider_errors import Provider, clean, error_detail_of, status_error, stream_error
from app.providers.llm.adapters.sse import LineTooLong, SseReader

ERROR_BODY_BYTES = 64 << 10

ERROR_BODY_SECONDS = 5.0

LISTING_BYTES = 8 << 20

DRAIN_SECONDS = 0.25

READ_BYTES = 64 << 10

LARGE_BODY = 1 << 20

EVENT_STREAM = "text/event-stream"

JSON = "application/json"

TOO_LONG = "did not finish its answer within the total timeout"


class ModelTimeouts(msgspec.Struct, frozen=True):
    """Timeouts of a provider, in seconds.

    ``connect``: DNS, TCP and TLS; ``first_token``: from sending a request to the first data of its answer; ``gap``:
    between two pieces of data; ``total``: the whole answer. Comments and incomplete lines do not count as data and do
    not reset ``first_token`` or ``gap``.
    """

    connect: float = 10.0
    first_token: float = 60.0
    gap: float = 30.0
    total: float = 600.0


class SizeLimits(msgspec.Struct, frozen=True):
    """Size limits in bytes: of one event or line of a stream, and of a whole answer."""

    line: int = 1 << 20
    total: int = 64 << 20


CONNECTION_ERRORS = (aiohttp.ClientError, OSError, RuntimeError)
"""Errors of sending and reading; a RuntimeError if the session or the connection is already closed."""


class Endpoint(Provider, frozen=True, kw_only=True):
    """Base URL and keys of a vendor. ``base_url`` has no trailing slash.

    ``keys`` is the source of ``key`` and ``spare_key``, also after a rotation.
    """

    base_url: str
    spare_key: Secret | None = None
    key_header: str = "Authorization"
    key_prefix: str = "Bearer "
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    keys: RotatingSecret = RotatingSecret()


class HttpClient:
    """HTTP client for providers: no redirects, no proxy from the environment, no cookies, no content encoding.

    The session is opened by the first request and is bound to its event loop.
    """

    def __init__(self, timeouts: ModelTimeouts = ModelTimeouts(), limits: SizeLimits = SizeLimits()) -> None:
        self.timeouts = timeouts
        self.limits = limits
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    async def stream(self, endpoint: Endpoint, path: str, body: bytes) -> "ProviderEventStream":
        """POST the JSON ``body`` and return the event stream of the answer. Raises ``ModelError``."""
        started_at = asyncio.get_running_loop().time()
        timeout = min(self.timeouts.first_token, self.timeouts.total)
        response = await self._send("POST", endpoint, path, timeout, body)
        try:
            _reject_encoding(endpoint, response)
            if response.status != 200:
                raise await _status_error(endpoint, response)
            if response.content_type != EVENT_STREAM:
                raise await _not_a_stream(endpoint, response)
        except BaseException:
            response.close()
            raise
        return ProviderEventStream(endpoint, response, self, started_at)

    async def fetch(self, endpoint: Endpoint, path: str, seconds: float = 10.0, body: bytes | None = None) -> bytes:
        """GET a JSON answer within ``seconds``, or POST if there is a JSON ``body``. Raises ``ModelError``."""
        response = await self._send("GET" if body is None else "POST", endpoint, path, seconds, body, accept=JSON)
        try:
            _reject_encoding(endpoint, response)
            if response.status != 200:
                raise await _status_error(endpoint, response)
            answer = await _read(endpoint, response, LISTING_BYTES, seconds)
            if len(answer) > LISTING_BYTES:
                raise ModelProtocol(f"{endpoint.vendor} sent a list that is too long", vendor=endpoint.vendor)
            return answer
        finally:
            response.close()

    async def aclose(self) -> None:
        """Close all connections; open streams fail."""
        self._closed = True
        if self._session is not None:
            await self._session.close()

    async def _send(
        self,
        method: str,
        endpoint: Endpoint,
        path: str,
        seconds: float,
        body: bytes | None,
        *,
        accept: str = EVENT_STREAM,
    ) -> aiohttp.ClientResponse:
        if self._closed:
            raise ModelUnavailable("this server is shutting down", vendor=endpoint.vendor)
        if self._session is None:
            self._session = self._open_session()
        headers = {"Accept-Encoding": "identity", "User-Agent": "agent-service", **endpoint.headers}
        headers["Accept"] = accept
        if body is not None:
            headers["Content-Type"] = JSON
        if endpoint.key:
            headers[endpoint.key_header] = endpoint.key_prefix + endpoint.key.reveal()
        # aiohttp warns about large bytes and sends them in one write; a file object is sent in chunks.
        data = body if body is None or len(body) <= LARGE_BODY else io.BytesIO(body)
        try:
            async with asyncio.timeout(seconds):
                return await self._session.request(
                    method, endpoint.base_url + path, data=data, headers=headers, allow_redirects=False
                )
        except CONNECTION_ERRORS as error:
            raise _send_error(endpoint.vendor, error, seconds) from None

    def _open_session(self) -> aiohttp.ClientSession:
        connect = self.timeouts.connect
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30, ttl_dns_cache=60),
            timeout=aiohttp.ClientTimeout(total=None, connect=connect, sock_connect=connect),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            read_bufsize=READ_BYTES,
        )


class ProviderEventStream:
    """The event stream of one answer. Always ``close`` it; if read to its end, the connection is reused."""

    def __init__(
        self, endpoint: Endpoint, response: aiohttp.ClientResponse, client: HttpClient, started_at: float
    ) -> None:
        self._vendor = endpoint.vendor
        self._response = response
        self._loop = asyncio.get_running_loop()
        self._sse = SseReader(client.limits.line)
        self._bytes_left = client.limits.total
        self._gap = client.timeouts.gap
        self._total_deadline = started_at + client.timeouts.total
        self._first_deadline: float | None = started_at + client.timeouts.first_token
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._tick_at = 0.0
        self._reading = False
        self._timed_out = False

    async def next(self) -> list[bytes]:
        """Return the data of the next events, at least one; an empty list at the end of the answer.

        Raises ``ModelError``. Time that the caller spends between two calls counts for the total timeout only.
        """
        self._watch()
        reader = self._response.content
        self._reading = True
        try:
            while data := await reader.readany():
                self._bytes_left -= len(data)
                if self._bytes_left < 0:
                    raise ModelProtocol(
                        f"{self._vendor} sent an answer above the size limit", vendor=self._vendor, provoked=True
                    )
                if events := self._sse.feed(data):
                    self._first_deadline = None
                    return events
            return []
        except LineTooLong:
            raise ModelProtocol(
                f"{self._vendor} sent a line above the size limit", vendor=self._vendor, provoked=True
            ) from None
        except CONNECTION_ERRORS as error:
            raise self._read_error(error) from None
        finally:
            self._reading = False

    def end_within(self, seconds: float) -> None:
        """Shorten the total deadline to ``seconds`` from now."""
        self._total_deadline = min(self._total_deadline, self._loop.time() + seconds)

    async def drain(self) -> None:
        """Read the rest of the response after the last event, so that the connection can be reused."""
        if self._response.content.is_eof():
            return
        self.end_within(DRAIN_SECONDS)
        try:
            while await self.next():
                pass
        except ModelError:
            return

    def close(self) -> None:
        """Close the response; the connection is dropped unless the answer was read to its end."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._response.close()

    def _watch(self) -> None:
        """Set the deadline of the next read. One timer follows it lazily, which is cheaper than a timer per read."""
        now = self._loop.time()
        if now >= self._total_deadline:
            # If data is always buffered, no read waits and the timer never fires.
            raise ModelTimeout(f"{self._vendor} {TOO_LONG}", vendor=self._vendor, provoked=self._first_deadline is None)
        deadline = now + self._gap if self._first_deadline is None else self._first_deadline
        self._deadline = deadline = min(deadline, self._total_deadline)
        timer = self._timer
        if timer is None or self._tick_at > deadline:
            if timer is not None:
                timer.cancel()
            self._timer = self._loop.call_at(deadline, self._tick)
            self._tick_at = deadline  # TimerHandle.when() is not reliable once the time has passed

    def _tick(self) -> None:
        self._timer = None
        if not self._reading:
            return
        if self._loop.time() < self._deadline:
            self._timer = self._loop.call_at(self._deadline, self._tick)
            self._tick_at = self._deadline
            return
        self._timed_out = True
        self._response.close()

    def _read_error(self, error: Exception) -> ModelError:
        if not self._timed_out:
            return ModelUnavailable(
                f"the connection to {self._vendor} broke inside its answer ({type(error).__name__})",
                vendor=self._vendor,
            )
        if self._deadline >= self._total_deadline:
            cause = TOO_LONG
        elif self._first_deadline is not None:
            cause = "sent no data within the timeout for the first token"
        else:
            cause = f"sent no data for {self._gap:g} s in the middle of its answer"
        provoked = cause is TOO_LONG and self._first_deadline is None  # a long answer, not a slow provider
        return ModelTimeout(f"{self._vendor} {cause}", vendor=self._vendor, provoked=provoked)


def _send_error(vendor: str, error: Exception, seconds: float) -> ModelError:
    """Return the error for a request without a response."""
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return ModelTimeout(f"no connection to {vendor} within the connect timeout", vendor=vendor)
    if isinstance(error, TimeoutError):
        return ModelTimeout(f"{vendor} did not start its answer within {seconds:g} s", vendor=vendor)
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return ModelUnavailable(f"the host name of {vendor} does not resolve", vendor=vendor)
    if isinstance(error, aiohttp.ClientSSLError):
        return ModelUnavailable(f"no TLS connection to {vendor}: its certificate or protocol is refused", vendor=vendor)
    if isinstance(error, aiohttp.ClientConnectorError):
        cause = os.strerror(error.os_error.errno).lower() if error.os_error.errno else "unreachable"
        return ModelUnavailable(f"cannot connect to {vendor}: {cause}", vendor=vendor)
    if isinstance(error, aiohttp.ClientResponseError):
        return ModelProtocol(f"{vendor} sent a response that is not valid HTTP", vendor=vendor)
    return ModelUnavailable(f"the connection to {vendor} broke before its answer", vendor=vendor)


def _reject_encoding(endpoint: Endpoint, response: aiohttp.ClientResponse) -> None:
    """Reject an encoded response: decompression would let a small answer grow without bound."""
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise ModelProtocol(f"{endpoint.vendor} sent a content encoding that was not requested", vendor=endpoint.vendor)


async def _status_error(endpoint: Endpoint, response: aiohttp.ClientResponse) -> ModelError:
    try:
        body = await _read(endpoint, response, ERROR_BODY_BYTES, ERROR_BODY_SECONDS)
    except ModelError:
        body = b""
    return status_error(endpoint, response.status, response.headers, body)


async def _not_a_stream(endpoint: Endpoint, response: aiohttp.ClientResponse) -> ModelError:
    """Return the error for a 200 that is not an event stream: a JSON error object, or any other content."""
    if response.content_type == JSON:
        body = await _read(endpoint, response, ERROR_BODY_BYTES, ERROR_BODY_SECONDS)
        if detail := error_detail_of(body):
            return stream_error(endpoint, detail)
    kind = clean(response.content_type, 60)
    sentence = f"{endpoint.vendor} sent {kind} instead of an event stream: {endpoint.address_hint}"
    return ModelProtocol(sentence, vendor=endpoint.vendor)


async def _read(endpoint: Endpoint, response: aiohttp.ClientResponse, limit: int, seconds: float) -> bytes:
    """Read the body, up to slightly more than ``limit`` bytes."""
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            while len(body) <= limit and (data := await response.content.readany()):
                body += data
    except CONNECTION_ERRORS as error:
        if isinstance(error, TimeoutError):
            raise ModelTimeout(f"{endpoint.vendor} did not finish its answer in time", vendor=endpoint.vendor) from None
        raise ModelUnavailable(f"the connection to {endpoint.vendor} broke", vendor=endpoint.vendor) from None
    return bytes(body)
