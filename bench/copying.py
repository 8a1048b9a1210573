"""Duration of copying a long thread: ``python -m bench.copying`` (half a minute).

A thread with as many messages as checkpoints, each of which names all before it, is made by SQL; its copies are asked
for over HTTP and answered with all values, one worker, PostgreSQL with fsync on.
"""

import argparse
import contextlib
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import uvloop

from bench.serving import postgres
from bench.starting import serve

GROWN = (
    """insert into checkpoint_items (tenant_id, thread_id, number, body)
       select t.tenant_id, t.thread_id, n, convert_to(json_build_object('content', repeat('word ', 60),
         'additional_kwargs', json_build_object(), 'response_metadata', json_build_object(),
         'id', gen_random_uuid(), 'type', case when n % 2 = 1 then 'human' else 'ai' end)::text, 'UTF8')
       from threads t, generate_series(1, $2) n where t.thread_id = $1""",
    """insert into checkpoints (tenant_id, thread_id, checkpoint_id, parent_id, source, step, next, head, first_items,
         last_items)
       select t.tenant_id, t.thread_id, lpad(to_hex(n), 32, '0')::uuid,
         case when n > 1 then lpad(to_hex(n - 1), 32, '0')::uuid end, 'loop', n - 2, '{}',
         convert_to(format('{"lists":{"messages":[1,%s]}}', n), 'UTF8'), array[1::bigint], array[n::bigint]
       from threads t, generate_series(1, $2) n where t.thread_id = $1""",
    "update threads set head = lpad(to_hex($2::int), 32, '0')::uuid, last_number = $2 where thread_id = $1",
    "analyze checkpoints, checkpoint_items",
)
TIMES = 5


async def grown(url: str, thread_id: str, checkpoints: int) -> None:
    """Fill an empty thread with ``count`` checkpoints and messages."""
    connection = await asyncpg.connect(url)
    try:
        for statement in GROWN:
            await connection.execute(statement, *((thread_id, checkpoints) if "$1" in statement else ()))
    finally:
        await connection.close()


def measure(checkpoints: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as stack:
        folder = Path(place)
        database = stack.enter_context(postgres(folder))
        server = stack.enter_context(serve(database.url, folder))
        http = stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{server.port}/api/v1", timeout=60))
        thread_id = http.post("/threads", json={}).json()["thread_id"]
        uvloop.run(grown(database.url, thread_id, checkpoints))
        seconds = []
        answer = http.post(f"/threads/{thread_id}/copy").raise_for_status()
        assert len(answer.json()["values"]["messages"]) == checkpoints
        for _ in range(TIMES):
            started_at = time.perf_counter()
            http.post(f"/threads/{thread_id}/copy").raise_for_status()
            seconds.append(round(time.perf_counter() - started_at, 3))
        return {
            "checkpoints": checkpoints,
            "seconds": seconds,
            "median": statistics.median(seconds),
            "answer_mb": round(len(answer.content) / 1e6, 1),
        }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.copying", description=__doc__)
    parser.add_argument("--checkpoints", type=int, default=10_000)
    print(json.dumps(measure(parser.parse_args().checkpoints), indent=2))


if __name__ == "__main__":
    main()
