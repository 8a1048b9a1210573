"""Cost of separate API and worker processes: ``python -m bench.across`` (a minute or two).

One process serves requests, another executes runs. Pick-up is the time between a run's acceptance and its claim, by the
database; the age of a token is that of a timestamp that the agent sends, read in another process. Before that, servers
with one and with two workers alternate at the same load.
"""

import argparse
import asyncio
import contextlib
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from bench import idle, workers
from bench.processes import Server
from bench.serving import base, postgres, server
from tests.redis import RedisServer


def quantiles(values: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(values, n=100)
    return {"p50_ms": round(cuts[49] * 1000, 2), "p99_ms": round(cuts[98] * 1000, 2)}


async def pick_up(api: Server, url: str, runs: int) -> dict[str, float]:
    async with httpx.AsyncClient(base_url=base(api), timeout=30) as http:
        for _ in range(runs):
            made = (await http.post("/runs", json={"assistant_id": "echo", "input": {"messages": "hi"}})).json()
            await http.get(f"/threads/{made['thread_id']}/runs/{made['run_id']}/join")
    connection = await asyncpg.connect(url)
    rows = await connection.fetch("select extract(epoch from started_at - created_at)::float8 as waited from runs")
    await connection.close()
    return quantiles([row["waited"] for row in rows])


async def tokens(api: Server, count: int) -> dict[str, float]:
    body = {"assistant_id": "clock", "input": {"count": count}, "stream_mode": "custom"}
    async with (
        httpx.AsyncClient(base_url=base(api), timeout=60) as http,
        http.stream("POST", "/runs/stream", json=body) as answer,
    ):
        lines = answer.aiter_lines()
        ages = [time.time() - float(line[6:]) async for line in lines if line[:6] == "data: " and line[6:7].isdigit()]
    return quantiles(ages[10:])


def measure(*, quick: bool, only_workers: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as stack:
        folder = Path(place)
        database = stack.enter_context(postgres(folder))
        url = database.url
        found["runs by one worker and by two"] = workers.measure(
            url, database.pid, folder, rounds=2 if quick else 6, seconds=1.0 if quick else 4.0
        )
        if only_workers:
            return found
        redis = RedisServer(folder)
        stack.callback(redis.stop)
        for name, settings in (("without Redis", {}), ("with Redis", {"REDIS_URL": redis.url})):
            with (
                server(url, folder, AGENT_ROLE="api", **settings) as api,
                server(url, folder, AGENT_ROLE="worker", **settings),
            ):
                found[f"age of a token, {name}"] = asyncio.run(tokens(api, 100 if quick else 500))
                if not settings:
                    found["pick-up"] = asyncio.run(pick_up(api, url, 100 if quick else 500))
        found["idle streams"] = idle.idle(url, folder, 300 if quick else idle.STREAMS, 5 if quick else 15)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.across", description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--workers", action="store_true", help="only one worker against two")
    given = parser.parse_args()
    print(json.dumps(measure(quick=given.quick, only_workers=given.workers), indent=2))


if __name__ == "__main__":
    main()
