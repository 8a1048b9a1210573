"""An MCP server as a child process that speaks on its standard input and output (the transport ``stdio``).

It gets the configured environment and no other, limits of its own, and ends with this process. What it writes to its
standard error is logged, bounded.
"""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio
import structlog
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

log = structlog.get_logger(__name__)

LAUNCHER = """
import os, resource, signal, sys
parent, memory, program, *arguments = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
files = min(1024, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
if int(memory):
    resource.setrlimit(resource.RLIMIT_DATA, (int(memory), int(memory)))
try:
    import ctypes
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
except (ImportError, AttributeError, OSError):
    pass
if os.getppid() == int(parent):
    os.execv(program, [program, *arguments])
"""
"""Becomes the server, with limits (descriptors, memory, no core dumps), and is killed when its parent process dies.

It is a process of its own because Python may not run code between fork and exec while there are threads.
"""

MAX_LINE_BYTES = 8 * 1024 * 1024
"""Bytes of one message."""
MAX_ERROR_LINES = 100
"""Lines of standard error that are logged in a minute."""
MAX_ERROR_LENGTH = 500
EXIT_SECONDS = 0.5
CLOSE_SECONDS = 2.0
"""Time to end after its input is closed, and again after SIGTERM."""


class ServerProcess:
    """A child process that runs ``command`` in ``folder``; ``memory``: its limit in bytes, 0 for none.

    ``on_end`` is called when its output ends.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        folder: Path,
        memory: int,
        on_end: Callable[[], None],
    ) -> None:
        self.name = name
        self._command = command
        self._environment = environment
        self._folder = folder
        self._memory = memory
        self._on_end = on_end
        self._process: asyncio.subprocess.Process | None = None
        self._last_words = ""

    def how_it_ended(self) -> str:
        """Return how the process ended, with the last line of its standard error; empty while it runs."""
        code = None if self._process is None else self._process.returncode
        if code is None:
            return ""
        return f"its process ended with code {code}{f': {self._last_words}' if self._last_words else ''}"

    @contextlib.asynccontextmanager
    async def streams(self) -> AsyncIterator[tuple[Any, Any]]:
        """Run the process for the block; yield the SDK's streams of messages from it and to it. Raises ``OSError``."""
        self._process = process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", "-c", LAUNCHER, str(os.getpid()), str(self._memory), *self._command),
            cwd=self._folder,
            env=dict(self._environment),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=MAX_LINE_BYTES,
            start_new_session=True,
        )
        incoming, received = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        sent, outgoing = anyio.create_memory_object_stream[SessionMessage](0)
        async with incoming, received, sent, outgoing, anyio.create_task_group() as group:
            group.start_soon(self._read, process, incoming)
            group.start_soon(_write, process, outgoing, incoming)
            group.start_soon(self._log_errors, process)
            try:
                yield received, sent
            finally:
                with anyio.CancelScope(shield=True):
                    await _end(process)
                group.cancel_scope.cancel()
        log.info("mcp_server_ended", server=self.name, code=process.returncode)

    async def _read(self, process: asyncio.subprocess.Process, incoming: Any) -> None:
        assert process.stdout is not None
        async with incoming:
            try:
                while line := await process.stdout.readline():
                    if not line.strip():
                        continue
                    try:
                        message = jsonrpc_message_adapter.validate_json(line, by_name=False)
                    except ValueError:
                        log.warning("mcp_server_protocol", server=self.name, detail="a line that is not JSON-RPC")
                        continue
                    await incoming.send(SessionMessage(message))
            except ValueError:  # StreamReader's own, for a line beyond its limit
                log.warning("mcp_server_protocol", server=self.name, detail=f"a line of over {MAX_LINE_BYTES} bytes")
            except (anyio.BrokenResourceError, anyio.ClosedResourceError, ConnectionError):
                pass
            finally:
                self._on_end()
                with anyio.move_on_after(EXIT_SECONDS):
                    await process.wait()  # its exit code says how it ended

    async def _log_errors(self, process: asyncio.subprocess.Process) -> None:
        """Log lines of standard error; beyond the limit they are read and dropped, so that the server never blocks."""
        assert process.stderr is not None
        minute, lines = 0, 0
        while chunk := await process.stderr.read(65_536):
            now = int(time.monotonic() // 60)
            minute, lines = (minute, lines) if now == minute else (now, 0)
            for line in chunk.decode("utf-8", "replace").splitlines():
                lines += 1
                self._last_words = line.strip()[:MAX_ERROR_LENGTH] or self._last_words
                if lines <= MAX_ERROR_LINES:
                    log.info("mcp_server_stderr", server=self.name, line=line[:MAX_ERROR_LENGTH])
                elif lines == MAX_ERROR_LINES + 1:
                    log.warning("mcp_server_stderr_cut", server=self.name, lines=MAX_ERROR_LINES)


async def _write(process: asyncio.subprocess.Process, outgoing: Any, incoming: Any) -> None:
    assert process.stdin is not None
    try:
        async with outgoing:
            async for message in outgoing:
                text = message.message.model_dump_json(by_alias=True, exclude_unset=True)
                process.stdin.write(text.encode() + b"\n")
                await process.stdin.drain()
    except (OSError, RuntimeError, anyio.ClosedResourceError):
        await incoming.aclose()  # the SDK learns of the end, instead of waiting for an answer


async def _end(process: asyncio.subprocess.Process) -> None:
    """Close the server's input, then end its process group: SIGTERM, then SIGKILL."""
    assert process.stdin is not None
    with contextlib.suppress(OSError, RuntimeError):
        process.stdin.close()
    for number in (None, signal.SIGTERM, signal.SIGKILL):
        if number is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await process.wait()
                break
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # what the server itself has started
