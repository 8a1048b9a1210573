"""Cost of exporting metrics and spans: ``python -m bench.telemetry`` (two minutes).

Servers on one PostgreSQL, each on a database of its own, take turns at the same load, runs of an agent that calls two
tools, each on a new thread and waited for; the others are idle. One pushes nothing, one metrics, one
metrics and the spans of every trace (the default, ``parentbased_always_on``), one those of one trace in ten. They push
to a process of this machine that reads and forgets. A ratio is that of a round against the server that pushes nothing
in the same round; the medians count.
"""

import argparse
import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from app.infra.db import migrations
from bench.client import Connection, Failed, request
from bench.figures import Load
from bench.load import Target, closed
from bench.operations import API, Done, checked, new_thread
from bench.processes import cpu_seconds
from bench.serving import postgres, server
from tests.database import at, execute

AGENTS = '[agents.helper]\nmodel = "scripted:demo"\ntools = ["calculator", "clock"]\n'
ASKED = {"messages": [{"role": "user", "content": "what is 6*7, and what time is it?"}]}
TOOLS = request("POST", "PATH", {"assistant_id": "helper", "input": ASKED})
SINK = """
import asyncio

class Sink(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.left, self.head = transport, 0, b""

    def data_received(self, data):
        while data:
            if self.left:
                self.left, data = self.left - min(self.left, len(data)), data[self.left:]
            else:
                self.head += data
                head, found, data = self.head.partition(b"\\r\\n\\r\\n")
                if not found:
                    return
                self.head = b""
                self.left = int(head.lower().split(b"content-length:")[1].split(b"\\r\\n")[0])
            if not self.left:
                self.transport.write(b"HTTP/1.1 200 OK\\r\\ncontent-length: 0\\r\\n\\r\\n")

async def main():
    server = await asyncio.get_running_loop().create_server(Sink, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

asyncio.run(main())
"""
NOTHING = "nothing"
VARIANTS: dict[str, dict[str, str]] = {
    NOTHING: {},
    "metrics": {"OTEL_TRACES_EXPORTER": "none"},
    "metrics, one trace in ten": {
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": "0.1",
    },
    "metrics, all traces": {},
}


async def tools(connection: Connection) -> Done:
    """A new thread, and on it a run of an agent that calls two tools: two requests, four steps."""
    thread = await new_thread(connection)
    answer = checked(await connection.ask(TOOLS.replace(b"PATH", f"{API}/threads/{thread}/runs/wait".encode(), 1)))
    if b"The tool calculator answered: 42" not in answer.body:
        raise Failed(f"no result of a tool: {answer.body[-300:]!r}")
    return Done(1, answer.first)


@contextlib.contextmanager
def sink() -> Iterator[tuple[str, int]]:
    """The collector: its address and its process."""
    process = subprocess.Popen([sys.executable, "-c", SINK], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}", process.pid
    finally:
        process.kill()
        process.wait()


def measure(url: str, postgres: int, folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Run the variants in alternating order."""
    loads: dict[str, list[Load]] = {name: [] for name in VARIANTS}
    with contextlib.ExitStack() as stack:
        address, pid = stack.enter_context(sink())
        targets = {}
        for number, (name, own) in enumerate(VARIANTS.items()):
            database = at(url, f"telemetry_{number}")
            asyncio.run(execute(url, f"create database telemetry_{number}"))
            migrations.upgrade(database)
            pushing = {"OTEL_EXPORTER_OTLP_ENDPOINT": address} if name != NOTHING else {}
            one = stack.enter_context(server(database, folder, AGENTS, **pushing, **own))
            targets[name] = Target(one.port, one.pid, postgres)
        took = cpu_seconds(pid)
        for n in range(given.rounds):
            for name in VARIANTS if n % 2 == 0 else reversed(VARIANTS):
                loads[name].append(closed(name, targets[name], tools, clients=given.clients, seconds=given.seconds))
        took = cpu_seconds(pid) - took
    if errors := [error for many in loads.values() for load in many for error in load.errors]:
        raise SystemExit(f"{len(errors)} requests failed: {errors[0]}")
    return {"CPU seconds of the collector": round(took, 2), **{name: figures(loads, name) for name in VARIANTS}}


def figures(loads: dict[str, list[Load]], name: str) -> dict[str, Any]:
    """The medians of a variant, and its ratios to the one that pushes nothing."""
    runs = [one.per_second / bare.per_second for one, bare in zip(loads[name], loads[NOTHING], strict=True)]
    cpu = [one.server_us / bare.server_us for one, bare in zip(loads[name], loads[NOTHING], strict=True)]
    return {
        "runs_per_second": round(statistics.median(one.per_second for one in loads[name]), 1),
        "server_us_a_run": round(statistics.median(one.server_us for one in loads[name])),
        "runs_ratio": round(statistics.median(runs), 3),
        "runs_ratio_of_each_round": [round(one, 3) for one in runs],
        "cpu_ratio": round(statistics.median(cpu), 3),
    }


def main() -> int:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.telemetry", description=__doc__)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=2.5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as stack:
        folder = Path(place)
        database = stack.enter_context(postgres(folder))
        sys.stdout.write(json.dumps(measure(database.url, database.pid, folder, given), indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
