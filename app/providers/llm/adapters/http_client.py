"""The one HTTP client for providers' streams. Everything it reads is untrusted and bounded in bytes and in time.

What bounds a provider: deadlines and caps.
"""

import asyncio
import io
import os

import aiohttp
import msgspec

from app.base.errors import ModelError, ModelProtocol, ModelTimeout, ModelUnavailable
from app.infra.secrets.rotating_secret import RotatingSecret
from app.infra.secrets.secret import Secret
from app.providers.llm.adapters.provider_errors import address_hint, clean, complaint_of, status_error, stream_error
from app.providers.llm.adapters.sse import LineTooLong, SseReader


class ModelTimeouts(msgspec.Struct, frozen=True):
    """How long a provider may take, in seconds.

    ``connect`` bounds name look-up, TCP and TLS; ``first_token`` the time from sending a request to the first data of
    its answer; ``gap`` the silence between two pieces of data; ``total`` the whole answer. Comments and half lines are
    no data: a provider that only drips them meets ``first_token`` or ``gap``.
    """

    connect: float = 10.0
    first_token: float = 60.0
    gap: float = 30.0
    total: float = 600.0


class SizeLimits(msgspec.Struct, frozen=True):
    """How much a provider may send, in bytes: in one event or line of a stream, and in a whole answer."""

    line: int = 1 << 20
    total: int = 64 << 20


ERROR_BODY_BYTES = 64 << 10
ERROR_BODY_SECONDS = 5.0
LISTING_BYTES = 8 << 20
DRAIN_SECONDS = 0.25
READ_BYTES = 64 << 10
LARGE_BODY = 1 << 20
EVENT_STREAM = "text/event-stream"
JSON = "application/json"
LOST = (aiohttp.ClientError, OSError, RuntimeError)
"""What asking and reading can raise; a RuntimeError where the session or the connection is closed already."""
TOO_LONG = "did not finish its answer within the total deadline"


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where a vendor listens, and the keys that open it. ``base_url`` has no slash at its end.

    ``keys`` are where ``key`` and ``spare_key`` come from, and come from again when they change.
    """

    vendor: str
    base_url: str
    key: Secret | None = None
    spare_key: Secret | None = None
    key_header: str = "Authorization"
    key_prefix: str = "Bearer "
    headers: dict[str, str] = {}
    keys: RotatingSecret = RotatingSecret()


class HttpClient:
    """Sends requests to providers: no redirects, no proxy from the environment, no cookies, no content encoding.

    The session opens with the first request and belongs to the event loop of that moment.
    """

    def __init__(self, deadlines: ModelTimeouts = ModelTimeouts(), caps: SizeLimits = SizeLimits()) -> None:
        self.deadlines = deadlines
        self.caps = caps
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    async def stream(self, endpoint: Endpoint, path: str, body: bytes) -> "ProviderEventStream":
        """POST the JSON ``body`` and return the events of the answer. Raises ``ModelError``."""
        begun = asyncio.get_running_loop().time()
        timeout = min(self.deadlines.first_token, self.deadlines.total)
        response = await self._send("POST", endpoint, path, timeout, body)
        try:
            _refuse_encoding(endpoint, response)
            if response.status != 200:
                raise await _refusal(endpoint, response)
            if response.content_type != EVENT_STREAM:
                raise await _no_stream(endpoint, response)
        except BaseException:
            response.close()
            raise
        return ProviderEventStream(endpoint, response, self, begun)

    async def fetch(self, endpoint: Endpoint, path: str, seconds: float = 10.0, body: bytes | None = None) -> bytes:
        """GET a JSON answer within ``seconds``, or POST the JSON ``body`` for one. Raises ``ModelError``."""
        response = await self._send("GET" if body is None else "POST", endpoint, path, seconds, body, accept=JSON)
        try:
            _refuse_encoding(endpoint, response)
            if response.status != 200:
                raise await _refusal(endpoint, response)
            answer = await _read(endpoint, response, LISTING_BYTES, seconds)
            if len(answer) > LISTING_BYTES:
                raise ModelProtocol(f"{endpoint.vendor} sent a list that is too long", vendor=endpoint.vendor)
            return answer
        finally:
            response.close()

    async def aclose(self) -> None:
        """Close every connection; streams that are still open fail."""
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
        # aiohttp warns of large bytes and sends them in one piece; a file is sent in pieces.
        data = body if body is None or len(body) <= LARGE_BODY else io.BytesIO(body)
        try:
            async with asyncio.timeout(seconds):
                return await self._session.request(
                    method, endpoint.base_url + path, data=data, headers=headers, allow_redirects=False
                )
        except LOST as error:
            raise _unanswered(endpoint.vendor, error, seconds) from None

    def _open_session(self) -> aiohttp.ClientSession:
        connect = self.deadlines.connect
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30, ttl_dns_cache=60),
            timeout=aiohttp.ClientTimeout(total=None, connect=connect, sock_connect=connect),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            read_bufsize=READ_BYTES,
        )


class ProviderEventStream:
    """The events of one answer. ``close`` it in every case; an answer read to its end gives its connection back."""

    def __init__(self, endpoint: Endpoint, response: aiohttp.ClientResponse, client: HttpClient, begun: float) -> None:
        self._vendor = endpoint.vendor
        self._response = response
        self._loop = asyncio.get_running_loop()
        self._sse = SseReader(client.caps.line)
        self._left = client.caps.total
        self._gap = client.deadlines.gap
        self._end = begun + client.deadlines.total
        self._first: float | None = begun + client.deadlines.first_token
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._tick_at = 0.0
        self._reading = False
        self._late = False

    async def next(self) -> list[bytes]:
        """The data of the events that arrived, at least one; an empty list at the end of the answer.

        Raises ``ModelError``. The time that the caller spends between two calls counts for no deadline but the total.
        """
        self._watch()
        reader = self._response.content
        self._reading = True
        try:
            while data := await reader.readany():
                self._left -= len(data)
                if self._left < 0:
                    raise ModelProtocol(
                        f"{self._vendor} sent more than the cap of an answer", vendor=self._vendor, provoked=True
                    )
                if events := self._sse.feed(data):
                    self._first = None
                    return events
            return []
        except LineTooLong:
            raise ModelProtocol(
                f"{self._vendor} sent a line above the cap of a line", vendor=self._vendor, provoked=True
            ) from None
        except LOST as error:
            raise self._broken(error) from None
        finally:
            self._reading = False

    def end_within(self, seconds: float) -> None:
        """Bring the total deadline forward: what comes now is not worth waiting for longer."""
        self._end = min(self._end, self._loop.time() + seconds)

    async def drain(self) -> None:
        """Read what is left after the last event, so that the connection can be used again."""
        if self._response.content.is_eof():
            return
        self.end_within(DRAIN_SECONDS)
        try:
            while await self.next():
                pass
        except ModelError:
            return

    def close(self) -> None:
        """End it at once: the connection is dropped, unless the answer was read to its end."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._response.close()

    def _watch(self) -> None:
        """Set the deadline of the read that begins. One timer follows it lazily: arming one a read would cost more."""
        moment = self._loop.time()
        if moment >= self._end:
            # Where data always waits already, no read ever waits for the timer.
            raise ModelTimeout(f"{self._vendor} {TOO_LONG}", vendor=self._vendor, provoked=self._first is None)
        due = moment + self._gap if self._first is None else self._first
        self._due = due = min(due, self._end)
        timer = self._timer
        if timer is None or self._tick_at > due:
            if timer is not None:
                timer.cancel()
            self._timer = self._loop.call_at(due, self._tick)
            self._tick_at = due  # what call_at gives knows its time only where that lies ahead

    def _tick(self) -> None:
        self._timer = None
        if not self._reading:
            return
        if self._loop.time() < self._due:
            self._timer = self._loop.call_at(self._due, self._tick)
            self._tick_at = self._due
            return
        self._late = True
        self._response.close()

    def _broken(self, error: Exception) -> ModelError:
        if not self._late:
            return ModelUnavailable(
                f"the connection to {self._vendor} broke inside its answer ({type(error).__name__})",
                vendor=self._vendor,
            )
        if self._due >= self._end:
            cause = TOO_LONG
        elif self._first is not None:
            cause = "sent no data before the deadline for the first token"
        else:
            cause = f"sent no data for {self._gap:g} s in the middle of its answer"
        provoked = cause is TOO_LONG and self._first is None  # a long answer, not a slow provider
        return ModelTimeout(f"{self._vendor} {cause}", vendor=self._vendor, provoked=provoked)


def _unanswered(vendor: str, error: Exception, seconds: float) -> ModelError:
    """The error for a request that got no answer."""
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return ModelTimeout(f"no connection to {vendor} within the deadline", vendor=vendor)
    if isinstance(error, TimeoutError):
        return ModelTimeout(f"{vendor} did not begin to answer within {seconds:g} s", vendor=vendor)
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return ModelUnavailable(f"the host name of {vendor} does not resolve", vendor=vendor)
    if isinstance(error, aiohttp.ClientSSLError):
        return ModelUnavailable(f"no TLS connection to {vendor}: its certificate or protocol is refused", vendor=vendor)
    if isinstance(error, aiohttp.ClientConnectorError):
        cause = os.strerror(error.os_error.errno).lower() if error.os_error.errno else "unreachable"
        return ModelUnavailable(f"cannot connect to {vendor}: {cause}", vendor=vendor)
    if isinstance(error, aiohttp.ClientResponseError):
        return ModelProtocol(f"{vendor} answered with something that is no HTTP", vendor=vendor)
    return ModelUnavailable(f"the connection to {vendor} broke before its answer", vendor=vendor)


def _refuse_encoding(endpoint: Endpoint, response: aiohttp.ClientResponse) -> None:
    """Decoding what nobody asked for would let a small answer grow to any size."""
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise ModelProtocol(f"{endpoint.vendor} sent a content encoding nobody asked for", vendor=endpoint.vendor)


async def _refusal(endpoint: Endpoint, response: aiohttp.ClientResponse) -> ModelError:
    try:
        body = await _read(endpoint, response, ERROR_BODY_BYTES, ERROR_BODY_SECONDS)
    except ModelError:
        body = b""
    return status_error(endpoint.vendor, response.status, response.headers, body, endpoint.key)


async def _no_stream(endpoint: Endpoint, response: aiohttp.ClientResponse) -> ModelError:
    """The error for a 200 that is no stream: an error object in JSON, or something else altogether."""
    if response.content_type == JSON:
        body = await _read(endpoint, response, ERROR_BODY_BYTES, ERROR_BODY_SECONDS)
        if complaint := complaint_of(body):
            return stream_error(endpoint.vendor, complaint, endpoint.key)
    kind = clean(response.content_type, 60)
    sentence = f"{endpoint.vendor} sent {kind} instead of an event stream: {address_hint(endpoint.vendor)}"
    return ModelProtocol(sentence, vendor=endpoint.vendor)


async def _read(endpoint: Endpoint, response: aiohttp.ClientResponse, cap: int, seconds: float) -> bytes:
    """The body, at most a little more than ``cap`` bytes of it."""
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            while len(body) <= cap and (data := await response.content.readany()):
                body += data
    except LOST as error:
        if isinstance(error, TimeoutError):
            raise ModelTimeout(f"{endpoint.vendor} did not finish its answer in time", vendor=endpoint.vendor) from None
        raise ModelUnavailable(f"the connection to {endpoint.vendor} broke", vendor=endpoint.vendor) from None
    return bytes(body)
