"""A running deployment, asked over HTTP as any client would."""

import http.client
import json
import urllib.parse
from typing import Any, NamedTuple

from app.base.errors import UsageError

SECONDS = 10.0
MAX_RESPONSE_BYTES = 64 * 1024 * 1024


class HttpReply(NamedTuple):
    """What came back; the names of ``headers`` are in small letters."""

    status: int
    headers: dict[str, str]
    text: str

    def json(self) -> dict[str, Any]:
        """The object that it holds, or an empty one."""
        try:
            value = json.loads(self.text)
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}


class DeployedServer:
    """The server at ``url``, asked with ``key`` where one is given. Raises ``UsageError`` for what is no address."""

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

    def ask(self, path: str, *, accept: str = "", key: bool = False, body: str | None = None) -> HttpReply:
        """GET, or POST of ``body``. Raises ``OSError`` or ``HTTPException`` when nobody answers."""
        kind = http.client.HTTPSConnection if self.secure else http.client.HTTPConnection
        connection = kind(self.host, self._port, timeout=SECONDS)
        headers = {"accept": accept or "*/*"}
        if key and self.key:
            headers["x-api-key"] = self.key
        if body is not None:
            headers["content-type"] = "application/json"
        try:
            connection.request("GET" if body is None else "POST", self._path + path, body, headers)
            answer = connection.getresponse()
            text = answer.read(MAX_RESPONSE_BYTES).decode("utf-8", "replace")
            return HttpReply(answer.status, {name.lower(): value for name, value in answer.getheaders()}, text)
        finally:
            connection.close()

    def curl(self, path: str, options: str = "") -> str:
        """The same for a person."""
        return f"curl -sS {options}{' ' * bool(options)}'{self.url}{path}'"
