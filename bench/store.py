"""Cost of the store: ``python -m bench.store`` (some three minutes; ``--quick`` with a tenth of the items).

Searches and puts against bare programs that do the same with the same rows, in one run: compare the ratios. The result
is stored in ``bench/results/``. ``--data`` keeps the items between runs.
"""

import argparse
import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import uvloop

from app.base.clock import now
from app.infra.db import migrations
from app.infra.db.embedded import EmbeddedDatabase
from bench.__main__ import RESULTS
from bench.load import Target
from bench.processes import Server, free_port, serving
from bench.starting import READY
from bench.store_data import SHARES, prepare
from bench.store_puts import puts
from bench.store_search import many_at_once, one_by_one

PEPPER = "0123456789abcdef" * 2


@contextlib.contextmanager
def server(url: str, folder: Path) -> Iterator[tuple[Server, dict[str, str]]]:
    """A server, and a key of each tenant."""
    port = free_port()
    own = {
        "DATABASE_URL": url,
        "AGENT_AUTH": "api_key",
        "AGENT_KEY_PEPPER": PEPPER,
        "PORT": str(port),
        "LOG_LEVEL": "warning",
    }
    keys = {}
    for name in SHARES:
        command = [sys.executable, "-m", "app", "keys", "create", "--name", "bench", "--tenant", name]
        environment = {**own, "PYTHONPATH": str(Path(__file__).parent.parent)}
        done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=True)
        keys[name] = done.stdout.strip()
    with serving([sys.executable, "-m", "app", "serve"], port, READY, folder, **own) as running:
        yield running, keys


async def measured(url: str, running: Server, keys: dict[str, str], *, quick: bool, parts: set[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    async with contextlib.AsyncExitStack() as stack:
        address = f"http://127.0.0.1:{running.port}"
        sessions = {
            name: await stack.enter_async_context(aiohttp.ClientSession(address, headers={"x-api-key": key}))
            for name, key in keys.items()
        }
        if "search" in parts:
            found["search"] = await one_by_one(url, sessions, 20 if quick else 100)
            found["search"] |= await many_at_once(url, sessions, 2 if quick else 5)
    return found


def table(name: str, figures: dict[str, dict[str, Any]]) -> str:
    columns = list(dict.fromkeys(column for row in figures.values() for column in row))
    lines = [[name, *columns], ["---"] * (len(columns) + 1)]
    lines += [[work, *(str(row.get(column, "")) for column in columns)] for work, row in figures.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.store", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="10,000 items in place of 100,000")
    parser.add_argument(
        "--data", type=Path, metavar="FOLDER", help="keep the items there, and use those that are there"
    )
    parser.add_argument("--only", choices=("search", "put"), action="append", help="a part of it")
    arguments = parser.parse_args()
    count = 10_000 if arguments.quick else 100_000
    started_at = time.monotonic()
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as stack:
        folder = arguments.data or Path(place)
        database = EmbeddedDatabase(folder)
        url = database.start()
        stack.callback(database.stop)
        migrations.upgrade(url)
        asyncio.run(prepare(url, count))
        with server(url, Path(place)) as (running, keys):
            parts = set(arguments.only or ("search", "put"))
            found = asyncio.run(measured(url, running, keys, quick=arguments.quick, parts=parts))
            if "put" in parts:
                postgres = int((folder / "postgres" / "postmaster.pid").read_text().split()[0])
                target = Target(running.port, running.pid, postgres)
                found["put"] = uvloop.run(puts(url, target, keys["large"], 4 if arguments.quick else 8))
    for name, figures in found.items():
        print(f"{table(name, figures)}\n")
    result = {"at": now().isoformat(timespec="seconds"), "items": count, **found}
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"store-{now():%Y%m%dT%H%M%S}.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"written to {path} in {time.monotonic() - started_at:.0f} s")


if __name__ == "__main__":
    main()
