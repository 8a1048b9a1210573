"""Open streams end soon after their credential is revoked or expires."""

import asyncio
from collections.abc import AsyncIterator, Hashable
from pathlib import Path
from typing import Any

import httpx
import pytest
from litestar.types import Scope

from app.base.errors import Unavailable
from app.features.access import open_streams
from app.features.access.open_streams import OpenStreamAccess
from app.infra.http.event_streams import EventStream, JsonWait
from app.infra.http.open_streams import CHECK_TICKS, TICK, OpenStreams
from app.security.access.api_key_cache import CACHE_TTL
from tests.access.issuer import Issuer
from tests.access.test_tokens import good, settings
from tests.database import clone, drop
from tests.journeys.conftest import AGENTS, PEPPER, Served
from tests.journeys.test_keys import http, keys
from tests.system.services import Service, serving
from tests.waiting import eventually
from tests.web.serving import Connection, Flag, fast_streams


class Switch:
    """A credential check that fails once ``good`` is False."""

    def __init__(self) -> None:
        self.good = True

    def credential(self, scope: Scope) -> Hashable:
        return "key"

    def is_due(self, credential: Hashable) -> bool:
        return True

    async def is_valid(self, credential: Hashable) -> bool:
        return self.good


async def silent() -> AsyncIterator[bytes]:
    await asyncio.Event().wait()
    yield b""


def switched() -> tuple[OpenStreams, Switch]:
    streams, access = fast_streams(), Switch()
    streams.access = access
    return streams, access


async def test_a_stream_of_a_revoked_key_ends_with_an_error_and_counts_as_left() -> None:
    streams, access = switched()
    connection, gone = Connection(), Flag()
    serving_it = connection.serve(EventStream(streams, silent(), on_disconnect=gone))
    await connection.until(lambda: EventStream.heartbeat in connection.body)
    access.good = False
    await asyncio.wait_for(serving_it, 5)
    assert connection.body.rpartition(b"event: ")[2].startswith(b'error\r\ndata: {"error":"Unauthenticated"')
    assert b"id: " not in connection.body
    assert connection.ended
    assert gone.calls == 1


async def test_a_wait_of_a_revoked_key_has_an_error_in_place_of_its_result() -> None:
    streams, access = switched()
    connection = Connection()
    serving_it = connection.serve(JsonWait(streams, asyncio.Event().wait()))  # type: ignore[arg-type]
    await connection.until(lambda: JsonWait.heartbeat in connection.body)
    access.good = False
    await asyncio.wait_for(serving_it, 5)
    assert connection.body.strip().startswith(b'{"__error__":{"error":"Unauthenticated"')
    assert connection.ended


class Failing(Switch):
    """A credential check that raises for one credential; all others are revoked."""

    async def is_valid(self, credential: Hashable) -> bool:
        if credential == "odd":
            raise ValueError
        return False


class Stream:
    """An open response that says why it was stopped."""

    def __init__(self, credential: str) -> None:
        self.holder: Hashable = "one"
        self.credential: Hashable = credential
        self.reason = ""

    def stop(self, reason: str) -> None:
        self.reason = reason

    def on_tick(self, now: int) -> None: ...


async def test_a_check_that_fails_ends_no_other_check() -> None:
    streams = fast_streams()
    streams.access = Failing()
    odd, revoked = Stream("odd"), Stream("revoked")
    for stream in (odd, revoked):
        streams.opened(stream)
    await eventually(lambda: revoked.reason)
    assert (odd.reason, revoked.reason) == ("", "revoked")
    for stream in (odd, revoked):
        streams.closed(stream)


async def test_a_client_that_does_not_read_is_not_waited_for() -> None:
    streams, access = fast_streams(stuck=60.0), Switch()
    streams.access = access
    connection = Connection()
    connection.reads.clear()
    serving_it = connection.serve(EventStream(streams, silent()))
    access.good = False
    await asyncio.wait_for(serving_it, 5)


def test_a_revoked_key_is_found_out_within_five_seconds() -> None:
    assert CACHE_TTL + CHECK_TICKS * TICK < 5


async def test_an_unavailable_database_revokes_nothing() -> None:
    class Away:
        async def authenticate(self, key: str) -> object:
            raise Unavailable("The database cannot be reached.")

    assert await OpenStreamAccess(Away()).is_valid("as_x")  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
async def test_an_expired_token_is_refused(database_url: str) -> None:
    async with Issuer() as issuer, serving(database_url, **settings(issuer)) as service:
        authenticator = service.services.auth.authenticator
        assert authenticator is not None
        access, token = OpenStreamAccess(authenticator), good(issuer)
        assert await access.is_valid(token)
        assert not await access.is_valid(good(issuer, exp=1))


def open_stream(server: Served, key: str) -> tuple[httpx.Client, httpx.Response]:
    client = http(server, key)
    thread = client.post("/threads", json={}).json()["thread_id"]
    answer = client.send(client.build_request("GET", f"/threads/{thread}/stream"), stream=True)
    assert answer.status_code == 200
    return client, answer


def test_a_revoked_key_loses_its_open_streams_and_no_other_does(server_url: str, tmp_path: Path) -> None:
    """Streams of threads, which do not end otherwise; the CLI revokes from another process."""
    url = asyncio.run(clone(server_url))
    server = Served(url, tmp_path, AGENT_AUTH="api_key", AGENT_KEY_PEPPER=PEPPER, AGENT_CONFIG=str(AGENTS))
    try:
        server.wait_until_ready()
        leaver, stayer = keys(server, "create", "--name", "leaver"), keys(server, "create", "--name", "stayer")
        (client, answer), (other, going_on) = open_stream(server, leaver), open_stream(server, stayer)
        keys(server, "revoke", leaver.split("_")[1])
        assert b"event: error" in answer.read()
        assert any(part.startswith(b": heartbeat") for part in going_on.iter_raw())
        for one in (client, other):
            one.close()
    finally:
        server.stop()
        asyncio.run(drop(server_url, url))


HANDLERS = """
from pathlib import Path
from langgraph_sdk import Auth

auth = Auth()
revoked = Path(__file__).parent / "revoked"


@auth.authenticate
async def authenticate(headers: dict, path: str) -> str:
    token = headers.get("x-api-key", b"").decode()
    assert token and path.startswith("/threads")
    if revoked.exists() and token in revoked.read_text().split():
        raise Auth.exceptions.HTTPException(status_code=401, detail="no")
    if (revoked.parent / "away").exists():
        raise Auth.exceptions.HTTPException(status_code=503, detail="The directory of people is away.")
    return token
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Handlers that read revoked users from a file and are called again at once."""
    monkeypatch.setattr(open_streams, "RECHECK_SECONDS", 0.0)
    (tmp_path / "auth.py").write_text(HANDLERS)
    (tmp_path / "agents.toml").write_text("[auth]\npath = './auth.py:auth'\n")
    return tmp_path


async def stream_of(service: Service, token: str) -> "asyncio.Task[httpx.Response]":
    """Stream a new thread until the test ends it."""
    headers = {"x-api-key": token}
    thread = (await service.client.post("/api/v1/threads", json={}, headers=headers)).json()["thread_id"]
    before = len(service.services.streams)
    asking = asyncio.create_task(service.client.get(f"/api/v1/threads/{thread}/stream", headers=headers))
    while len(service.services.streams) == before:
        assert not asking.done(), asking.result().text
        await asyncio.sleep(0)
    return asking


async def test_a_user_whom_the_handler_refuses_loses_open_streams(database_url: str, folder: Path) -> None:
    async with serving(database_url, AGENT_AUTH="none", AGENT_CONFIG=str(folder / "agents.toml")) as service:
        leaver, stayer = await stream_of(service, "leaver"), await stream_of(service, "stayer")
        (folder / "away").touch()  # an inconclusive handler ends no stream
        (folder / "revoked").write_text("leaver")
        answer = await asyncio.wait_for(leaver, 30)
        assert b'event: error\r\ndata: {"error":"Unauthenticated"' in answer.content
        assert not stayer.done()
        (folder / "revoked").write_text("stayer")
        await asyncio.wait_for(stayer, 30)


async def test_a_revoked_key_loses_its_open_streams_although_there_are_handlers(
    database_url: str, folder: Path
) -> None:
    async with serving(database_url, AGENT_AUTH="api_key", AGENT_CONFIG=str(folder / "agents.toml")) as service:
        key = await service.key("default")
        stream = await stream_of(service, key)
        await service.services.auth.keys.revoke_key(key.split("_")[1])
        answer = await asyncio.wait_for(stream, 30)
        assert b"event: error" in answer.content


async def test_a_handler_that_reads_bodies_is_not_asked_again_about_a_request_that_had_one(
    database_url: str, folder: Path
) -> None:
    code = HANDLERS.replace("headers: dict, path", "headers: dict, body: object, path")
    (folder / "auth.py").write_text(code)
    async with serving(database_url, AGENT_AUTH="none", AGENT_CONFIG=str(folder / "agents.toml")) as service:
        people = service.services.auth.custom_auth
        assert people is not None
        post: Any = {"method": "POST", "path": "/api/v1/runs/stream", "headers": []}
        assert people.readmission(post) is None
        stream = await stream_of(service, "reader")
        (folder / "revoked").write_text("reader")
        await asyncio.wait_for(stream, 30)
