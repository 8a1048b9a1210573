"""The extractor of untrusted documents is confined, and one tenant's documents do not delay another's."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import pytest

from app.base.errors import Unreadable
from app.features.documents import extractor
from app.features.documents.extraction import MAX_PROCESSES, DocumentSource, TextExtractor
from tests.documents.samples import pdf

ALWAYS = {"writing", "descriptors", "memory"}
"""Restrictions that hold on every system."""
FILE = str(Path(extractor.__file__))
HOSTILE, INNOCENT = UUID(int=1), UUID(int=2)


@pytest.mark.parametrize("kind", ["text/html", "application/pdf"])
def test_the_extractor_drops_all_that_the_kernel_lets_it_drop(kind: str) -> None:
    command = [sys.executable, "-I", FILE, kind, "", "confinement"]
    result = subprocess.run(command, env={}, input=b"", capture_output=True, check=True)
    holds = json.loads(result.stdout.splitlines()[0])
    assert {name for name in ALWAYS if not holds[name]} == set()
    assert holds["user"]
    assert holds["processes"]
    if os.getuid() == 0:
        assert holds["files"]
        assert holds["network"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_an_ordinary_user_drops_the_same_if_user_namespaces_are_allowed() -> None:
    """As in the image. Modules are imported first, since that user may not read the folder of the tests."""
    code = (
        "import json, os, runpy\n"
        f"ours = runpy.run_path({FILE!r})\n"
        "ours['load']('application/pdf', '')\n"
        "os.setgroups([]); os.setresgid(10001, 10001, 10001); os.setresuid(10001, 10001, 10001)\n"
        "ours['limit_resources'](); ours['confine']()\n"
        "print(json.dumps(ours['confinement']()))\n"
    )
    result = subprocess.run([sys.executable, "-I", "-c", code], env={}, capture_output=True, check=True)
    holds = json.loads(result.stdout)
    assert {name for name in (*ALWAYS, "user", "processes") if not holds[name]} == set()
    probe = "import ctypes, os; os.setresuid(10001, 10001, 10001); print(ctypes.CDLL(None).unshare(0x50000000))"
    allowed = subprocess.run([sys.executable, "-I", "-c", probe], capture_output=True, check=True).stdout == b"0\n"
    assert (holds["files"], holds["network"]) == (allowed, allowed)


async def content_of(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def never() -> AsyncIterator[bytes]:
    """A document that never ends, like one with a slow parser."""
    await asyncio.Event().wait()
    yield b""


@pytest.mark.parametrize(
    "content, kind, charset, words",
    [
        (pdf(["Hello there"]), "application/pdf", "", "Hello there"),
        ("<p>日本語".encode("shift_jis"), "text/html", "shift_jis", "日本語"),
        ("<meta charset=koi8-r><p>привет".encode("koi8-r"), "text/html", "", "привет"),
        ("<p>你好".encode("gb18030"), "text/html", "gb18030", "你好"),
    ],
)
async def test_a_confined_extractor_reads_documents(content: bytes, kind: str, charset: str, words: str) -> None:
    lines = [line async for line in TextExtractor().lines(DocumentSource(content_of(content), kind, charset))]
    assert words in "".join(line.text for line in lines)


async def test_documents_of_one_tenant_do_not_delay_those_of_another() -> None:
    extraction = TextExtractor(timeout=45)
    crowd = [
        asyncio.ensure_future(extraction.check(DocumentSource(never(), "text/html", "utf-8", HOSTILE)))
        for _ in range(MAX_PROCESSES * 4)
    ]
    try:
        await asyncio.sleep(0)
        started_at = time.monotonic()
        await extraction.check(DocumentSource(content_of(b"<p>one line"), "text/html", "utf-8", INNOCENT))
        assert time.monotonic() - started_at < 30, "before any of the others has ended"
        assert not any(one.done() for one in crowd)
    finally:
        for one in crowd:
            one.cancel()
        await asyncio.gather(*crowd, return_exceptions=True)


async def test_a_small_document_has_a_shorter_timeout_than_a_large_one() -> None:
    with pytest.raises(Unreadable, match=r"took more than 0\.5 seconds"):
        await TextExtractor(0.5).check(DocumentSource(never(), "text/html"))
    with pytest.raises(Unreadable, match="took more than 2 seconds"):
        await TextExtractor(0).check(DocumentSource(never(), "text/html", size=2**19))
