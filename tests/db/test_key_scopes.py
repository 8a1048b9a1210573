"""Keys that could approve get the scope ``approve``, also if the owner is not a superuser."""

import asyncio

import asyncpg
from alembic import command

from app.infra.db import migrations
from tests.database import at, execute, hasty_server

BEFORE = "0014"
KEY = """
insert into api_keys (tenant_id, key_id, digest, name, scopes)
select tenant_id, $1, '', $1, $2 from tenants
"""
SCOPES = {
    "reads": ["monitor", "read"],
    "writes": ["monitor", "read", "write"],
    "operates": ["monitor", "operate", "read", "write"],
    "oldest": ["use"],
}


async def scopes(url: str) -> dict[str, list[str]]:
    connection = await asyncpg.connect(url)
    try:
        return {row["key_id"]: row["scopes"] for row in await connection.fetch("select key_id, scopes from api_keys")}
    finally:
        await connection.close()


async def keys_of_before(url: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("insert into tenants (tenant_id, name) values (gen_random_uuid(), 'one')")
        for key_id, given in SCOPES.items():
            await connection.execute(KEY, key_id, given)
    finally:
        await connection.close()


def test_keys_that_may_write_may_approve_after_the_upgrade() -> None:
    with hasty_server() as server:
        statements = ("create role agents login createrole", "create database agents owner agents")
        asyncio.run(execute(server, *statements))
        url = at(server, "agents")
        asyncio.run(execute(url, "create extension vector", "alter schema public owner to agents"))
        owner = url.replace("//postgres@", "//agents@")
        assert owner != url
        command.upgrade(migrations.configuration(owner), BEFORE)
        asyncio.run(keys_of_before(url))
        migrations.upgrade(owner)
        changed = {"writes", "operates"}
        expected = {name: [*given, "approve"] if name in changed else given for name, given in SCOPES.items()}
        assert asyncio.run(scopes(url)) == expected
        command.downgrade(migrations.configuration(owner), BEFORE)
        assert asyncio.run(scopes(url)) == SCOPES
