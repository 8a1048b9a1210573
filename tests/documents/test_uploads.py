"""Uploads: stored byte for byte, ingested once, deduplicated, listed and deleted."""

import asyncio
import hashlib
from typing import Any

from tests.documents.conftest import Library, Tenant
from tests.documents.samples import BOOK, HTML, MARKDOWN, pdf


async def test_a_text_is_ingested_and_chunks_have_exact_offsets(ours: Tenant) -> None:
    document = await ours.upload(BOOK, title="The book", collection="shelf", metadata='{"year": 1999}')
    assert document["status"] == "ready"
    assert (document["title"], document["collection"], document["metadata"]) == ("The book", "shelf", {"year": 1999})
    assert (document["size"], document["sha256"]) == (len(BOOK), hashlib.sha256(BOOK).hexdigest())
    chunks = await ours.chunks(document["document_id"])
    text = await ours.text(document["document_id"])
    assert text == BOOK.decode()
    assert len(chunks) == document["chunks"] > 20
    assert [one["chunk"] for one in chunks] == list(range(len(chunks)))
    for before, one in zip([None, *chunks], chunks, strict=False):
        assert text[one["start"] : one["end"]] == one["text"]
        assert before is None or before["start"] < one["start"] <= before["end"] + 2
    assert chunks[-1]["end"] == len(text.rstrip())


async def test_the_visible_text_of_html_is_extracted(ours: Tenant) -> None:
    document = await ours.upload(HTML, "text/html")
    assert (document["status"], document["title"]) == ("ready", "Boats")
    text = await ours.text(document["document_id"])
    assert text == "# All boats\n\nA sloop has one mast.\n\na ketch\na yawl\n\nname\tmasts\nsloop\t1"
    (chunk,) = await ours.chunks(document["document_id"])
    assert chunk["text"] == text


async def test_a_pdf_is_extracted_page_by_page(ours: Tenant) -> None:
    pages = [f"Page {n} tells of thing{n}.\nIt says nothing else, and it says so in words." for n in range(1, 8)]
    document = await ours.upload(pdf(pages * 20, "Of things"), "application/pdf", filename="things.pdf")
    assert (document["status"], document["title"], document["pages"]) == ("ready", "Of things", 140)
    chunks = await ours.chunks(document["document_id"])
    text = await ours.text(document["document_id"])
    for one in chunks:
        assert text[one["start"] : one["end"]] == one["text"]
    found = [one["page"] for one in chunks]
    assert found == sorted(found)
    assert found[0] == 1
    assert found[-1] > 100


async def test_the_uploaded_file_is_returned_byte_for_byte(ours: Tenant) -> None:
    for content, kind in ((BOOK, "text/plain"), (MARKDOWN, "text/markdown"), (pdf(["a"]), "application/pdf")):
        document = await ours.upload(content, kind, filename="ä b.txt")
        answer = await ours.http.get(f"/documents/{document['document_id']}/content")
        assert answer.content == content
        assert answer.headers["content-type"].startswith(kind)
        assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''%C3%A4%20b.txt"


async def test_a_form_has_a_file_and_fields_in_any_order(ours: Tenant) -> None:
    files: Any = [
        ("collection", (None, "forms")),
        ("file", ("notes.md", MARKDOWN, "application/octet-stream")),
        ("metadata", (None, '{"who": "me"}')),
    ]
    answer = await ours.http.post("/documents", files=files)
    assert answer.status_code == 202, answer.text
    document = await ours.ended(answer.json())
    assert (document["collection"], document["content_type"]) == ("forms", "text/markdown")
    assert (document["filename"], document["title"], document["metadata"]) == ("notes.md", "notes.md", {"who": "me"})


async def test_the_same_content_is_the_same_document_unless_its_metadata_differ(ours: Tenant, library: Library) -> None:
    first = await ours.post(BOOK)
    again = await ours.post(BOOK, title="Another title")
    assert (first.status_code, again.status_code) == (202, 200)
    assert again.json()["document_id"] == first.json()["document_id"]
    for other in ({"metadata": '{"a": 1}'}, {"collection": "elsewhere"}):
        answer = await ours.post(BOOK, **other)
        assert answer.status_code == 202
        assert answer.json()["document_id"] != first.json()["document_id"]
    assert await library.count("documents") == 3


async def test_uploads_of_the_same_content_at_the_same_time_make_one_document(ours: Tenant, library: Library) -> None:
    answers = await asyncio.gather(*(ours.post(MARKDOWN, "text/markdown") for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [202]
    assert len({answer.json()["document_id"] for answer in answers}) == 1
    assert await library.count("documents") == 1
    assert await library.count("runs") == 1


async def test_another_tenants_content_is_another_document(ours: Tenant, theirs: Tenant) -> None:
    mine, other = await ours.upload(BOOK), await theirs.upload(BOOK)
    assert mine["document_id"] != other["document_id"]
    assert (await theirs.http.get(f"/documents/{mine['document_id']}")).status_code == 404
    assert (await theirs.http.get(f"/documents/{mine['document_id']}/content")).status_code == 404
    assert (await theirs.http.delete(f"/documents/{mine['document_id']}")).status_code == 404
    assert {one["document_id"] for one in await theirs.search("chapter")} == {other["document_id"]}


async def test_a_repeated_request_with_its_key_gets_the_first_response(ours: Tenant, library: Library) -> None:
    first = await ours.post(BOOK, key="k1")
    again = await ours.post(BOOK, key="k1")
    assert again.json() == first.json()
    other = await ours.post(MARKDOWN, key="k1")
    assert other.status_code == 422
    assert await library.count("documents") == 1


async def test_documents_are_listed_newest_first_page_by_page(ours: Tenant) -> None:
    made = [(await ours.upload(b"text %d" % n, collection="abc"[n % 3]))["document_id"] for n in range(6)]
    answer = await ours.http.get("/documents", params={"limit": 4})
    assert [one["document_id"] for one in answer.json()] == made[:1:-1]
    assert (answer.headers["x-pagination-total"], answer.headers["x-pagination-next"]) == ("6", "4")
    answer = await ours.http.get("/documents", params={"collection": "b", "status": "ready"})
    assert [one["document_id"] for one in answer.json()] == [made[4], made[1]]
    assert (await ours.http.get("/documents", params={"status": "lost"})).status_code == 422


async def test_a_document_is_deleted_with_its_chunks_and_vectors(ours: Tenant, library: Library) -> None:
    document = await ours.upload(BOOK)
    assert await library.count("store_vectors_384") > 0
    assert (await ours.http.delete(f"/documents/{document['document_id']}")).status_code == 204
    for table in ("documents", "document_parts", "store_items", "store_vectors_384"):
        assert await library.count(table) == 0
    assert (await ours.http.get(f"/documents/{document['document_id']}")).status_code == 404
    assert (await ours.http.delete(f"/documents/{document['document_id']}")).status_code == 404
    assert await ours.search("chapter") == []
    assert (await ours.post(BOOK)).status_code == 202


async def test_clients_of_the_store_do_not_see_chunks(ours: Tenant) -> None:
    await ours.upload(BOOK)
    await ours.http.put("/store/items", json={"namespace": ["a"], "key": "k", "value": {"text": "a chapter"}})
    for body in ({}, {"query": "chapter"}):
        answer = await ours.http.post("/store/items/search", json=body)
        assert [item["namespace"] for item in answer.json()["items"]] == [["a"]]
    assert (await ours.http.post("/store/namespaces", json={})).json() == {"namespaces": [["a"]]}
    place = ["\U0010ffffdocuments", "default"]
    refused = await ours.http.put("/store/items", json={"namespace": place, "key": "k", "value": {}})
    assert refused.status_code == 422
