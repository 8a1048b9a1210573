"""HTTP client of a running server: requests, and event streams (WHATWG HTML, "Server-sent events")."""

import contextlib
import http.client
import json
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from app.base.errors import AgentServiceError, UsageError

TIMEOUT = 10.0
"""Seconds without a byte; a stream has a comment every 5 s."""
STREAM_TIMEOUT = 20.0
MAX_RESPONSE_BYTES = 64 * 1024 * 1024

API = "/api/v1"


class HttpReply(NamedTuple):
    """An HTTP response; names of ``headers`` are lower case."""

    status: int
    headers: dict[str, str]
    text: str

    def json(self) -> dict[str, Any]:
        """Return the JSON object of the body; empty if it is not one."""
        value = self.value()
        return value if isinstance(value, dict) else {}

    def value(self) -> Any:
        """Return the JSON of the body; None if it is not JSON."""
        try:
            return json.loads(self.text)
        except ValueError:
            return None


class ServerEvent(NamedTuple):
    """An event of a stream. ``data``: its JSON."""

    id: str
    event: str
    data: Any


class ConnectionLost(AgentServiceError):
    """The server cannot be reached, or the connection broke off."""


class RequestRefused(AgentServiceError):
    """The server refused a request. ``reply``: its response."""

    def __init__(self, reply: HttpReply) -> None:
        self.reply = reply
        detail = reply.json().get("detail") or reply.text.strip()[:200] or f"status {reply.status}"
        hint = "; name a file with your API key: --key-file FILE" if reply.status == 401 else ""
        super().__init__(f"{str(detail).rstrip('.')}{hint}")


class ServerClient:
    """The server at ``url``, with an optional API key. Raises ``UsageError`` if the URL is invalid."""

    def __init__(self, url: str, key: str = "") -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise UsageError(f"--url must be like http://127.0.0.1:8000, not {url!r}")
        self.url = url.rstrip("/")
        self.host = parts.hostname
        self.secure = parts.scheme == "https"
        self._port = parts.port
        self._path = parts.path.rstrip("/")
        self.key = key

    def request(
        self, path: str, *, method: str = "", accept: str = "", key: bool = False, body: str | None = None
    ) -> HttpReply:
        """Send GET, or POST with ``body``. Raises ``OSError`` or ``HTTPException`` if there is no response."""
        with contextlib.closing(self._connection(TIMEOUT)) as connection:
            headers = {"accept": accept or "*/*"}
            if key and self.key:
                headers["x-api-key"] = self.key
            if body is not None:
                headers["content-type"] = "application/json"
            connection.request(method or ("GET" if body is None else "POST"), self._path + path, body, headers)
            return _reply(connection.getresponse())

    def call(self, path: str, body: Any = None, method: str = "") -> Any:
        """Send GET, or POST with the JSON ``body``, to ``path`` below the API and return the JSON of the response.

        Raises ``ConnectionLost`` and ``RequestRefused``.
        """
        text = None if body is None else json.dumps(body)
        try:
            reply = self.request(API + path, method=method, key=True, body=text)
        except (OSError, http.client.HTTPException) as error:
            raise self._lost(error) from error
        if reply.status >= 400:
            raise RequestRefused(reply)
        return reply.value()

    def stream(self, path: str, body: Any = None, headers: Mapping[str, str] = {}) -> Iterator[ServerEvent]:
        """Follow an event stream: GET, or POST with the JSON ``body``. Ends where the server ends it.

        Raises ``ConnectionLost`` and ``RequestRefused``.
        """
        sent = {"accept": "text/event-stream", **headers}
        if self.key:
            sent["x-api-key"] = self.key
        if body is not None:
            sent["content-type"] = "application/json"
        method = "GET" if body is None else "POST"
        text = None if body is None else json.dumps(body)
        try:
            with contextlib.closing(self._connection(STREAM_TIMEOUT)) as connection:
                connection.request(method, self._path + API + path, text, sent)
                response = connection.getresponse()
                if response.status >= 400:
                    raise RequestRefused(_reply(response))
                yield from _events(response)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._lost(error) from error

    def _connection(self, timeout: float) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self.secure else http.client.HTTPConnection
        return kind(self.host, self._port, timeout=timeout)

    def _lost(self, error: Exception) -> ConnectionLost:
        if isinstance(error, ConnectionRefusedError):
            return ConnectionLost(f"no server answers at {self.url}: start one with `agent-service dev`, or give --url")
        return ConnectionLost(f"the connection to {self.url} is lost ({str(error) or type(error).__name__})")


def read_key(file: str | None) -> str:
    """Return the API key in ``file``; empty without one. Raises ``UsageError``."""
    if not file:
        return ""
    try:
        return Path(file).read_text("utf-8").strip()
    except (OSError, ValueError) as error:
        raise UsageError(f"--key-file {file} cannot be read: {error}") from error


def _reply(response: http.client.HTTPResponse) -> HttpReply:
    text = response.read(MAX_RESPONSE_BYTES).decode("utf-8", "replace")
    return HttpReply(response.status, {name.lower(): value for name, value in response.getheaders()}, text)


def _events(response: http.client.HTTPResponse) -> Iterator[ServerEvent]:
    """Parse a stream of this server: each event has one line of each field, and data are JSON."""
    fields: dict[str, str] = {}
    while line := response.readline():
        text = line.decode("utf-8", "replace").rstrip("\r\n")
        if text:
            name, _, value = text.partition(":")
            fields[name] = value.removeprefix(" ")
            continue
        if "data" in fields:
            yield ServerEvent(fields.get("id", ""), fields.get("event", ""), json.loads(fields["data"] or "null"))
        fields = {}
