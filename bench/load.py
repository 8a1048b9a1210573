"""Load generators: a closed loop of clients, or requests at a fixed rate (open loop)."""

import asyncio
import selectors
import time
from collections import deque
from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar

import msgspec
import uvloop

from bench.client import Connection, Failed, connect
from bench.figures import Load, Paced, quantile
from bench.operations import Operation
from bench.processes import cpu_seconds

WARM_SECONDS = 0.3
"""Warm-up before measurements count."""
GRACE_SECONDS = 30.0
"""Seconds beyond its duration after which a load is aborted."""
MAX_ERRORS = 20
MAX_OPERATIONS = 200_000
MAX_CONNECTIONS = 256

T = TypeVar("T")


class Target(msgspec.Struct, frozen=True):
    """A server under load: its port, its process, and that of its PostgreSQL."""

    port: int
    pid: int
    postgres: int

    def used(self) -> tuple[float, float, float]:
        """Return the CPU seconds so far of the server, PostgreSQL and this client."""
        return cpu_seconds(self.pid), cpu_seconds(self.postgres), time.process_time()


class Observations:
    """Observations of the clients of one load."""

    def __init__(self) -> None:
        self.total: list[float] = []
        self.first: list[float] = []
        self.token: list[float] = []
        self.events = 0
        self.errors: list[str] = []

    @property
    def is_full(self) -> bool:
        """Whether the load must end early."""
        return len(self.errors) >= MAX_ERRORS or len(self.total) >= MAX_OPERATIONS


def closed(scenario: str, target: Target, operation: Operation, *, clients: int, seconds: float) -> Load:
    """Drive ``operation`` by ``clients`` connections for ``seconds``."""

    async def drive() -> Load:
        connections = [await connect(target.port) for _ in range(clients)]
        warm = Observations()
        await gather_within([ask_on(one, operation, warm, WARM_SECONDS) for one in connections], WARM_SECONDS)
        observed = Observations()
        before, started_at = target.used(), time.perf_counter()
        await gather_within([ask_on(one, operation, observed, seconds) for one in connections], seconds)
        wall = time.perf_counter() - started_at
        used = [now - then for now, then in zip(target.used(), before, strict=True)]
        for one in connections:
            one.close()
        observed.errors += warm.errors
        return summarize(scenario, clients, wall, observed, used)

    return uvloop.run(drive())


async def gather_within(every: list[Coroutine[Any, Any, None]], seconds: float) -> None:
    """Run all, for at most ``GRACE_SECONDS`` longer than ``seconds``."""
    async with asyncio.timeout(seconds + GRACE_SECONDS):
        await asyncio.gather(*every)


async def ask_on(connection: Connection, operation: Operation, observed: Observations, seconds: float) -> None:
    """One client: repeat the operation until it fails or the time has passed."""
    started_at = start = time.perf_counter()
    while start < started_at + seconds and not observed.is_full:
        try:
            done = await operation(connection)
        except Failed as error:
            observed.errors.append(str(error))
            return
        end = time.perf_counter()
        observed.total.append(end - start)
        observed.first.append(done.first)
        observed.token.append(done.token)
        observed.events += done.events
        start = end


def summarize(scenario: str, clients: int, wall: float, observed: Observations, used: list[float]) -> Load:
    """Summarize observations; ``used`` is the CPU of server, PostgreSQL and client."""
    server, postgres, client = (round(one / max(1, len(observed.total)) * 1e6, 1) for one in used)
    return Load(
        scenario=scenario,
        clients=clients,
        operations=len(observed.total),
        seconds=round(wall, 2),
        per_second=round(len(observed.total) / wall, 1),
        events_per_second=round(observed.events / wall, 1),
        p50_ms=quantile(observed.total, 0.5),
        p95_ms=quantile(observed.total, 0.95),
        p99_ms=quantile(observed.total, 0.99),
        first_p50_ms=quantile(observed.first, 0.5),
        token_p50_ms=quantile(observed.token, 0.5),
        server_us=server,
        postgres_us=postgres,
        client_us=client,
        errors=observed.errors,
    )


class Pool:
    """Connection pool for concurrent requests."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: deque[Connection] = deque()
        self._room = asyncio.Semaphore(MAX_CONNECTIONS)

    async def fill(self, connections: int) -> None:
        """Open connections in advance."""
        self._idle.extend([await connect(self._port) for _ in range(connections)])

    async def ask(self, operation: Operation, due: float, observed: Observations) -> None:
        """Run one operation; its latency counts from ``due``."""
        async with self._room:
            connection = self._idle.pop() if self._idle else await connect(self._port)
            try:
                await operation(connection)
            except Failed as error:
                observed.errors.append(str(error))
                return
            observed.total.append(time.perf_counter() - due)
            self._idle.append(connection)

    def close(self) -> None:
        """Close idle connections."""
        for connection in self._idle:
            connection.close()


def paced(scenario: str, port: int, operation: Operation, *, greatest: float, share: float, seconds: float) -> Paced:
    """Start ``operation`` evenly at ``share`` of the ``greatest`` rate for ``seconds``.

    Late beginnings of a busy client count as latency, so what is slow hides nothing that came after it.
    """
    rate = greatest * share

    async def drive() -> Paced:
        pool, warm, observed = Pool(port), Observations(), Observations()
        await pool.fill(16)
        await asyncio.gather(*(pool.ask(operation, time.perf_counter(), warm) for _ in range(16)))
        used, started_at = time.process_time(), time.perf_counter()
        async with asyncio.timeout(seconds + GRACE_SECONDS), asyncio.TaskGroup() as running:
            for n in range(int(rate * seconds)):
                due = started_at + n / rate
                if (early := due - time.perf_counter()) > 0:
                    await asyncio.sleep(early)
                running.create_task(pool.ask(operation, due, observed))
                if len(observed.errors) >= MAX_ERRORS:
                    break
        wall = time.perf_counter() - started_at
        pool.close()
        return Paced(
            scenario=scenario,
            share=share,
            rate=round(rate, 1),
            achieved=round(len(observed.total) / wall, 1),
            client_us=round((time.process_time() - used) / max(1, len(observed.total)) * 1e6, 1),
            p50_ms=quantile(observed.total, 0.5),
            p95_ms=quantile(observed.total, 0.95),
            p99_ms=quantile(observed.total, 0.99),
            errors=warm.errors + observed.errors,
        )

    return run_finely(drive())


def run_finely(work: Awaitable[T]) -> T:
    """Run on a loop with precise timers: uvloop and epoll wake on whole milliseconds."""
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner:
        return runner.run(wrapped(work))


async def wrapped(work: Awaitable[T]) -> T:
    """``work`` as a coroutine."""
    return await work
