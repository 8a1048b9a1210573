"""Run the benchmark: floors and server in alternating rounds, so that both see the same conditions."""

import asyncio
import contextlib
import functools
import os
import platform
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import asyncpg
import msgspec

from bench import commits, growing, load, operations, starting
from bench.client import connect
from bench.figures import ECHO, FRAMES, HELLO, OK, STREAM, Load, Machine, Paced, Result, Start, median_round
from bench.operations import API
from bench.processes import ROOT, Server, cpu_times, stolen_share
from bench.serving import Postgres, postgres

SHARES = (0.5, 0.8)


class Plan(msgspec.Struct, frozen=True):
    """Rounds and durations of a run."""

    rounds: int
    seconds: float
    """Duration of each load in each round."""
    paced_seconds: float
    threads: int
    starts: int


FULL = Plan(rounds=3, seconds=3.0, paced_seconds=8.0, threads=5, starts=5)
QUICK = Plan(rounds=1, seconds=1.0, paced_seconds=1.2, threads=1, starts=1)


def measure(*, quick: bool, say: Callable[[str], None]) -> Result:
    """Measure everything in a temporary folder. ``say`` is called with progress messages."""
    plan = QUICK if quick else FULL
    started_at, times, waiting = time.monotonic(), cpu_times(), os.getloadavg()[0]
    folder = Path(tempfile.mkdtemp(prefix="agent-bench-"))
    try:
        with postgres(folder) as database:
            with contextlib.ExitStack() as servers:
                hello = servers.enter_context(starting.bare("hello", "/hello", folder))
                frames = servers.enter_context(starting.bare("frames", "/", folder))
                service = servers.enter_context(starting.serve(database.url, folder))
                loads = measure_loads(plan, database, {HELLO: hello, FRAMES: frames, "": service}, say)
                paced = measure_paced(plan, loads, service.port, say)
                say("a thread of many turns")
                growth = growing.measure(service.port, database.url, database.log, plan.threads)
                token_bytes = asyncio.run(weigh_token(service.port))
            commits.clear(database.url)
            starts = measure_starts(plan, database, folder, say)
            settings = asyncio.run(postgres_settings(database.url))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Result(
        at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        quick=quick,
        took_s=round(time.monotonic() - started_at, 1),
        machine=machine_facts(settings, load_before=round(waiting, 2), stolen=stolen_share(times)),
        loads=loads,
        paced=paced,
        growth=growth,
        starts=starts,
        token_bytes=token_bytes,
    )


def measure_loads(plan: Plan, database: Postgres, servers: dict[str, Server], say: Callable[[str], None]) -> list[Load]:
    """Measure floors and scenarios in rounds; return the median round of each."""

    def on(name: str, operation: operations.Operation, clients: int) -> Callable[[], Load]:
        server = servers.get(name, servers[""])
        target = load.Target(server.port, server.pid, database.pid)
        return functools.partial(load.closed, name, target, operation, clients=clients, seconds=plan.seconds)

    def committing(grouped: bool, clients: int) -> Callable[[], Load]:
        return functools.partial(
            commits.measure, database.url, database.pid, grouped=grouped, clients=clients, seconds=plan.seconds
        )

    steps = (
        on(HELLO, operations.getting("/hello"), 64),
        on(OK, operations.getting(f"{API}/ok"), 64),
        committing(True, 1),
        *(on(ECHO, operations.echo, clients) for clients in (1, 16, 64)),
        committing(True, 64),
        committing(False, 1),
        committing(False, 64),
        *(on(FRAMES, operations.reading_frames("/"), clients) for clients in (1, 64)),
        *(on(STREAM, operations.stream100, clients) for clients in (1, 64)),
    )
    seen: list[list[Load]] = [[] for _ in steps]
    for n in range(plan.rounds):
        for rounds, step in zip(seen, steps, strict=True):
            found = step()
            rounds.append(found)
            say(f"round {n + 1}: {found.scenario}, {found.clients} clients: {found.per_second:,.0f}/s")
    return [median_round(rounds) for rounds in seen]


def measure_paced(plan: Plan, loads: list[Load], port: int, say: Callable[[str], None]) -> list[Paced]:
    """Measure latency at shares of the maximum rate."""
    greatest = {one.scenario: one.per_second for one in loads if one.clients == 64}
    found = []
    for name, operation in ((OK, operations.getting(f"{API}/ok")), (ECHO, operations.echo)):
        for share in SHARES:
            say(f"{name} at {share:.0%} of {greatest[name]:,.0f}/s")
            found.append(
                load.paced(name, port, operation, greatest=greatest[name], share=share, seconds=plan.paced_seconds)
            )
    return found


def measure_starts(plan: Plan, database: Postgres, folder: Path, say: Callable[[str], None]) -> list[Start]:
    """Measure start-up of ``serve`` on that PostgreSQL, ``dev`` with its own, and a bare application."""
    commands: dict[str, Callable[[], contextlib.AbstractContextManager[Server]]] = {
        "bare Litestar": lambda: starting.bare("hello", "/hello", folder),
        "serve": lambda: starting.serve(database.url, folder),
        "dev": lambda: starting.dev(folder),
    }
    found = []
    for command, start in commands.items():
        say(f"starts of {command}")
        found.append(starting.measure(command, start, plan.starts))
    return found


async def weigh_token(port: int) -> float:
    """Return the bytes of a token's event."""
    connection = await connect(port)
    answer = operations.whole_stream(operations.checked(await connection.ask(operations.STREAM)))
    connection.close()
    return operations.token_bytes(answer.body)


async def postgres_settings(url: str) -> list[str]:
    """Return PostgreSQL's version and durability settings."""
    connection = await asyncpg.connect(url)
    names = ("server_version", "fsync", "synchronous_commit")
    found = [str(await connection.fetchval(f"show {name}")).split(" ", maxsplit=1)[0] for name in names]
    await connection.close()
    return found


def machine_facts(settings: list[str], *, load_before: float, stolen: float) -> Machine:
    """Describe the machine; ``settings`` are PostgreSQL's."""
    named = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    revision = ""
    if git := shutil.which("git"):
        command = [git, "rev-parse", "--short", "HEAD"]
        revision = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    version, fsync, synchronous_commit = settings
    return Machine(
        cpu=named.group(1).strip() if named else platform.machine(),
        cores=len(os.sched_getaffinity(0)),
        memory_gb=round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        postgres=version,
        fsync=f"fsync {fsync}, synchronous_commit {synchronous_commit}",
        revision=revision,
        load_before=load_before,
        stolen=stolen,
    )
