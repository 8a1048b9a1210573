"""An embeddings server for tests that knows some synonyms and fails as planned."""

import json
from collections import deque
from typing import Any, Self

from aiohttp import web

from app.providers.embeddings.hashing import hash_text

SAME = {"automobile": "car", "vehicle": "car", "feline": "cat", "kitten": "cat", "physician": "doctor"}


def meaning(text: str, dimensions: int) -> list[float]:
    """Return the vector of ``text``, in which synonyms are the same word."""
    words = [SAME.get(word, word) for word in text.casefold().split()]
    return hash_text(" ".join(words), dimensions)


class Embeddings:
    """The server; ``url`` ends with ``/v1``. ``asked`` are the bodies of requests, ``keys`` what came with them.

    ``plan``: responses of the next requests, as (status, body). ``down``: all requests get 503.
    """

    def __init__(self, dimensions: int = 64) -> None:
        self.dimensions = dimensions
        self.asked: list[Any] = []
        self.keys: list[str] = []
        self.refused_keys: set[str] = set()
        self.plan: deque[tuple[int, Any]] = deque()
        self.down = False
        self._port = 0
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    @property
    def texts(self) -> int:
        """Number of texts that were requested."""
        return sum(len(body["input"]) for body in self.asked)

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/v1/embeddings", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        body = json.loads(await request.read())
        self.asked.append(body)
        key = request.headers.get("Authorization", "").removeprefix("Bearer ")
        self.keys.append(key)
        if key in self.refused_keys:
            return web.json_response({"error": {"message": "no such key"}}, status=401)
        if self.down:
            return web.json_response({"error": {"message": "down"}}, status=503)
        if self.plan:
            status, answer = self.plan.popleft()
            return web.json_response(answer, status=status)
        dimensions = body.get("dimensions", self.dimensions)
        data = [
            {"object": "embedding", "index": number, "embedding": meaning(text, dimensions)}
            for number, text in enumerate(body["input"])
        ]
        return web.json_response({"object": "list", "data": data[::-1], "model": body["model"]})
