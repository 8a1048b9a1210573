"""Erasure and export of a tenant and of a person, with a row in every table of the database."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from app.base.ids import new_id
from app.features.data_rights.erasure import Erasure
from app.features.data_rights.export import DERIVED, export
from app.features.data_rights.queries import OF_TENANT
from app.features.data_rights.structs import DataSubject
from app.infra.db.engine import Database
from tests.rights.rows import counts, fill

TENANT, OTHER = new_id(), new_id()


@pytest.fixture
async def database(fresh_database_url: str) -> AsyncIterator[Database]:
    database = Database(fresh_database_url, requests=2, engine=2)
    yield database
    await database.aclose()


async def lines(database: Database, data_subject: DataSubject) -> list[dict[str, Any]]:
    written: list[bytes] = []
    await export(database, data_subject, "acme", written.append)
    return [msgspec.json.decode(line) for line in written]


async def test_a_deleted_tenant_has_no_row_in_any_table_and_the_others_have_all(
    database: Database, fresh_database_url: str
) -> None:
    for tenant in (TENANT, OTHER):
        await fill(fresh_database_url, tenant, "ada")
    before = await counts(fresh_database_url, OTHER)
    assert min(before.values()) > 0  # else this test would not cover that table
    erasure = Erasure(database, DataSubject(tenant_id=TENANT))
    await erasure.run(30)
    assert {name: count for name, count in (await counts(fresh_database_url, TENANT)).items() if count} == {}
    assert await counts(fresh_database_url, OTHER) == before
    assert {name for name, count in erasure.counts.items() if count} == set(before)


async def test_a_deleted_person_has_no_row_in_any_table_and_the_others_have_all(
    database: Database, fresh_database_url: str
) -> None:
    """A table without personal data must be named in ``OF_TENANT``."""
    for tenant, person in ((TENANT, "bob"), (OTHER, "ada")):
        await fill(fresh_database_url, tenant, person)
    before = await counts(fresh_database_url, TENANT), await counts(fresh_database_url, OTHER)
    await fill(fresh_database_url, TENANT, "ada")
    both = await counts(fresh_database_url, TENANT)
    assert {name for name, count in both.items() if count == before[0][name]} <= OF_TENANT
    await Erasure(database, DataSubject(tenant_id=TENANT, metadata={"user_id": "ada"})).run(30)
    after = await counts(fresh_database_url, TENANT)
    assert {name: after[name] for name in after if name not in OF_TENANT} == {
        name: count for name, count in before[0].items() if name not in OF_TENANT
    }
    assert await counts(fresh_database_url, OTHER) == before[1]


async def test_the_export_of_a_person_covers_what_would_be_deleted(database: Database, fresh_database_url: str) -> None:
    for person in ("ada", "bob"):
        await fill(fresh_database_url, TENANT, person)
    data_subject = DataSubject(tenant_id=TENANT, metadata={"user_id": "ada"})
    first, *rows, last = await lines(database, data_subject)
    assert (first["kind"], first["row"]["metadata"], last["kind"]) == ("export", {"user_id": "ada"}, "end")
    counts_by_table = {
        name: n for name, n in (await Erasure(database, data_subject).found()).items() if not name.startswith(DERIVED)
    }
    assert last["row"]["rows"] == counts_by_table
    assert {row["kind"] for row in rows} == set(counts_by_table)
    assert "bob" not in str(rows)


async def test_an_export_holds_no_secret_of_a_key_and_no_answer_to_another_request(
    database: Database, fresh_database_url: str
) -> None:
    await fill(fresh_database_url, TENANT, "ada")
    found = {line["kind"]: line["row"] for line in await lines(database, DataSubject(tenant_id=TENANT))}
    assert not {"digest", "previous_digest"} & set(found["api_keys"])
    assert not {"answer", "fingerprint"} & set(found["idempotency_keys"])
    assert found["runs"]["metadata"] == {"user_id": "ada"}
    assert found["threads"]["values"] is None
