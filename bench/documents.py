"""Cost of a large document: ``python -m bench.documents`` (``--megabytes 200``, ``--embedder hashing`` or ``none``).

One text is uploaded in a stream and ingested by one worker, while the memory of the server's processes is read from
the system ten times a second. The text is generated while streaming: the client does not hold it, either.
"""

import argparse
import asyncio
import contextlib
import json
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp

from bench.processes import Server, cpu_seconds, family, free_port, memory_mb, serving
from bench.serving import postgres
from bench.starting import READY

MEGABYTE = 1_000_000
PIECE = 250_000
GRACE_SECONDS = 3600.0
WORDS = 4000


def text_of(size: int) -> Iterator[bytes]:
    """Generate paragraphs with a natural distribution of words, in chunks."""
    dice = random.Random(11)
    words = [f"{dice.choice('bdgklmnprst')}{dice.choice('aeiou')}{number}" for number in range(WORDS)]
    waiting = b""
    while size > 0:
        while len(waiting) < PIECE:
            count = dice.randrange(30, 120)
            waiting += (" ".join(dice.choices(words, k=count)) + ".\n\n").encode()
        yield waiting[: min(PIECE, size)]
        size -= PIECE
        waiting = waiting[PIECE:]


class Memory:
    """Peak memory of the server's processes together, and of the largest one, in MB."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.peak = self.peak_of_one = 0.0

    async def watch(self) -> None:
        while True:
            self.peak = max(self.peak, memory_mb(self._pid)[0])
            self.peak_of_one = max(self.peak_of_one, *(peak_mb(pid) for pid in family(self._pid)))
            await asyncio.sleep(0.1)


def peak_mb(pid: int) -> float:
    """Return the peak resident memory of a process (VmHWM, proc(5))."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return round(int(line.split()[1]) * 1024 / MEGABYTE, 1)
    return 0.0


async def ingest(running: Server, size: int) -> dict[str, Any]:
    found: dict[str, Any] = {"idle_mb": memory_mb(running.pid)[0]}
    memory = Memory(running.pid)
    watching = asyncio.ensure_future(memory.watch())

    async def pieces() -> AsyncIterator[bytes]:
        for piece in text_of(size):
            yield piece

    limits = aiohttp.ClientTimeout(total=GRACE_SECONDS)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{running.port}", timeout=limits) as http:
        started_at, used = time.perf_counter(), cpu_seconds(running.pid)
        kind = {"content-type": "text/plain"}
        async with http.post("/api/v1/documents", data=pieces(), headers=kind) as answer:
            assert answer.status == 202, await answer.text()
            document = await answer.json()
        found |= {"upload_s": round(time.perf_counter() - started_at, 1), "peak_after_upload_mb": memory.peak}
        while document["status"] in {"pending", "running"}:
            await asyncio.sleep(0.5)
            async with http.get(f"/api/v1/documents/{document['document_id']}") as answer:
                document = await answer.json()
        assert document["status"] == "ready", document["error"]
        found |= {
            "ready_s": round(time.perf_counter() - started_at, 1),
            "server_cpu_s": round(cpu_seconds(running.pid) - used, 1),
            "chunks": document["chunks"],
            "peak_mb": memory.peak,
            "peak_of_one_process_mb": memory.peak_of_one,
        }
        question = {"query": "what is said of ba1"}
        started_at = time.perf_counter()
        async with http.post("/api/v1/documents/search", json=question) as answer:
            assert answer.status == 200, await answer.text()
        found["first_search_ms"] = round((time.perf_counter() - started_at) * 1000, 1)
    watching.cancel()
    return found


def measure(size: int, embedder: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as stack:
        folder = Path(place)
        database = stack.enter_context(postgres(folder))
        (folder / "agents.toml").write_text(f'[store]\nembedder = "{embedder}"\n')
        port = free_port()
        settings = {
            "DATABASE_URL": database.url,
            "PORT": str(port),
            "AGENT_AUTH": "none",
            "AGENT_CONFIG": "agents.toml",
        }
        command = [sys.executable, "-m", "app", "serve"]
        with serving(command, port, READY, folder, **settings) as running:
            found = asyncio.run(ingest(running, size))
    return {"megabytes": size // MEGABYTE, "embedder": embedder, **found}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.documents", description=__doc__)
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--embedder", choices=("hashing", "none"), default="hashing")
    chosen = parser.parse_args()
    print(json.dumps(measure(chosen.megabytes * MEGABYTE, chosen.embedder), indent=2))


if __name__ == "__main__":
    main()
