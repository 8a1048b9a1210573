"""API keys on a real database: authentication, expiry, rotation, isolation of tenants."""

import hmac
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from app.base.errors import Invalid, NotFound, Unauthenticated, Unavailable
from app.infra.db.engine import Database
from app.infra.secrets.secret import Secret
from app.security.access.service import REFUSED, AccessService
from app.security.access.structs import DEFAULT_TENANT, MEMBER, MONITOR, READ, tenant_id_of
from tests.access.clock import Clock
from tests.system.services import NOWHERE, PEPPER

COUNT = sa.text("select count(*) from api_keys")


async def made(access: AccessService, tenant: str, **options: Any) -> tuple[str, str]:
    """Create a key; return its id and the key."""
    info, key = await access.create_key("test", tenant=tenant, **options)
    return info.key_id, key.reveal()


async def is_refused(access: AccessService, key: str) -> bool:
    with pytest.raises(Unauthenticated) as caught:
        await access.authenticate(key)
    return str(caught.value) == REFUSED


async def test_a_key_stands_for_its_tenant_and_scopes(access: AccessService, tenant: str) -> None:
    key_id, key = await made(access, tenant)
    assert key.startswith(f"as_{key_id}_")
    principal = await access.authenticate(key)
    assert (principal.tenant_id, principal.key_id, principal.scopes) == (tenant_id_of(tenant), key_id, MEMBER)
    _, key = await made(access, tenant, scopes=frozenset({MONITOR}))
    assert (await access.authenticate(key)).scopes == {MONITOR}


async def test_the_default_tenant_has_a_fixed_id(access: AccessService) -> None:
    info, key = await access.create_key("test")
    assert info.tenant_id == DEFAULT_TENANT
    assert (await access.authenticate(key.reveal())).tenant_id == DEFAULT_TENANT


async def test_a_key_is_shown_without_its_secret(access: AccessService, tenant: str) -> None:
    first, key = await access.create_key("first", tenant=tenant, expires_in=timedelta(days=90))
    second, _ = await access.create_key("second", tenant=tenant, scopes=frozenset({READ}))
    assert await access.list_keys(tenant) == [first, second]
    assert (first.name, first.scopes, first.revoked_at) == ("first", sorted(MEMBER), None)
    assert first.expires_at is not None
    assert first.expires_at - first.created_at > timedelta(days=89)
    assert (second.expires_at, second.scopes) == (None, [READ])
    assert key.reveal().split("_", 2)[2] not in repr((first, second, key))


async def test_only_an_hmac_of_the_secret_under_the_pepper_is_stored(
    access: AccessService, database: Database, tenant: str
) -> None:
    key_id, key = await made(access, tenant)
    async with database.looking_up([key_id]) as session:
        row = await session.first(sa.text("select * from api_keys"))
    assert row is not None
    assert row.digest == hmac.digest(PEPPER.encode(), key.removeprefix("as_").encode(), "sha256")
    assert key.split("_", 2)[2] not in str(row)
    assert await is_refused(AccessService(database, Secret("another pepper of 32 characters…")), key)


@pytest.mark.parametrize(
    "spoilt",
    [
        "",
        "as",
        "as__",
        "hello",
        "{id}_{secret}",
        "xx_{id}_{secret}",
        "as_{id}_",
        "as_{id}_{secret}x",
        "as_{id}_{secret}\n",
        " as_{id}_{secret}",
        "as_{id}_{short}",
        "as_{id}_{wrong}",
        "as_0123456789abcdef_{secret}",
        "as_{ID}_{secret}",
        "as_{id}_{short}é",
        "as_{id}_{short}\x00",
        "as_' or true --_{secret}",
        "as_{id}_{secret}" * 100,
    ],
)
async def test_malformed_keys_are_refused_with_the_same_message(
    access: AccessService, tenant: str, spoilt: str
) -> None:
    key_id, key = await made(access, tenant)
    secret = key.split("_", 2)[2]
    wrong = ("B" if secret[0] == "A" else "A") + secret[1:]
    tried = spoilt.format(id=key_id, ID=f"{key_id[:-1]}F", secret=secret, short=secret[:-1], wrong=wrong)
    assert await is_refused(access, tried)
    await access.authenticate(key)


async def test_an_expired_key_is_refused(access: AccessService, database: Database, clock: Clock, tenant: str) -> None:
    _, key = await made(access, tenant, expires_in=timedelta(hours=1))
    await access.authenticate(key)
    async with database.writing(tenant_id_of(tenant)) as session:
        assert await session.execute(sa.text("update api_keys set expires_at = now()")) == 1
    clock.seconds += 5
    assert await is_refused(access, key)


async def test_a_revoked_key_is_refused_within_five_seconds_by_every_process(
    access: AccessService, database: Database, clock: Clock, tenant: str
) -> None:
    elsewhere = AccessService(database, Secret(PEPPER), clock)
    key_id, key = await made(access, tenant)
    _, other = await made(access, tenant)
    await access.authenticate(key)
    await elsewhere.authenticate(key)
    await access.revoke_key(key_id, tenant)
    clock.seconds += 5
    assert await is_refused(access, key)
    assert await is_refused(elsewhere, key)
    await access.authenticate(other)
    [shown] = [info for info in await access.list_keys(tenant) if info.key_id == key_id]
    await access.revoke_key(key_id, tenant)
    assert shown.revoked_at is not None
    assert shown in await access.list_keys(tenant), "revoking twice changes nothing"


async def test_keys_of_another_tenant_are_unknown(access: AccessService, database: Database, tenant: str) -> None:
    key_id, key = await made(access, tenant)
    other = f"other {tenant}"
    await made(access, other)
    assert key_id not in [info.key_id for info in await access.list_keys(other)]
    with pytest.raises(NotFound, match=key_id):
        await access.revoke_key(key_id, other)
    async with database.reading(tenant_id_of(other)) as session:
        assert await session.scalar(COUNT) == 1
        assert await session.scalar(sa.text("select count(*) from tenants")) == 1
    await access.authenticate(key)


async def test_a_lookup_returns_only_the_requested_keys_and_changes_nothing(
    access: AccessService, database: Database, tenant: str
) -> None:
    key_id, _ = await made(access, tenant)
    await made(access, tenant)
    others, _ = await made(access, f"{tenant} too")
    async with database.looking_up([key_id, others, "0123456789abcdef"]) as session:
        assert await session.scalar(COUNT) == 2
        assert await session.scalar(sa.text("select count(*) from tenants")) == 2
    async with database.looking_up([key_id]) as session:
        assert await session.scalar(COUNT) == 1
        assert await session.scalar(sa.text("select name from tenants")) == tenant
        changed = await session._connection.execute(sa.text("update api_keys set revoked_at = now()"))
        assert changed.rowcount == 0
    async with database.looking_up(["0123456789abcdef"]) as session:
        assert await session.scalar(COUNT) == 0


async def test_an_unknown_id_is_compared_like_a_wrong_secret(
    access: AccessService, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[int, int]] = []
    compare = hmac.compare_digest

    def noting(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return compare(one, other)

    monkeypatch.setattr(hmac, "compare_digest", noting)
    key_id, key = await made(access, tenant)
    secret = key.split("_", 2)[2]
    assert await is_refused(access, f"as_{key_id}_{'A' * len(secret)}")
    assert await is_refused(access, f"as_0123456789abcdef_{secret}")
    await access.authenticate(key)
    assert compared == [(32, 32)] * 6, "two each: the second is the secret before a rotation"


async def test_an_unavailable_database_admits_no_key(clock: Clock) -> None:
    database = Database(NOWHERE, requests=1, engine=1)
    try:
        with pytest.raises(Unavailable):
            await AccessService(database, Secret(PEPPER), clock).authenticate(f"as_{'0' * 16}_{'A' * 43}")
    finally:
        await database.aclose()


@pytest.mark.parametrize(
    "options, words",
    [
        ({"name": " "}, "name of the key"),
        ({"name": "x" * 101}, "name of the key"),
        ({"name": "a\nb"}, "name of the key"),
        ({"tenant": ""}, "name of the tenant"),
        ({"scopes": frozenset()}, "scopes admin, approve, monitor, operate, read, write"),
        ({"scopes": frozenset({"root"})}, "scopes admin, approve, monitor, operate, read, write"),
        ({"expires_in": timedelta(0)}, "in the future"),
    ],
)
async def test_a_key_that_could_not_be_used_is_not_created(
    access: AccessService, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(Invalid, match=words):
        await access.create_key(**{"name": "test", **options})


async def test_two_secrets_are_valid_while_a_key_is_rotated(
    access: AccessService, database: Database, clock: Clock, tenant: str
) -> None:
    key_id, old = await made(access, tenant)
    await access.authenticate(old)
    info, new = await access.rotate_key(key_id, timedelta(hours=1), tenant)
    assert info.previous_until is not None
    assert new.reveal().startswith(f"as_{key_id}_")
    assert await access.authenticate(old) == await access.authenticate(new.reveal())
    async with database.writing(tenant_id_of(tenant)) as session:
        assert await session.execute(sa.text("update api_keys set previous_until = now()")) == 1
    clock.seconds += 5
    assert await is_refused(access, old)
    await access.authenticate(new.reveal())


async def test_a_second_rotation_voids_the_oldest_secret_and_no_overlap_voids_at_once(
    access: AccessService, clock: Clock, tenant: str
) -> None:
    key_id, first = await made(access, tenant)
    _, second = await access.rotate_key(key_id, timedelta(hours=1), tenant)
    _, third = await access.rotate_key(key_id, timedelta(hours=1), tenant)
    assert await is_refused(access, first)
    await access.authenticate(second.reveal())
    _, fourth = await access.rotate_key(key_id, timedelta(), tenant)
    clock.seconds += 5
    assert await is_refused(access, second.reveal())
    assert await is_refused(access, third.reveal())
    await access.authenticate(fourth.reveal())


async def test_a_key_that_is_not_valid_cannot_be_rotated(access: AccessService, tenant: str) -> None:
    key_id, _ = await made(access, tenant)
    with pytest.raises(NotFound):
        await access.rotate_key(key_id, timedelta(hours=1), f"other {tenant}")
    await access.revoke_key(key_id, tenant)
    with pytest.raises(NotFound):
        await access.rotate_key(key_id, timedelta(hours=1), tenant)


async def test_a_key_of_an_older_version_keeps_its_permissions(
    access: AccessService, database: Database, tenant: str
) -> None:
    key_id, key = await made(access, tenant)
    async with database.writing(tenant_id_of(tenant)) as session:
        await session.execute(sa.text("update api_keys set scopes = '{use,monitor}'"))
    assert (await access.authenticate(key)).scopes == MEMBER, key_id
