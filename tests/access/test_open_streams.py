"""A stream ends soon after the credential that it was opened with does."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from litestar.types import Scope

from app.access.open_streams import OpenStreamAccess
from app.access.verdicts import BELIEVED_SECONDS
from app.base.errors import Unavailable
from app.web.stream import EventStream, JsonWait
from app.web.streams import CHECK_TICKS, TICK, Streams
from tests.access.issuer import Issuer
from tests.access.test_tokens import good, settings
from tests.database import clone, drop
from tests.journeys.conftest import AGENTS, PEPPER, Served
from tests.journeys.test_keys import http, keys
from tests.system.house import serving
from tests.web.serving import Connection, Flag, fast_streams


class Switch:
    """Access by one credential, until ``good`` is False."""

    def __init__(self) -> None:
        self.good = True

    def credential(self, scope: Scope) -> str:
        return "key"

    async def is_valid(self, credential: str) -> bool:
        return self.good


async def silent() -> AsyncIterator[bytes]:
    await asyncio.Event().wait()
    yield b""


def switched() -> tuple[Streams, Switch]:
    streams, access = fast_streams(), Switch()
    streams.access = access
    return streams, access


async def test_a_stream_of_a_revoked_key_says_so_and_ends_and_counts_as_left() -> None:
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


async def test_a_reader_that_does_not_read_is_not_waited_for() -> None:
    streams, access = fast_streams(stuck=60.0), Switch()
    streams.access = access
    connection = Connection()
    connection.reads.clear()
    serving_it = connection.serve(EventStream(streams, silent()))
    access.good = False
    await asyncio.wait_for(serving_it, 5)


def test_a_revoked_key_is_found_out_within_five_seconds() -> None:
    assert BELIEVED_SECONDS + CHECK_TICKS * TICK < 5


async def test_a_database_that_is_away_revokes_nothing() -> None:
    class Away:
        async def authenticate(self, key: str) -> object:
            raise Unavailable("The database cannot be reached.")

    assert await OpenStreamAccess(Away()).is_valid("as_x")  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
async def test_a_token_that_has_expired_is_not_good_any_more(database_url: str) -> None:
    async with Issuer() as issuer, serving(database_url, **settings(issuer)) as service:
        authenticator = service.house.entrance.authenticator
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
    """Streams of threads, which end by nothing else; the command revokes from a process of its own."""
    url = asyncio.run(clone(server_url))
    server = Served(url, tmp_path, AGENT_AUTH="api_key", AGENT_KEY_PEPPER=PEPPER, AGENT_CONFIG=str(AGENTS))
    try:
        server.wait_until_ready()
        leaver, stayer = keys(server, "create", "--name", "leaver"), keys(server, "create", "--name", "stayer")
        (client, answer), (other, going_on) = open_stream(server, leaver), open_stream(server, stayer)
        keys(server, "revoke", leaver.split("_")[1])
        assert b"event: error" in answer.read()
        assert next(going_on.iter_raw()).startswith(b": heartbeat")
        for one in (client, other):
            one.close()
    finally:
        server.stop()
        asyncio.run(drop(server_url, url))
