"""Ingestion is a run: durable, streamed, cancelled, resumed by other processes, and never done twice."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from langgraph_sdk import get_client

from app.base.ids import agent_id
from app.features.documents.structs import ROOT
from tests.database import clone, drop
from tests.documents.conftest import Library, Tenant
from tests.documents.samples import BOOK, pdf
from tests.faults.fleet import kill_tree
from tests.journeys.conftest import Served
from tests.long_form import FULL
from tests.outages import children_of

LONG = BOOK * 14
"""Some 400 chunks, and so several batches."""

pytestmark = pytest.mark.timeout(150)


@pytest.fixture
def database_url(server_url: str) -> Iterator[str]:
    url = asyncio.run(clone(server_url))
    yield url
    asyncio.run(drop(server_url, url))


@contextlib.contextmanager
def served_on(url: str, folder: Path, **settings: str) -> Iterator[Served]:
    server = Served(url, folder, AGENT_LEASE_SECONDS="3", **settings)
    try:
        yield server.wait_until_ready()
    finally:
        kill_tree(server.process.pid)
        server.process.wait(10)


async def chunks_in(url: str) -> list[tuple[str, str, int]]:
    """Return (key, text, number of vectors) of every chunk."""
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch(
            "select i.key, i.value->>'text' as text,"
            " (select count(*) from store_vectors_384 v where v.item_id = i.item_id) as vectors"
            " from store_items i where i.namespace >= $1 order by i.namespace, i.key",
            ROOT,
        )
    finally:
        await connection.close()
    return [(row["key"], row["text"], row["vectors"]) for row in rows]


async def until(base: str, document_id: str, condition: Any, seconds: float = 100) -> dict[str, Any]:
    """Wait until ``condition`` of the document is true, and return it."""
    async with httpx.AsyncClient(timeout=20) as http, asyncio.timeout(seconds):
        while True:
            answer = await http.get(f"{base}/documents/{document_id}")
            if answer.status_code == 200 and condition(answer.json()):
                return dict(answer.json())
            await asyncio.sleep(0.01)


async def upload(base: str, content: bytes, kind: str = "text/plain") -> dict[str, Any]:
    async with httpx.AsyncClient(timeout=20) as http:
        answer = await http.post(f"{base}/documents", content=content, headers={"content-type": kind})
    assert answer.status_code == 202, answer.text
    return dict(answer.json())


async def test_the_sdk_streams_an_ingestion_like_any_run(database_url: str, tmp_path: Path) -> None:
    with served_on(database_url, tmp_path) as server:
        document = await upload(server.base, LONG)
        async with get_client(url=server.base) as client:
            parts = [
                part
                async for part in client.runs.join_stream(
                    document["thread_id"], document["run_id"], stream_mode=["custom"], last_event_id="-1"
                )
            ]
            run = await client.runs.get(document["thread_id"], document["run_id"])
            assistant = await client.assistants.get(run["assistant_id"])
    updates = [part.data for part in parts if part.event == "custom"]
    assert updates[-1]["phase"] == "ready"
    assert updates[-1]["characters"] <= updates[-1]["of"] == len(LONG)
    positions = [one["characters"] for one in updates]
    assert positions == sorted(positions)
    assert (run["status"], assistant["graph_id"]) == ("success", "_ingest")


@pytest.mark.parametrize("point", ["after_commit:5", "before_commit:1", *(["before_commit:5"] if FULL else [])])
async def test_an_ingestion_whose_server_is_killed_resumes_after_its_last_batch(
    database_url: str, tmp_path: Path, point: str
) -> None:
    with served_on(database_url, tmp_path) as server:
        whole = await upload(server.base, LONG)
        await until(server.base, whole["document_id"], lambda one: one["status"] == "ready")
        expected = await chunks_in(database_url)
        async with httpx.AsyncClient(timeout=30) as http:
            await http.delete(f"{server.base}/documents/{whole['document_id']}")
    with served_on(database_url, tmp_path, AGENT_CRASH_AT=point) as doomed:
        with contextlib.suppress(httpx.TransportError):  # the worker may die before the answer has left
            await upload(doomed.base, LONG)
        connection = await asyncpg.connect(database_url)
        document = await connection.fetchval("select document_id from documents where status <> 'deleted'")
        await connection.close()
    with served_on(database_url, tmp_path) as server:
        found = await until(server.base, str(document), lambda one: one["status"] in {"ready", "failed"})
    assert found["status"] == "ready", found
    chunks = await chunks_in(database_url)
    assert chunks == expected
    assert {vectors for _, _, vectors in chunks} == {1}
    assert found["chunks"] == len(chunks)


@pytest.mark.timeout(120)  # paused in a transaction, it holds locks until the database ends it
async def test_a_process_that_was_paused_past_its_lease_writes_nothing_twice(database_url: str, tmp_path: Path) -> None:
    with served_on(database_url, tmp_path) as zombie:
        document = await upload(zombie.base, LONG)
        await until(zombie.base, document["document_id"], lambda one: one["chunks"] > 0)
        workers = children_of(zombie.process.pid)
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        with served_on(database_url, tmp_path) as server:
            found = await until(server.base, document["document_id"], lambda one: one["status"] == "ready")
            before = await chunks_in(database_url)
            for pid in workers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
            async with httpx.AsyncClient(timeout=20) as http, asyncio.timeout(20):
                while True:  # until the zombie answers again: then it knows that it lost its run
                    with contextlib.suppress(httpx.TransportError):
                        if (await http.get(f"{zombie.base}/ok")).status_code == 200:
                            break
                    await asyncio.sleep(0.05)
            assert await chunks_in(database_url) == before
    assert [int(key) for key, _, _ in before] == list(range(found["chunks"]))


async def test_a_document_deleted_during_its_ingestion_leaves_nothing(ours: Tenant, library: Library) -> None:
    document = (await ours.post(LONG)).json()
    async with asyncio.timeout(20):
        while (await ours.get(document["document_id"]))["chunks"] == 0:  # noqa: ASYNC110  there is no event
            await asyncio.sleep(0.01)
    assert (await ours.http.delete(f"/documents/{document['document_id']}")).status_code == 204
    run = f"/threads/{document['thread_id']}/runs/{document['run_id']}"
    async with asyncio.timeout(20):
        while (await ours.http.get(run)).json()["status"] in {"pending", "running"}:  # noqa: ASYNC110  the same
            await asyncio.sleep(0.02)
    for table in ("documents", "document_parts", "store_items", "store_vectors_384"):
        assert (table, await library.count(table)) == (table, 0)


async def test_a_client_that_disconnects_during_an_upload_leaves_nothing(database_url: str, tmp_path: Path) -> None:
    head = b"POST /api/v1/documents HTTP/1.1\r\nHost: localhost\r\n"
    head += b"Content-Type: text/plain\r\nContent-Length: 9000000\r\n\r\n"
    connection = await asyncpg.connect(database_url)
    with served_on(database_url, tmp_path) as server:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(head + b"some words " * 400_000)
        async with asyncio.timeout(20):
            while not await connection.fetchval("select count(*) from document_parts"):  # noqa: ASYNC110  no event
                await asyncio.sleep(0.02)
            writer.transport.abort()
            while await connection.fetchval("select count(*) from documents"):  # noqa: ASYNC110  the same
                await asyncio.sleep(0.02)
    assert not await connection.fetchval("select count(*) from document_parts")
    await connection.close()


async def test_a_cancelled_ingestion_is_reported_and_resumes_when_the_document_is_uploaded_again(ours: Tenant) -> None:
    document = (await ours.post(LONG)).json()
    run = f"/threads/{document['thread_id']}/runs/{document['run_id']}"
    assert (await ours.http.post(f"{run}/cancel", params={"wait": True})).status_code in {202, 204, 200}
    stopped = await ours.ended(document)
    assert stopped["status"] == "failed"
    assert "upload the document again" in stopped["error"]
    assert await ours.search("chapter") == []
    again = await ours.post(LONG)
    assert again.status_code == 202
    assert (await ours.ended(again.json()))["status"] == "ready"
    text = LONG.decode()
    chunks = await ours.chunks(document["document_id"])
    assert [one["chunk"] for one in chunks] == list(range(len(chunks)))
    assert all(text[one["start"] : one["end"]] == one["text"] for one in chunks)


async def test_the_event_loop_is_free_while_a_pdf_is_read(ours: Tenant) -> None:
    """Other requests are answered during the ingestion of a large PDF."""
    document = (await ours.post(pdf(["words and more words"] * 300), "application/pdf")).json()
    answered = 0
    while (await ours.get(document["document_id"]))["status"] in {"pending", "running"}:
        answered += 1
    assert answered > 3


async def test_clients_cannot_run_the_ingestion_agent(ours: Tenant) -> None:
    document = await ours.upload(BOOK)
    thread_id = (await ours.http.post("/threads", json={})).json()["thread_id"]
    input_ = {"document_id": document["document_id"]}
    for named in ("_ingest", str(agent_id("_ingest"))):
        body = {"assistant_id": named, "input": input_}
        for path in ("/runs/wait", "/runs", "/runs/stream", "/runs/crons", f"/threads/{thread_id}/runs"):
            answer = await ours.http.post(path, json={**body, "schedule": "0 0 1 1 *"})
            assert (answer.status_code, path) == (404, path)
        answer = await ours.http.post("/runs/batch", json=[body])
        assert answer.status_code == 404
        assert (await ours.http.get(f"/assistants/{named}/schemas")).status_code == 404
        assert (await ours.http.patch(f"/assistants/{named}", json={"config": {}})).status_code in (404, 422)
    assert (await ours.http.post("/assistants", json={"graph_id": "_ingest"})).status_code == 404
    assert (await ours.get(document["document_id"]))["status"] == "ready"
    listed = await ours.http.post("/assistants/search", json={"limit": 100})
    assert "_ingest" not in {one["graph_id"] for one in listed.json()}
    assert (await ours.http.delete(f"/assistants/{agent_id('_ingest')}")).status_code == 409
