"""HTTP client for the deployment under check."""

import http.client
import json
import urllib.parse
from typing import Any, NamedTuple

from app.base.errors import UsageError

TIMEOUT = 10.0
MAX_RESPONSE_BYTES = 64 * 1024 * 1024


class HttpReply(NamedTuple):
    """An HTTP response; names of ``headers`` are lower case."""

    status: int
    headers: dict[str, str]
    text: str

    def json(self) -> dict[str, Any]:
        """Return the JSON object of the body; empty if it is not one."""
        try:
            value = json.loads(self.text)
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}


class DeployedServer:
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

    def request(self, path: str, *, accept: str = "", key: bool = False, body: str | None = None) -> HttpReply:
        """Send GET, or POST with ``body``. Raises ``OSError`` or ``HTTPException`` if there is no response."""
        kind = http.client.HTTPSConnection if self.secure else http.client.HTTPConnection
        connection = kind(self.host, self._port, timeout=TIMEOUT)
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
        """Return the equivalent curl command."""
        return f"curl -sS {options}{' ' * bool(options)}'{self.url}{path}'"
