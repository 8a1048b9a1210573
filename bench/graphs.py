"""Hosted LangGraph graphs: ``python -m bench.graphs`` (a minute), with ``--peer PORT`` another server beside ours.

The same work at this server (durable, the graph in a worker process of its own), by an agent of ours that needs no
graph, by the library alone in one process (in memory), and at a peer that serves ``bench/hosted/langgraph.json`` with
LangGraph's API, in turn in each round. Prints medians of the rounds, and what hosting adds to the library and to a run
of our own agent. Needs the packages of a graph project (``make`` installs them for the tests).
"""

import argparse
import functools
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from bench import load
from bench.client import Connection, Failed, request
from bench.figures import Load
from bench.operations import API, HELLO, TOKENS, Done, Operation, checked
from bench.serving import Postgres, postgres, server

PROJECT = Path(__file__).parent / "hosted"
ROUNDS = 3
SECONDS = 4.0
CLIENTS = 16
ECHO, STREAM = "echo", "stream100"
HOSTED = "hosted_"
"""Before the names of graphs at our server, whose own agent is ``echo``."""

AGENTS = "".join(f'[agents.{HOSTED}{one}]\ngraph = "{PROJECT / "graphs.py"}:{one}"\n' for one in (ECHO, STREAM))


def echo(prefix: str, assistant: str) -> Operation:
    """A run on a thread of its own, waited for: two requests."""
    made = request("POST", f"{prefix}/threads", {})
    run = request("POST", "PATH", {"assistant_id": assistant, "input": HELLO})

    async def work(connection: Connection) -> Done:
        thread = checked(await connection.ask(made)).body.partition(b'"thread_id":"')[2][:36].decode()
        path = f"{prefix}/threads/{thread}/runs/wait"
        answer = checked(await connection.ask(run.replace(b"PATH", path.encode(), 1)))
        if b'"echo: hello"' not in answer.body:
            raise Failed(f"not an echo: {answer.body[:200]!r}")
        return Done(1, answer.first)

    return work


def stream(prefix: str, assistant: str) -> Operation:
    """A stateless run of a hundred tokens, streamed to its end."""
    body = {"assistant_id": assistant, "input": HELLO, "stream_mode": "messages-tuple"}
    ready = request("POST", f"{prefix}/runs/stream", body)

    async def work(connection: Connection) -> Done:
        answer = checked(await connection.ask(ready))
        tokens = answer.body.count(b"event: messages")
        if tokens < TOKENS:
            raise Failed(f"not a whole stream: {answer.body[-300:]!r}")
        return Done(tokens, answer.first, answer.token)

    return work


def alone(name: str) -> float:
    """Return microseconds of CPU that a run takes in the library alone."""
    command = [sys.executable, str(PROJECT / "alone.py"), name, str(SECONDS)]
    return float(subprocess.run(command, cwd=PROJECT, check=True, capture_output=True, text=True).stdout)


def pid_at(port: int) -> int:
    """Return the process that listens on ``port``."""
    found = subprocess.run(["ss", "-Hltnp", f"sport = :{port}"], check=True, capture_output=True, text=True).stdout
    return int(found.split("pid=")[1].split(",")[0])


def rows(ours: load.Target, peer: load.Target | None) -> Iterator[tuple[str, Callable[[], Load | float]]]:
    """Yield what each round measures, by name."""
    for name, operation in ((ECHO, echo), (STREAM, stream)):
        works = {"hosted": (ours, operation(API, HOSTED + name))}
        if name == ECHO:
            works["our own agent"] = (ours, operation(API, name))
        if peer:
            works["peer"] = (peer, operation("", name))
        for where, (target, work) in works.items():
            for clients in (1, CLIENTS):
                measured = functools.partial(load.closed, name, target, work, clients=clients, seconds=SECONDS)
                yield f"{name}, {where}, {clients} clients", measured
        yield f"{name}, library alone", functools.partial(alone, name)


def report(found: dict[str, list[Load | float]]) -> None:
    """Print the medians and what follows from them."""
    cpu_ms: dict[str, float] = {}
    for name, rounds in found.items():
        loads = [one for one in rounds if isinstance(one, Load)]
        if not loads:
            cpu_ms[name] = statistics.median(one for one in rounds if isinstance(one, float)) / 1000
            print(f"{name}: {cpu_ms[name]:.2f} ms of CPU a run")
            continue
        cpu_ms[name] = statistics.median(one.server_us for one in loads) / 1000
        errors = [error for one in loads for error in one.errors]
        print(
            f"{name}: {statistics.median(one.per_second for one in loads):.1f} runs/s"
            f" ({min(one.per_second for one in loads):.1f} to {max(one.per_second for one in loads):.1f}),"
            f" {cpu_ms[name]:.2f} ms of CPU a run,"
            f" p50 {statistics.median(one.p50_ms for one in loads):.1f} ms, {len(errors)} errors {errors[:1]}"
        )
    hosted, own, library = (cpu_ms[f"{ECHO}, {one}"] for one in (
        f"hosted, {CLIENTS} clients", f"our own agent, {CLIENTS} clients", "library alone",
    ))  # fmt: skip
    print(f"adapter and saver: {hosted - own - library:.2f} ms above the library and a run of our own agent")
    ratio = cpu_ms[f"{STREAM}, hosted, {CLIENTS} clients"] / cpu_ms[f"{STREAM}, library alone"]
    print(f"{STREAM}: {ratio:.2f} × the CPU of the library alone")


def measure(database: Postgres, folder: Path, peer: int) -> dict[str, list[Load | float]]:
    """Measure all in rounds."""
    with server(database.url, folder, AGENTS, WORKERS="1") as own:
        ours = load.Target(own.port, own.pid, database.pid)
        other = load.Target(peer, pid_at(peer), database.pid) if peer else None
        found: dict[str, list[Load | float]] = {}
        for _ in range(ROUNDS):
            for name, work in rows(ours, other):
                found.setdefault(name, []).append(work())
        return found


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench.graphs", description=__doc__)
    parser.add_argument("--peer", type=int, default=0, help="port on loopback of a peer that serves the same project")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="agent-bench-") as folder, postgres(Path(folder)) as database:
        report(measure(database, Path(folder), options.peer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
