"""Invalid input gets a clear 4xx and stores nothing; a document that breaks its parser breaks nothing else."""

import zlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvloop
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from app.base.errors import Unreadable
from app.features.documents.extraction import DocumentSource, TextExtractor
from tests.documents.conftest import Library, Tenant, library_on
from tests.documents.samples import HTML, MARKDOWN, assemble, pdf

EMPTY_PDF = assemble(
    ["<< /Type /Catalog /Pages 2 0 R >>", "<< /Type /Pages /Kids [] /Count 0 >>", "<< /Title (none) >>"]
)
ENCRYPTED = pdf(["secret"]).replace(b"/Size", b"/Encrypt << /Filter /Standard /V 1 /R 2 /O (" + b"o" * 32 + b") /U ("
    + b"u" * 32 + b") /P -4 >> /ID [(aaaaaaaaaaaaaaaa) (aaaaaaaaaaaaaaaa)] /Size")  # fmt: skip

BAD: dict[str, tuple[bytes, str, int, str]] = {
    "empty": (b"", "text/plain", 422, "empty"),
    "only white space": (b" \n\t\n" * 9, "text/plain", 422, "only white space"),
    "invalid UTF-8": (b"good \xff bad", "text/plain", 422, "not UTF-8 (byte 5)"),
    "half a character at the end": ("ä".encode()[:1], "text/markdown", 422, "not UTF-8"),
    "half a surrogate pair": (b"\xed\xa0\x80", "text/plain", 422, "not UTF-8"),
    "a NUL": (b"a\x00b", "text/plain", 422, "NUL character (byte 1)"),
    "another charset": ("ä".encode("latin-1"), "text/plain; charset=latin-1", 415, "UTF-8"),
    "an unknown charset of HTML": (HTML, "text/html; charset=klingon", 422, "'klingon' is not known"),
    "HTML that is not in its charset": (b"<p>\xff</p>", "text/html; charset=utf-8", 422, "not utf-8 (byte 3)"),
    "HTML with an unknown charset in its meta element": (b"<meta charset=nope><p>x", "text/html", 422, "'nope'"),
    "a picture": (b"\x89PNG", "image/png", 415, "send text/plain, text/markdown, text/html and application/pdf"),
    "no type at all": (b"x", "application/octet-stream", 415, "is missing"),
    "JSON": (b"{}", "application/json", 415, "'application/json' is not"),
    "no PDF": (b"hello", "application/pdf", 422, "does not start with a PDF header"),
    "the beginning of a PDF": (b"%PDF-1.7\n", "application/pdf", 422, "broken"),
    "half of a PDF": (pdf(["x" * 99] * 9)[:700], "application/pdf", 422, "broken"),
    "a PDF without pages": (EMPTY_PDF, "application/pdf", 422, "no pages"),
    "an encrypted PDF": (ENCRYPTED, "application/pdf", 422, "encrypted"),
}


async def empty(library: Library) -> bool:
    """Whether the tables hold nothing of a document."""
    tables = ("documents", "document_parts", "store_items", "runs", "threads", "idempotency_keys")
    return [await library.count(table) for table in tables] == [0] * len(tables)


async def test_an_unreadable_document_is_refused_and_nothing_is_stored(ours: Tenant, library: Library) -> None:
    for what, (content, kind, status, words) in BAD.items():
        answer = await ours.post(content, kind, key=f"key of {what}")
        assert (answer.status_code, words in answer.text) == (status, True), f"{what}: {answer.text}"
        assert answer.headers["content-type"].startswith("application/problem+json")
        assert await empty(library), what


async def test_metadata_is_validated(ours: Tenant, library: Library) -> None:
    for fields, words in [
        ({"collection": "a.b"}, "is not a valid name"),
        ({"collection": "x" * 65}, "is not a valid name"),
        ({"title": "x" * 501}, "longer than 500"),
        ({"title": "a\x01b"}, "not printable"),
        ({"metadata": "[1]"}, "JSON object"),
        ({"metadata": "{"}, "JSON object"),
        ({"metadata": '{"a": "\\u0000"}'}, "NUL"),
        ({"metadata": '{"a": "\\ud800"}'}, "JSON object"),
        ({"metadata": '{"a":' * 300 + "1" + "}" * 300}, "200 arrays"),
        ({"metadata": '{"a": "' + "x" * 20_000 + '"}'}, "16384"),
    ]:
        files: Any = {
            "file": ("a.txt", b"text", "text/plain"),
            **{name: (None, value) for name, value in fields.items()},
        }
        for answer in (await ours.http.post("/documents", files=files), await ours.post(b"text", **fields)):
            assert answer.status_code == 422, answer.text
            assert words in answer.json()["detail"]
        assert await empty(library)


async def test_a_form_must_be_valid_and_have_one_file(ours: Tenant, library: Library) -> None:
    form = {"content-type": "multipart/form-data; boundary=x"}
    file = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\ntext\r\n'
    for content, status in (
        (b"no form at all", 400),
        (b"--x\r\n", 400),
        (b'--x\r\nContent-Disposition: form-data; name="title"\r\n\r\nt\r\n--x--\r\n', 422),
        (file + file + b"--x--\r\n", 422),
        (file, 400),
        (b'--x\r\nContent-Disposition: form-data; name="title"\r\n\r\n' + b"t" * 70_000 + b"\r\n--x--\r\n", 413),
    ):
        answer = await ours.http.post("/documents", content=content, headers=form)
        assert answer.status_code == status, answer.text
    answer = await ours.http.post("/documents", content=b"x", headers={"content-type": "multipart/form-data"})
    assert answer.status_code == 400
    assert await empty(library)


async def test_a_document_over_the_size_limit_is_refused_however_it_is_sent(fresh_database_url: str) -> None:
    async def drip() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield b"x" * 1000

    async with library_on(fresh_database_url, AGENT_DOCUMENT_BYTES="20000") as library, library.tenant("t") as ours:
        assert (await ours.post(b"x" * 20_000)).status_code == 202
        before = await library.count("document_parts")
        kind = {"content-type": "text/plain"}
        files: Any = {"file": ("a.txt", b"x" * 20_001, "text/plain")}
        for answer in (
            await ours.post(b"x" * 20_001),
            await ours.http.post("/documents", content=drip(), headers=kind),
            await ours.http.post("/documents", files=files),
        ):
            assert answer.status_code == 413
            assert "20000 bytes" in answer.json()["detail"]
        assert await library.count("document_parts") == before
        assert await library.count("documents") == 1


async def test_a_search_is_validated(ours: Tenant) -> None:
    for body in (
        {},
        {"query": ""},
        {"query": "  "},
        {"query": "x" * 8001},
        {"query": "x", "limit": 0},
        {"query": "x", "limit": 600, "offset": 600},
        {"query": "x", "collection": "a b"},
        {"query": "x", "filter": {"a": {"$near": 1}}},
        {"query": "x", "document_ids": ["no"]},
    ):
        answer = await ours.http.post("/documents/search", json=body)
        assert answer.status_code == 422, (body, answer.text)


async def test_a_document_without_text_fails_with_a_reason_and_can_be_uploaded_again(ours: Tenant) -> None:
    document = await ours.upload(pdf([""]), "application/pdf")
    assert document["status"] == "failed"
    assert "holds no text" in document["error"]
    again = await ours.post(pdf([""]), "application/pdf")
    assert again.status_code == 202
    assert again.json()["document_id"] == document["document_id"]
    assert again.json()["run_id"] != document["run_id"]
    assert (await ours.ended(again.json()))["status"] == "failed"


async def test_an_endless_line_is_chunked(ours: Tenant) -> None:
    for content in (b"x" * 300_000, "漢字".encode() * 50_000, b"a b " * 80_000, b"\n" * 300_000 + b"end"):
        document = await ours.upload(content)
        assert document["status"] == "ready"
        text = await ours.text(document["document_id"])
        for one in await ours.chunks(document["document_id"]):
            assert text[one["start"] : one["end"]] == one["text"]
            assert len(one["text"].encode()) <= 1600


async def content_of(content: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(content), 65_536):
        yield content[at : at + 65_536]


async def read(content: bytes, kind: str, timeout: float = 60) -> str:
    lines = [line async for line in TextExtractor(timeout).lines(DocumentSource(content_of(content), kind))]
    assert lines[-1].end
    return "".join(line.text for line in lines)


async def text_or_reason(content: bytes, kind: str) -> str:
    """Return the text of a document, or the reason why it cannot be read. Any other error fails the test."""
    try:
        return await read(content, kind)
    except Unreadable as error:
        return str(error)


async def test_deeply_nested_html_is_read_or_times_out() -> None:
    assert await read(b"<div>" * 5000 + b"deep", "text/html") == "deep"
    with pytest.raises(Unreadable, match="took more than 2 seconds"):
        await read(b"<div>" * 400_000 + b"deep", "text/html", timeout=2)


async def test_a_pdf_bomb_ends_only_its_extractor() -> None:
    bomb = zlib.compress(b"\0" * 400_000_000, 9)
    stream = f"<< /Length {len(bomb)} /Filter /FlateDecode >>\nstream\n".encode()
    body = pdf(["x"])
    start = body.index(b"5 0 obj\n") + 8
    end = body.index(b"endobj", start)
    body = body[:start] + stream + bomb + b"\nendstream\n" + body[end:]
    assert len(await text_or_reason(body, "application/pdf")) < 1000


@settings(
    max_examples=12,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(
    kind=st.sampled_from(["text/html", "application/pdf"]),
    at=st.lists(st.tuples(st.integers(0, 3000), st.binary(min_size=1, max_size=30)), max_size=8),
)
def test_any_document_gives_text_or_a_reason(kind: str, at: list[tuple[int, bytes]]) -> None:
    content = bytearray(pdf(["some text"] * 4) if kind == "application/pdf" else HTML + MARKDOWN)
    for place, junk in at:
        content[place : place + len(junk)] = junk
    assert "\x00" not in uvloop.run(text_or_reason(bytes(content), kind))
