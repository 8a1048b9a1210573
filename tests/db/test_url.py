"""Standard PostgreSQL URLs are accepted; mistakes are explained without showing a secret."""

import asyncio
import ssl
from pathlib import Path
from typing import Any

import asyncpg
import certifi
import pytest
from sqlalchemy.dialects.postgresql.asyncpg import dialect
from sqlalchemy.ext.asyncio import create_async_engine

from app.base.errors import UsageError
from app.infra.db.url import to_sqlalchemy

SECRET = "hunter-2"


def arguments(address: str) -> dict[str, object]:
    """The driver's arguments."""
    url, more = to_sqlalchemy(address)
    make: Any = dialect
    return {**make().create_connect_args(url)[1], **more}


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+asyncpg"])
def test_the_ordinary_form_gives_the_driver_its_parts(scheme: str) -> None:
    assert arguments(f"{scheme}://user:secret@db.example:5433/agents") == {
        "host": "db.example",
        "port": 5433,
        "user": "user",
        "password": "secret",
        "database": "agents",
    }


@pytest.mark.parametrize(
    "written, meant",
    [
        ("p%40ss%2Fw%3Aord", "p@ss/w:ord"),
        ("a%25b%20c", "a%b c"),
        ("%C3%BC", "ü"),
        ("sl/ash?mark#hash", "sl/ash?mark#hash"),
    ],
)
def test_a_password_may_hold_any_character(written: str, meant: str) -> None:
    given = arguments(f"postgresql://user:{written}@host/db")
    assert (given["password"], given["host"], given["database"]) == (meant, "host", "db")


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://user@/db?host=/var/run/postgresql&port=5433",
        "postgresql://user@%2Fvar%2Frun%2Fpostgresql:5433/db",
        "postgresql://user@/db?host=/var/run/postgresql&port=5433&sslmode=verify-full",
    ],
)
def test_a_socket_folder_is_named_in_either_form_and_never_takes_tls(address: str) -> None:
    assert arguments(address) == {"host": "/var/run/postgresql", "port": 5433, "user": "user", "database": "db"}


async def test_the_address_of_a_socket_reaches_the_server(server_url: str) -> None:
    url, more = to_sqlalchemy(server_url)
    engine = create_async_engine(url, connect_args=more)
    try:
        async with engine.connect() as connection:
            assert await connection.exec_driver_sql("select 1") is not None
    finally:
        await engine.dispose()


@pytest.mark.parametrize("mode", ["disable", "allow", "prefer", "require"])
def test_modes_that_verify_nothing_are_the_drivers_own(mode: str) -> None:
    assert arguments(f"postgresql://host/db?sslmode={mode}")["ssl"] == mode


@pytest.mark.parametrize(
    "mode, root, checks_name",
    [
        ("verify-full", certifi.where(), True),
        ("verify-ca", certifi.where(), False),
        ("require", certifi.where(), False),
        ("verify-full", "system", True),
    ],
)
def test_a_root_certificate_is_verified_against(mode: str, root: str, checks_name: bool) -> None:
    context = arguments(f"postgresql://host/db?sslmode={mode}&sslrootcert={root}")["ssl"]
    assert isinstance(context, ssl.SSLContext)
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname is checks_name
    assert root == "system" or context.get_ca_certs()


def test_without_a_root_certificate_of_its_own_verifying_asks_for_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UsageError, match="sslrootcert=system"):
        to_sqlalchemy("postgresql://host/db?sslmode=verify-full")


async def test_required_tls_is_not_given_up_when_the_server_has_none() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readexactly(8))  # SSLRequest
        writer.write(b"N")
        await reader.read()
        writer.close()
        await writer.wait_closed()
        left.set()

    asked: list[bytes] = []
    left = asyncio.Event()
    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(ConnectionError, match="rejected SSL upgrade"):
            await asyncpg.connect(**arguments(f"postgresql://user@127.0.0.1:{port}/db?sslmode=require"))
        await asyncio.wait_for(left.wait(), 5)
    assert len(asked) == 1


@pytest.mark.parametrize(
    "address, word",
    [
        (f"postgresql://user:{SECRET}@host:port/db", "is invalid"),
        (f"postgresql://user:{SECRET}@host/db?port={SECRET}", "is invalid"),
        (f"{SECRET}", "is invalid"),
        (f"mysql://user:{SECRET}@host/db", "does not name PostgreSQL"),
        (f"postgresql://user:x@{SECRET}@host/db", "%40"),
        (f"postgresql://user:{SECRET}@one,two/db", "several hosts"),
        (f"postgresql://user:{SECRET}@host/db?sslmode={SECRET}", "must be one of disable"),
        (f"postgresql://user:{SECRET}@host/db?sslmode=require&sslmode=disable", "is invalid"),
        (f"postgresql://user:{SECRET}@host/db?sslmode=verify-ca&sslrootcert=/{SECRET}", "sslrootcert"),
        (f"postgresql://user:{SECRET}@host/db?channel_binding={SECRET}", "unsupported parameters: channel_binding"),
    ],
)
def test_a_mistake_is_explained_without_the_secret(address: str, word: str) -> None:
    with pytest.raises(UsageError, match=word) as caught:
        to_sqlalchemy(address)
    error: BaseException | None = caught.value
    while error is not None:  # a logged traceback shows the causes too
        assert SECRET not in str(error)
        error = None if error.__suppress_context__ and error.__cause__ is None else error.__cause__ or error.__context__
