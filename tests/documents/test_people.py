"""Handlers of the operator's bound documents as they bound everything: what is another person's is as unknown."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from app.asgi import layers
from tests.access.test_handlers import FILE
from tests.documents.conftest import Tenant
from tests.system.house import API, Service, serving

TEXT = b"The heron stands in the reeds."


@pytest.fixture
async def service(fresh_database_url: str) -> AsyncIterator[Service]:
    async with serving(fresh_database_url, AGENT_AUTH="none", AGENT_CONFIG=FILE) as service:
        yield service


def person(service: Service, name: str) -> Tenant:
    """A client of the person whose token is ``name``."""
    headers = {"authorization": f"Bearer {name}"}
    app: Any = layers(service.house)
    transport = httpx.ASGITransport(app)
    return Tenant(httpx.AsyncClient(transport=transport, base_url=f"http://test{API}", headers=headers, timeout=60))


async def test_a_person_sees_finds_and_deletes_what_is_stamped_as_theirs(service: Service) -> None:
    ann, bob = person(service, "ann"), person(service, "bob")
    mine, other = await ann.upload(TEXT), await bob.upload(TEXT)
    assert mine["metadata"] == {"owner": "ann"}
    assert mine["document_id"] != other["document_id"]  # the same content, but each their own
    assert [one["document_id"] for one in await ann.search("heron")] == [mine["document_id"]]
    assert [one["document_id"] for one in (await ann.http.get("/documents")).json()] == [mine["document_id"]]
    for path in ("", "/chunks", "/content", "/text"):
        assert (await ann.http.get(f"/documents/{mine['document_id']}{path}")).status_code == 200
        assert (await ann.http.get(f"/documents/{other['document_id']}{path}")).status_code == 404
    assert (await ann.http.delete(f"/documents/{other['document_id']}")).status_code == 404
    assert (await bob.get(other["document_id"]))["status"] == "ready"
    assert (await ann.http.delete(f"/documents/{mine['document_id']}")).status_code == 204
    for one in (ann, bob):
        await one.http.aclose()
