"""Duration of a bulk load: ``python -m bench.loading`` (three minutes; ``--items 10000`` takes half of one).

Items of 20 words with a vector of 384 numbers each, out of a file into an embedded PostgreSQL with fsync on, by the
command, compared with bare COPY of the same vectors, and of the same rows into tables with the same indexes but that of
neighbours, which is built after it, as the command does with ``--rebuild-index``.
"""

import argparse
import asyncio
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import msgspec

from app.infra.db import migrations
from app.infra.db.embedded import EmbeddedDatabase
from app.providers.embeddings.hashing import hash_text
from app.security.access.structs import tenant_id_of
from bench.store_data import INDEX, WIDTH, sentence

LIVE = 5
"""Only one of so many items goes into a table with its index: that takes as long for fewer."""
BARE = "create table bare (item_id int, embedding halfvec(384))"


def write(path: Path, count: int) -> None:
    dice = random.Random(1)
    with path.open("wb") as out:
        for number in range(count):
            text = sentence(dice, 20)
            vector = [round(part, 5) for part in hash_text(f"text: {text}", WIDTH)]
            line = {"namespace": ["bench"], "key": str(number), "value": {"text": text}, "vector": vector}
            out.write(msgspec.json.encode(line) + b"\n")


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """The number and the vector of each line, as COPY in text takes them."""
    with path.open("rb") as given:
        for number, line in enumerate(given):
            yield number, json.dumps(msgspec.json.decode(line)["vector"])


async def bare(url: str, rows: Path) -> float:
    """Seconds of a COPY of all vectors into a table without an index."""
    connection = await asyncpg.connect(url)
    await connection.execute(BARE)
    started_at = time.perf_counter()
    await connection.copy_to_table("bare", source=rows)
    took = time.perf_counter() - started_at
    await connection.execute("drop table bare")
    await connection.close()
    return took


async def built(url: str) -> float:
    """Seconds that building the index of neighbours alone takes."""
    connection = await asyncpg.connect(url)
    await connection.execute("drop index store_vectors_384_near_idx; set maintenance_work_mem = '512MB'")
    started_at = time.perf_counter()
    await connection.execute(INDEX, timeout=500)
    took = time.perf_counter() - started_at
    await connection.close()
    return took


def command(url: str, folder: Path, *words: str) -> float:
    environment = {**os.environ, "DATABASE_URL": url, "PYTHONPATH": str(Path(__file__).parent.parent)}
    started_at = time.perf_counter()
    subprocess.run([sys.executable, "-m", "app", "store", *words], env=environment, cwd=folder, check=True)
    return time.perf_counter() - started_at


async def count(url: str, tenant: str) -> int:
    connection = await asyncpg.connect(url)
    found = await connection.fetchval(
        "select count(*) from store_vectors_384 where tenant_id = $1", tenant_id_of(tenant)
    )
    await connection.close()
    return int(found)


def measure(path: Path, items: int) -> dict[str, Any]:
    found: dict[str, Any] = {"items": items}

    def note(name: str, seconds: float, of: int = items) -> None:
        found[name] = {"seconds": round(seconds, 1), "per_s": round(of / seconds)}
        print(name, found[name], file=sys.stderr)

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        database = EmbeddedDatabase(folder)
        url = database.start()
        try:
            migrations.upgrade(url)
            rows = folder / "rows"
            rows.write_text("".join(f"{number}\t{vector}\n" for number, vector in lines(path)))
            note("bare COPY of the vectors, no index", asyncio.run(bare(url, rows)))
            note(
                "import --rebuild-index", command(url, folder, "import", str(path), "--tenant", "a", "--rebuild-index")
            )
            found["most memory of the command, MB"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
            assert asyncio.run(count(url, "a")) == items
            note("building the index of neighbours alone", asyncio.run(built(url)))
            note("export", command(url, folder, "export", "out.jsonl", "--tenant", "a"))
            few = folder / "few.jsonl"
            with path.open("rb") as given:
                few.write_bytes(b"".join(given.readline() for _ in range(items // LIVE)))
            note("import, the index goes along", command(url, folder, "import", "few.jsonl"), items // LIVE)
        finally:
            database.stop()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.loading", description=__doc__)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--file", help="the items, if they have been written by a run before")
    given = parser.parse_args()
    items = given.items
    with tempfile.TemporaryDirectory() as place:
        path = Path(given.file or f"{place}/items.jsonl")
        if not path.exists():
            write(path, items)
        print(json.dumps(measure(path, items), indent=2))


if __name__ == "__main__":
    main()
