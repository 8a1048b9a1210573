"""A fake provider: the APIs of OpenAI and Anthropic over real sockets, with planned faults.

    async with FakeProvider() as provider:
        provider.plan(Say(text="Hello", calls=[("clock", "{}")]), Fault.CUT)
        ...  # POST {provider.url}/v1/chat/completions or /v1/messages; GET /v1/models

Answers are taken from the plan in turn; with none left it says ``Hello there``. ``requests`` keeps what was asked.
"""

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Self

import msgspec
from aiohttp import web

from tests.llm.faults import PLAYS, REFUSALS, Fault, Replay, Stage, error
from tests.llm.wires import ANTHROPIC, OPENAI, Say, events

Answer = Say | Replay | Fault


class Asked(msgspec.Struct):
    """One request."""

    path: str
    headers: dict[str, str]
    body: Any


class FakeProvider:
    """The server; ``url`` has no path.

    It refuses the keys in ``refused_keys`` with 401 and requests with a member of ``refused_fields`` with 400. ``open``
    counts the answers under way, ``connections`` the connections that requests came over.
    """

    def __init__(self, models: Iterable[str] = ("text-embed-1", "tiny-chat", "large-chat"), port: int = 0) -> None:
        self.models = list(models)
        self.requests: list[Asked] = []
        self.refused_keys: set[str] = set()
        self.refused_fields: set[str] = set()
        self.open = 0
        self.connections: set[int] = set()
        self._plan: deque[Answer] = deque()
        self._port = port
        self._stop = asyncio.Event()
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """``http://127.0.0.1:PORT``."""
        return f"http://127.0.0.1:{self._port}"

    def plan(self, *answers: Answer) -> None:
        """Plan the answers of the next completion requests, in order."""
        self._plan.extend(answers)

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_post("/v1/chat/completions", self._completion(OPENAI))
        app.router.add_post("/v1/messages", self._completion(ANTHROPIC))
        app.router.add_get("/v1/models", self._list)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop.set()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _list(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(Asked(request.path, dict(request.headers), None))
        if self._refuses(request):
            return web.json_response(**error(OPENAI, 401))
        return web.json_response({"object": "list", "data": [{"id": name, "object": "model"} for name in self.models]})

    def _refuses(self, request: web.Request) -> bool:
        key = request.headers.get("Authorization", "").removeprefix("Bearer ") or request.headers.get("x-api-key")
        return key in self.refused_keys

    def _completion(self, vendor: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def answer(request: web.Request) -> web.StreamResponse:
            body = json.loads(await request.read())
            self.requests.append(Asked(request.path, dict(request.headers), body))
            self.connections.add(id(request.protocol))
            if self._refuses(request):
                return web.json_response(**error(vendor, 401))
            if refused := sorted(self.refused_fields & body.keys()):
                message = f"Unsupported parameter: '{refused[0]}' is not supported with this model."
                return web.json_response(**error(vendor, 400, message))
            self.open += 1
            try:
                return await self._play(Stage(vendor, request, self._stop))
            finally:
                self.open -= 1

        return answer

    async def _play(self, stage: Stage) -> web.StreamResponse:
        planned = self._plan.popleft() if self._plan else Say()
        if isinstance(planned, Say):
            return await stage.send(Replay(data=b"".join(events(stage.vendor, planned)), piece=planned.piece))
        if isinstance(planned, Replay):
            return await stage.send(planned)
        if planned in REFUSALS:
            status, message, headers = REFUSALS[planned]
            return web.json_response(**error(stage.vendor, status, message), headers=headers)
        return await PLAYS[planned](stage)
