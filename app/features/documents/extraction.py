"""Text out of PDF and HTML, by a process of its own (``extractor.py``) that has no secrets, and bounds.

Whatever a stranger's file does to its parser, this process sees an end: lines of text, or a sentence why there are
none.
"""

import asyncio
import contextlib
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Literal, get_args
from uuid import UUID

import msgspec

from app.base.errors import Unreadable
from app.base.fair_semaphore import FairSemaphore
from app.base.tasks import Tasks
from app.features.documents import extractor

SECONDS = 30.0
SECONDS_A_MIB = 4.0
MAX_SECONDS = 90.0
"""Of the clock, for one document: more for a larger one. Its process has a bound of its own on processor time."""
AT_ONCE = 3
"""Processes at once, for uploads and for ingestions each; more documents wait, tenant by tenant."""
MAX_LINE_BYTES = 1024 * 1024
END_SECONDS = 5.0

Mode = Literal["check", "text"]


class ExtractorMessage(msgspec.Struct):
    """What the extractor says: a page begins, a piece of text, the end, or why not."""

    text: str = ""
    page: bool = False
    end: bool = False
    title: str = ""
    pages: int = 0
    refused: str = ""


class DocumentSource(msgspec.Struct, frozen=True):
    """A document to read: its content in pieces, and what it is. ``tenant`` is whose it is, ``size`` its bytes."""

    content: AsyncIterator[bytes]
    content_type: str
    charset: str = ""
    tenant: UUID | None = None
    size: int = 0


class TextExtractor:
    """Runs extractors, whose number tenants share fairly. ``seconds`` bounds a small document."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._slots = {mode: FairSemaphore(AT_ONCE, spare=1) for mode in get_args(Mode)}
        self._tasks = Tasks("extraction")

    async def check(self, source: DocumentSource) -> ExtractorMessage:
        """Whether ``source`` can be read: its title and pages. Raises ``Unreadable``."""
        async with contextlib.aclosing(self.lines(source, "check")) as lines:
            return [line async for line in lines][-1]

    async def lines(self, source: DocumentSource, mode: Mode = "text") -> AsyncGenerator[ExtractorMessage, None]:
        """What is in ``source``, the end last. Raises ``Unreadable``."""
        seconds = min(MAX_SECONDS, self._seconds + SECONDS_A_MIB * source.size / 2**20)
        async with self._slots[mode].slot(source.tenant):
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", str(Path(extractor.__file__)), source.content_type, source.charset, mode),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                limit=MAX_LINE_BYTES,
                env={},
            )
            assert process.stdin is not None
            feeding = self._tasks.start(_feed(process.stdin, source.content), name="feed")
            try:
                async for line in self._read(process, seconds):
                    yield line
            finally:
                feeding.cancel()
                await asyncio.wait({feeding})
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()

    async def _read(
        self, process: asyncio.subprocess.Process, seconds: float
    ) -> AsyncGenerator[ExtractorMessage, None]:
        assert process.stdout is not None
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while True:
            try:
                async with asyncio.timeout_at(until):
                    raw = await process.stdout.readline()
            except TimeoutError:
                raise Unreadable(f"The document took more than {seconds:g} seconds to read.") from None
            except ValueError:
                raise Unreadable("The document cannot be read.") from None
            if not raw.endswith(b"\n"):
                await _ended(process)
            line = msgspec.json.decode(raw, type=ExtractorMessage)
            if line.refused:
                raise Unreadable(line.refused)
            before = loop.time()
            yield line
            until += loop.time() - before  # what others did meanwhile is not the document's fault
            if line.end:
                return


async def _ended(process: asyncio.subprocess.Process) -> None:
    """Raise ``Unreadable``: the process went away in the middle."""
    code = None
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(END_SECONDS):
            code = await process.wait()
    why = "took too much processor time" if code in {-24, -9} else "made its reader fail"
    raise Unreadable(f"The document cannot be read: it {why}.")


async def _feed(writer: asyncio.StreamWriter, content: AsyncIterator[bytes]) -> None:
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        async for piece in content:
            writer.write(piece)
            await writer.drain()
        writer.close()
        await writer.wait_closed()
