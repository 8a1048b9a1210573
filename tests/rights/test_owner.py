"""Only the owner of a database may erase, a role without superuser rights that may differ from the server's user."""

import asyncio
from collections.abc import Iterator

import pytest

from app.base.errors import StartError
from app.base.ids import new_id
from app.features.data_rights.erasure import Erasure
from app.features.data_rights.structs import DataSubject
from app.infra.db import migrations
from app.infra.db.engine import Database
from tests.database import execute, hasty_server
from tests.rights.rows import counts, fill
from tests.store.test_owner import OWNER, owner_url

TENANT = new_id()
SERVER = ("create role server login", "grant agent_app, agent_engine to server with inherit false, set true")


@pytest.fixture
def server() -> Iterator[str]:
    with hasty_server() as url:
        asyncio.run(execute(url, *OWNER, "create extension vector"))
        migrations.upgrade(owner_url(url))
        asyncio.run(execute(url, *SERVER))
        asyncio.run(fill(url, TENANT, "ada"))
        yield url


async def test_the_owner_deletes_and_the_user_of_the_server_cannot(server: str) -> None:
    left = await counts(server, TENANT)
    database = Database(owner_url(server).replace("//agents@", "//server@"), requests=2, engine=2)
    try:
        await database.check()
        with pytest.raises(StartError, match="server is not the owner: set MIGRATE_DATABASE_URL"):
            await Erasure(database, DataSubject(tenant_id=TENANT)).run(30)
    finally:
        await database.aclose()
    assert await counts(server, TENANT) == left
    database = Database(owner_url(server), requests=2, engine=2)
    try:
        await Erasure(database, DataSubject(tenant_id=TENANT)).run(30)
    finally:
        await database.aclose()
    assert set((await counts(server, TENANT)).values()) == {0}
