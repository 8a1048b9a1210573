"""Rotation of the pepper: keys under both are valid, and used keys move to the first."""

from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from app.base.errors import Unauthenticated
from app.infra.db.engine import Database
from app.infra.secrets.secret import Secret
from app.security.access.service import AccessService
from app.security.access.structs import tenant_id_of
from app.security.access.tables import api_keys
from tests.access.clock import Clock
from tests.system.services import API, PEPPER, serving
from tests.waiting import eventually

OLD, NEW = Secret(PEPPER), Secret("fedcba9876543210" * 2)


def under(database: Database, *peppers: Secret) -> AccessService:
    """Return the key service of a process with these peppers and an empty cache."""
    return AccessService(database, lambda: peppers, Clock())


async def rehashed(service: AccessService) -> None:
    """Wait until keys in use are rehashed."""
    await eventually(lambda: not service._old_digests)


async def test_a_key_is_valid_before_it_is_rehashed(database: Database, tenant: str) -> None:
    _, key = await under(database, OLD).create_key("used", tenant=tenant)
    both = under(database, NEW, OLD)
    async with database.writing(tenant_id_of(tenant)) as session:
        await session.execute(select(api_keys).with_for_update())
        assert (await both.authenticate(key.reveal())).key_id is not None
    await rehashed(both)
    assert (await under(database, NEW).authenticate(key.reveal())).key_id is not None


async def test_a_key_under_the_secondary_pepper_is_valid_and_moves_to_the_first_when_used(
    database: Database, tenant: str
) -> None:
    _, key = await under(database, OLD).create_key("used", tenant=tenant)
    _, unused = await under(database, OLD).create_key("unused", tenant=tenant)
    with pytest.raises(Unauthenticated):
        await under(database, NEW).authenticate(key.reveal())
    both = under(database, NEW, OLD)
    assert (await both.authenticate(key.reveal())).key_id is not None
    await rehashed(both)
    assert (await under(database, NEW).authenticate(key.reveal())).key_id is not None
    with pytest.raises(Unauthenticated):
        await under(database, NEW).authenticate(unused.reveal())
    with pytest.raises(Unauthenticated):
        await under(database, OLD).authenticate(key.reveal())


async def test_both_secrets_of_a_key_that_is_being_rotated_move(database: Database, tenant: str) -> None:
    old = under(database, OLD)
    info, before = await old.create_key("test", tenant=tenant)
    _, after = await old.rotate_key(info.key_id, timedelta(hours=1), tenant)
    both = under(database, NEW, OLD)
    for key in (before, after):
        await both.authenticate(key.reveal())
    await rehashed(both)
    new = under(database, NEW)
    for key in (before, after):
        assert (await new.authenticate(key.reveal())).key_id == info.key_id
    with pytest.raises(Unauthenticated):
        await both.authenticate(f"as_{info.key_id}_{'x' * 43}")


async def test_processes_with_the_peppers_in_either_order_accept_the_same_keys(database: Database, tenant: str) -> None:
    """During a rotation each process moves the key, and the other still accepts it."""
    one, other = under(database, OLD, NEW), under(database, NEW, OLD)
    _, key = await one.create_key("test", tenant=tenant)
    for _ in range(2):
        for process in (other, one):
            fresh = under(database, *process._peppers())
            assert (await fresh.authenticate(key.reveal())).key_id is not None
            await rehashed(fresh)


async def test_the_peppers_are_files_that_change_while_the_program_runs(
    database_url: str, tmp_path: Path, tenant: str
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text(OLD.reveal())
    second.write_text(OLD.reveal())
    async with serving(
        database_url,
        AGENT_AUTH="api_key",
        AGENT_KEY_PEPPER="",
        AGENT_KEY_PEPPER_FILE=str(first),
        AGENT_KEY_PEPPER_SECONDARY_FILE=str(second),
    ) as service:
        key = await service.key(tenant)

        async def is_let_in() -> bool:
            answer = await service.client.post(f"{API}/threads/search", json={}, headers={"x-api-key": key})
            return answer.status_code == 200

        assert await is_let_in()
        for one, other in ((OLD, NEW), (NEW, OLD), (NEW, NEW)):
            first.write_text(one.reveal())
            second.write_text(other.reveal())
            service.services.persistence.secrets.refresh()
            assert await is_let_in()
        noted = await service.client.get(f"{API}/audit", headers={"x-api-key": key})
        assert noted.status_code == 200
        assert PEPPER not in noted.text
