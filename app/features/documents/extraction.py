"""Extract text from PDF and HTML in a confined child process (``extractor.py``).

Whatever an untrusted file does to its parser, the result is either lines of text or ``Unreadable`` with the reason.
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

TIMEOUT_SECONDS = 30.0
TIMEOUT_SECONDS_PER_MIB = 4.0
MAX_TIMEOUT_SECONDS = 90.0
"""Wall clock for one document, by its size. The child process has its own limit of processor time."""
MAX_PROCESSES = 3
"""Concurrent processes, for uploads and for ingestions each; other documents wait, with fair shares for tenants."""
MAX_LINE_BYTES = 1024 * 1024
EXIT_SECONDS = 5.0

Mode = Literal["check", "text"]


class ExtractorMessage(msgspec.Struct):
    """A line from the extractor: the start of a page, a piece of text, the end, or the reason of a refusal."""

    text: str = ""
    page: bool = False
    end: bool = False
    title: str = ""
    pages: int = 0
    refused: str = ""


class DocumentSource(msgspec.Struct, frozen=True):
    """A document to extract, of ``tenant``: its content in pieces, its type and its ``size`` in bytes."""

    content: AsyncIterator[bytes]
    content_type: str
    charset: str = ""
    tenant: UUID | None = None
    size: int = 0


class TextExtractor:
    """Runs extractor processes, shared fairly between tenants. ``timeout``: seconds for a small document."""

    def __init__(self, timeout: float = TIMEOUT_SECONDS) -> None:
        self._timeout = timeout
        self._slots = {mode: FairSemaphore(MAX_PROCESSES, spare=1) for mode in get_args(Mode)}
        self._tasks = Tasks("extraction")

    async def check(self, source: DocumentSource) -> ExtractorMessage:
        """Open ``source`` and return its title and number of pages. Raises ``Unreadable``."""
        async with contextlib.aclosing(self.lines(source, "check")) as lines:
            return [line async for line in lines][-1]

    async def lines(self, source: DocumentSource, mode: Mode = "text") -> AsyncGenerator[ExtractorMessage, None]:
        """Yield the content of ``source``; the last message has ``end``. Raises ``Unreadable``."""
        timeout = min(MAX_TIMEOUT_SECONDS, self._timeout + TIMEOUT_SECONDS_PER_MIB * source.size / 2**20)
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
                async for line in self._read(process, timeout):
                    yield line
            finally:
                feeding.cancel()
                await asyncio.wait({feeding})
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()

    async def _read(
        self, process: asyncio.subprocess.Process, timeout: float
    ) -> AsyncGenerator[ExtractorMessage, None]:
        assert process.stdout is not None
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    raw = await process.stdout.readline()
            except TimeoutError:
                raise Unreadable(f"The document took more than {timeout:g} seconds to read.") from None
            except ValueError:
                raise Unreadable("The document cannot be read.") from None
            if not raw.endswith(b"\n"):
                await _raise_exited(process)
            line = msgspec.json.decode(raw, type=ExtractorMessage)
            if line.refused:
                raise Unreadable(line.refused)
            yielded_at = loop.time()
            yield line
            deadline += loop.time() - yielded_at  # the consumer's time does not count
            if line.end:
                return


async def _raise_exited(process: asyncio.subprocess.Process) -> None:
    """Raise ``Unreadable`` because the process exited before the end."""
    code = None
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(EXIT_SECONDS):
            code = await process.wait()
    reason = "took too much processor time" if code in {-24, -9} else "made its parser fail"
    raise Unreadable(f"The document cannot be read: it {reason}.")


async def _feed(writer: asyncio.StreamWriter, content: AsyncIterator[bytes]) -> None:
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        async for piece in content:
            writer.write(piece)
            await writer.drain()
        writer.close()
        await writer.wait_closed()
