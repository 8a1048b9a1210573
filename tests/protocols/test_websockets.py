"""WebSocket connections of all protocols: who may open one, and what one may cost."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import pytest

from app.base import json_scan
from app.protocols import websockets
from app.protocols.websockets import MAX_FRAME_BYTES
from app.server.asgi import with_websockets
from tests.system.services import API, Service, serving
from tests.waiting import eventually

RESPONSES = "/v1/responses"
ACCEPTED = "websocket.accept"
MB = 1 << 20
OWN, FOREIGN = "http://agents.example", "https://evil.example"

COOKIE_AUTH = """
from langgraph_sdk import Auth

auth = Auth()


@auth.authenticate
async def authenticate(headers: dict[bytes, bytes]) -> str:
    if headers.get(b"cookie") == b"session=ann" or headers.get(b"x-user") == b"ann":  # of a proxy that reads cookies
        return "ann"
    if headers.get(b"authorization") in {b"Bearer ann", b"Basic ann"} or headers.get(b"x-api-key") == b"ann":
        return "ann"
    raise Auth.exceptions.HTTPException(status_code=401, detail="unknown")
"""


class Server(NamedTuple):
    """The services, and all that a connection to them passes."""

    service: Service
    app: Any

    async def key(self) -> str:
        """Create a key of a tenant of its own."""
        return await self.service.key(f"t-{uuid4().hex}")


@asynccontextmanager
async def listening(database_url: str, **settings: Any) -> AsyncIterator[Server]:
    async with serving(database_url, **settings) as service:
        yield Server(service, with_websockets(service.services))


class Socket:
    """One connection, as a server describes it. The client reads only while ``reads`` is set."""

    def __init__(self, server: Server, path: str, *protocols: str, **headers: str) -> None:
        self.sent: list[Any] = []
        self.frames: asyncio.Queue[Any] = asyncio.Queue()
        self.reads = asyncio.Event()
        self.reads.set()
        given = {"host": "agents.example", **headers}
        scope: Any = {
            "type": "websocket",
            "asgi": {"version": "3.0"},
            "scheme": "ws",
            "path": path,
            "root_path": "",
            "query_string": b"",
            "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in given.items()],
            "subprotocols": list(protocols),
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
            "state": {},
        }
        self.frames.put_nowait({"type": "websocket.connect"})
        receive: Any = self.frames.get
        send: Any = self._sent
        self.served = asyncio.ensure_future(server.app(scope, receive, send))

    async def _sent(self, message: Any) -> None:
        await self.reads.wait()
        self.sent.append(message)

    def send(self, frame: str) -> None:
        self.frames.put_nowait({"type": "websocket.receive", "text": frame, "bytes": None})

    async def message(self, number: int) -> Any:
        """Return the message with a number that the server has sent."""
        await eventually(lambda: len(self.sent) > number)
        return self.sent[number]

    async def answer(self, number: int) -> Any:
        """Return the answer to the frame with a number, where each frame has one."""
        return json.loads((await self.message(1 + number))["text"])

    async def leave(self) -> None:
        self.frames.put_nowait({"type": "websocket.disconnect", "code": 1000})
        await self.served


@asynccontextmanager
async def opened(server: Server, path: str, *protocols: str, **headers: str) -> AsyncIterator[Socket]:
    """A connection that is left at the end."""
    socket = Socket(server, path, *protocols, **headers)
    try:
        yield socket
    finally:
        await socket.leave()


async def shaken(server: Server, path: str, *protocols: str, **headers: str) -> Any:
    """Return 0 for a handshake that is accepted, else the status for which it is refused."""
    async with opened(server, path, *protocols, **headers) as socket:
        first = await socket.message(0)
        return 0 if first["type"] == ACCEPTED else first["code"] - 4000


@pytest.fixture
async def server(database_url: str) -> AsyncIterator[Server]:
    async with listening(database_url, AGENT_AUTH="api_key", AGENT_STREAMS_PER_KEY="2") as server:
        yield server


async def thread_of(server: Server, key: str) -> str:
    answer = await server.service.client.post(f"{API}/threads", json={}, headers={"x-api-key": key})
    return f"{API}/threads/{answer.json()['thread_id']}/stream"


async def test_a_key_is_needed_on_every_path(server: Server) -> None:
    key = await server.key()
    thread = await thread_of(server, key)
    for path in (RESPONSES, f"{RESPONSES}/", thread, f"{thread}/events"):
        assert await shaken(server, path) == 401, path
        assert await shaken(server, path, "bearer.wrong") == 401, path
        assert await shaken(server, path, f"bearer.{key}") == 0, path
    bare = thread.removeprefix(API)
    for path in (f"/x{RESPONSES}", API + RESPONSES, f"/x{thread}", bare, f"/console{bare}", f"{RESPONSES}/x", "/"):
        assert [await shaken(server, path), await shaken(server, path, x_api_key=key)] == [404, 404], path


async def test_connections_are_open_streams_of_their_key(server: Server) -> None:
    key = await server.key()
    thread = await thread_of(server, key)
    async with opened(server, thread, x_api_key=key) as first:
        async with opened(server, RESPONSES, x_api_key=key) as second:
            assert [(await one.message(0))["type"] for one in (first, second)] == [ACCEPTED] * 2
            assert await shaken(server, RESPONSES, x_api_key=key) == 429
            assert await shaken(server, RESPONSES, x_api_key=await server.key()) == 0
            second.send('{"type": "response.create", "model": "assistant", "input": "hello"}')
            await eventually(lambda: any('"response.completed"' in one.get("text", "") for one in second.sent))
        assert await shaken(server, RESPONSES, x_api_key=key) == 0
        server.service.services.streams.drain()
        await first.served
        assert first.sent[-1]["code"] == 1012


@pytest.mark.parametrize("to_thread", [False, True])
async def test_hostile_frames_are_scanned_off_the_loop(
    server: Server, monkeypatch: pytest.MonkeyPatch, *, to_thread: bool
) -> None:
    scanned: list[threading.Thread] = []
    check = json_scan.check

    def checking(text: bytes, subject: str) -> None:
        scanned.append(threading.current_thread())
        check(text, subject)

    monkeypatch.setattr(json_scan, "check", checking)
    key = await server.key()
    path = await thread_of(server, key) if to_thread else RESPONSES
    many = '{"type": "response.create", "id": 1, "method": "x", "input": [' + "[]," * 200_000 + "[]]}"
    deep = '{"type": "response.create", "id": 1, "method": "x", "input": ' + "[" * 100 + "]" * 100 + "}"
    async with opened(server, path, x_api_key=key) as socket:
        for number, (frame, words) in enumerate(((many, "more than 100,000"), (deep, "deeper than 64"))):
            socket.send(frame)
            assert words in json.dumps(await socket.answer(number))
        assert [thread is threading.main_thread() for thread in scanned] == [False, True]
        socket.send("x" * (MAX_FRAME_BYTES + 1))
        await socket.served
        assert socket.sent[-1]["code"] == 1009


@pytest.mark.parametrize("to_thread", [False, True])
async def test_a_client_that_does_not_read_is_not_read(server: Server, *, to_thread: bool) -> None:
    key = await server.key()
    path = await thread_of(server, key) if to_thread else RESPONSES
    async with opened(server, path, x_api_key=key) as socket:
        await socket.message(0)
        socket.reads.clear()
        for _ in range(10):
            socket.send("[]")
        left = 10 - (1 if to_thread else 2)  # one is answered, and one may wait
        await eventually(lambda: socket.frames.qsize() == left)
        await server.service.get("/threads", key)  # whatever the loop has to do, it has done by then
        assert socket.frames.qsize() == left
        socket.reads.set()
        await socket.answer(9)


async def test_large_frames_of_a_key_take_turns(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websockets, "MAX_FRAMES_EACH", MB)
    monkeypatch.setattr(websockets, "MAX_WAIT_SECONDS", 0.05)
    server = Server(server.service, with_websockets(server.service.services))
    key = await server.key()
    thread = await thread_of(server, key)
    wrong = '{"type": "x", "id": 1, "method": "x", "input": "' + "x" * (MB * 3 // 4) + '"}'
    async with opened(server, RESPONSES, x_api_key=key) as first:
        await first.message(0)
        first.reads.clear()
        first.send(wrong)  # unanswered, as the client does not read
        await eventually(first.frames.empty)
        for path in (RESPONSES, thread):
            async with opened(server, path, x_api_key=key) as second:
                second.send(wrong)
                await second.served
                assert second.sent[-1]["code"] == 1013, path
        async with opened(server, RESPONSES, x_api_key=await server.key()) as other:
            other.send(wrong)
            assert (await other.answer(0))["type"] == "error"
        first.reads.set()
        await first.answer(0)
        async with opened(server, thread, x_api_key=key) as second:
            second.send(wrong)
            assert (await second.answer(0))["error"] == "unknown_command"


async def test_a_large_frame_that_waits_behind_a_response_holds_its_room_for_a_while_only(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websockets, "MAX_FRAMES_EACH", MB)
    monkeypatch.setattr(websockets, "MAX_WAIT_SECONDS", 2.0)
    server = Server(server.service, with_websockets(server.service.services))
    key = await server.key()
    small, large = (
        json.dumps({"type": "response.create", "model": "assistant", "input": "x" * n}) for n in (9, MB * 3 // 4)
    )
    async with opened(server, RESPONSES, x_api_key=key) as first, opened(server, RESPONSES, x_api_key=key) as second:
        first.send(small)
        await first.message(1)
        first.reads.clear()  # its response does not end
        first.send(large)
        await eventually(first.frames.empty)
        second.send(large)  # has its turn when the frame of the first has waited too long
        assert (await second.answer(0))["type"] == "response.created"
        first.reads.set()
        await eventually(lambda: any("waited too long for its turn" in one.get("text", "") for one in first.sent))
        first.send(small)
        await eventually(lambda: sum('"response.created"' in one.get("text", "")[:60] for one in first.sent) == 2)


async def test_a_large_frame_counts_until_its_response_begins(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websockets, "MAX_FRAMES_EACH", MB)
    monkeypatch.setattr(websockets, "MAX_WAIT_SECONDS", 0.05)
    server = Server(server.service, with_websockets(server.service.services))
    key = await server.key()
    create = json.dumps({"type": "response.create", "model": "assistant", "input": "x" * (MB * 3 // 4)})
    async with opened(server, RESPONSES, x_api_key=key) as first, opened(server, RESPONSES, x_api_key=key) as second:
        first.send(create)
        await first.message(1)
        first.reads.clear()
        second.send(create)
        assert (await second.answer(0))["type"] == "response.created"
        first.reads.set()


async def test_what_connections_of_a_key_keep_is_bounded(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websockets, "MAX_KEPT_EACH", MB)
    server = Server(server.service, with_websockets(server.service.services))
    key = await server.key()
    create = {"type": "response.create", "model": "assistant", "input": "x" * (MB * 3 // 4), "store": False}

    async def answered(socket: Socket, count: int, **members: Any) -> Any:
        """Return the last event of the response to the frame with a number."""
        socket.send(json.dumps({**create, **members}))
        ends = ('"response.completed"', '"type":"error"')

        def found() -> list[str]:
            return [one["text"] for one in socket.sent[1:] if any(end in one["text"][:60] for end in ends)]

        await eventually(lambda: len(found()) == count)
        return json.loads(found()[-1])

    async with opened(server, RESPONSES, x_api_key=key) as first, opened(server, RESPONSES, x_api_key=key) as second:
        for socket, kept in ((first, True), (second, False)):
            made = await answered(socket, 1)
            assert made["type"] == "response.completed"
            again = await answered(socket, 2, input="hello", previous_response_id=made["response"]["id"])
            assert (again["type"] == "response.completed") is kept, again


async def test_a_foreign_page_connects_by_a_key_and_not_by_a_cookie(database_url: str, tmp_path: Path) -> None:
    (tmp_path / "auth.py").write_text(COOKIE_AUTH)
    (tmp_path / "agents.toml").write_text('[auth]\npath = "./auth.py:auth"\n')
    settings: Any = {"AGENT_CONFIG": str(tmp_path / "agents.toml"), "AGENT_CORS_ORIGINS": "https://app.example"}
    async with listening(database_url, AGENT_AUTH="none", **settings) as server:
        cookie = "session=ann"
        for origin in (OWN, "https://app.example"):
            assert await shaken(server, RESPONSES, origin=origin, cookie=cookie) == 0, origin
        assert await shaken(server, RESPONSES, cookie=cookie) == 0
        for origin in (FOREIGN, "null"):
            for headers in ({"cookie": cookie}, {"authorization": "Basic ann"}, {"x_user": "ann"}, {}):
                assert await shaken(server, RESPONSES, origin=origin, **headers) == 403, headers
                assert await shaken(server, RESPONSES, "bearer.bob", origin=origin, **headers) == 401, headers
                assert await shaken(server, RESPONSES, "bearer.ann", origin=origin, **headers) == 0, headers
        for headers in ({"authorization": "Bearer ann"}, {"x_api_key": "ann"}):
            assert await shaken(server, RESPONSES, origin=FOREIGN, **headers) == 0, headers
