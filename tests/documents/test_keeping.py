"""Documents over time: a new embedder, data rights, garbage collection."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from app.features.data_rights.erasure import Erasure
from app.features.data_rights.export import export
from app.features.data_rights.structs import DataSubject
from app.features.store.index.maintenance import VectorBackfill
from app.security.access.structs import tenant_id_of
from tests.documents.conftest import Library, Tenant, library_on
from tests.documents.samples import BOOK, MARKDOWN, pdf
from tests.embed.server import Embeddings

MODEL = '[store]\nembedder = "openai:tiny"\ndimensions = 64\n'


@pytest.fixture
async def server() -> AsyncIterator[Embeddings]:
    async with Embeddings() as server:
        yield server


async def test_documents_are_embedded_again_by_a_new_embedder_while_searches_work(
    fresh_database_url: str, tmp_path: Path, server: Embeddings
) -> None:
    async with library_on(fresh_database_url) as library, library.tenant("ours") as ours:
        await ours.upload(b"the red car", title="drive")
        await ours.upload(b"see a doctor", title="ill")
    file = tmp_path / "agents.toml"
    file.write_text(MODEL)
    settings = {"AGENT_CONFIG": str(file), "OPENAI_BASE_URL": server.url}
    async with library_on(fresh_database_url, **settings) as library, library.tenant("ours") as ours:
        assert (await ours.search("the red car"))[0]["title"] == "drive"
        await ours.upload(b"a small cat", title="pet")
        services = library.service.services
        backfill = VectorBackfill(services.persistence.database, services.features.store._versions, settle_seconds=0)
        while services.features.store._versions.building is not None:
            await backfill.run_once()
        assert (await ours.search("automobile"))[0]["title"] == "drive"
        assert (await ours.search("kitten"))[0]["title"] == "pet"


async def test_ingestion_works_while_the_embedder_is_down(
    fresh_database_url: str, tmp_path: Path, server: Embeddings
) -> None:
    file = tmp_path / "agents.toml"
    file.write_text(MODEL)
    server.down = True
    settings = {"AGENT_CONFIG": str(file), "OPENAI_BASE_URL": server.url}
    async with library_on(fresh_database_url, **settings) as library, library.tenant("ours") as ours:
        document = await ours.upload(b"the red car", title="drive")
        assert document["status"] == "ready"
        assert [one["title"] for one in await ours.search("red")] == ["drive"]
        assert await library.count("store_vectors_384") == 0
        server.down = False
        versions = library.service.services.features.store._versions
        for space in versions.serving.spaces(""):
            space.embedder._embedder._vendor.reset()  # type: ignore[union-attr]
        while await library.count("store_vectors_384") == 0:
            await VectorBackfill(library.service.services.persistence.database, versions).run_once()
        assert [one["title"] for one in await ours.search("automobile")] == ["drive"]


async def test_a_users_documents_are_exported_and_erased_with_their_chunks(ours: Tenant, library: Library) -> None:
    ada = await ours.upload(BOOK, metadata='{"user_id": "ada"}')
    bob = await ours.upload(pdf(["of bob"]), "application/pdf", metadata='{"user_id": "bob"}')
    database = library.service.services.persistence.database
    data_subject = DataSubject(tenant_id=tenant_id_of("ours"), metadata={"user_id": "ada"})
    lines: list[bytes] = []
    counts = await export(database, data_subject, "ours", lines.append)
    rows: list[Any] = [msgspec.json.decode(line) for line in lines]
    assert [one["row"]["document_id"] for one in rows if one["kind"] == "documents"] == [ada["document_id"]]
    assert counts["store_items"] == ada["chunks"]
    assert counts["document_parts"] == 1
    await Erasure(database, data_subject).run(30)
    assert (await ours.http.get(f"/documents/{ada['document_id']}")).status_code == 404
    assert (await ours.get(bob["document_id"]))["status"] == "ready"
    assert await library.count("store_items") == bob["chunks"] == 1
    assert await library.count("runs") == 1


async def test_abandoned_uploads_and_deleted_documents_are_swept(ours: Tenant, library: Library) -> None:
    document = await ours.upload(MARKDOWN, "text/markdown")
    removing = library.service.services.features.documents.removing
    old = "now() - interval '2 hours'"
    await library.value(
        "insert into documents (tenant_id, document_id, collection, namespace, status, content_type, updated_at)"
        f" select tenant_id, gen_random_uuid(), '-', s, 'receiving', 'text/plain', case s when 'old' then {old}"
        " else now() end from documents, unnest(array['old', 'new']) s"
    )
    assert await removing.sweep() == 1
    assert await library.count("documents", "status = 'receiving'") == 1
    await library.value("update documents set status = 'deleted', fingerprint = null where status = 'ready'")
    assert (await ours.http.get(f"/documents/{document['document_id']}")).status_code == 404
    assert await ours.search("sloop") == []
    async with library.service.services.persistence.database.engine_connection() as other, other.transaction():
        await other.fetch("select pg_advisory_xact_lock(hashtextextended('batches documents', 0))")
        assert await removing.sweep() == 0, "another process sweeps"
    assert await removing.sweep() == 1
    assert await library.count("store_items") == await library.count("document_parts") == 0


async def test_a_document_whose_run_is_deleted_stays_ready(ours: Tenant, library: Library) -> None:
    document = await ours.upload(MARKDOWN, "text/markdown")
    await library.value("delete from runs")
    found = await ours.get(document["document_id"])
    assert (found["status"], found["error"]) == ("ready", None)
