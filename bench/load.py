"""Load on a server: so many clients, each asking again as soon as it was answered; or requests at a fixed rate."""

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
"""Of the same load, before it counts."""
PATIENCE = 30.0
"""Seconds beyond its time after which a load that does not end is given up."""
MOST_ERRORS = 20
MOST_OPERATIONS = 200_000
MOST_CONNECTIONS = 256

T = TypeVar("T")


class Target(msgspec.Struct, frozen=True):
    """A server under load: its port, its process, and that of the PostgreSQL beside it."""

    port: int
    pid: int
    postgres: int

    def used(self) -> tuple[float, float, float]:
        """Seconds of CPU so far: the server, PostgreSQL, and this client."""
        return cpu_seconds(self.pid), cpu_seconds(self.postgres), time.process_time()


class Kept:
    """What the clients of one load have seen."""

    def __init__(self) -> None:
        self.total: list[float] = []
        self.first: list[float] = []
        self.token: list[float] = []
        self.events = 0
        self.errors: list[str] = []

    @property
    def is_full(self) -> bool:
        """Whether the load must end before its time."""
        return len(self.errors) >= MOST_ERRORS or len(self.total) >= MOST_OPERATIONS


def closed(scenario: str, target: Target, operation: Operation, *, clients: int, seconds: float) -> Load:
    """Drive ``operation`` by ``clients`` connections for ``seconds``."""

    async def drive() -> Load:
        connections = [await connect(target.port) for _ in range(clients)]
        warm = Kept()
        await gathered([ask_on(one, operation, warm, WARM_SECONDS) for one in connections], WARM_SECONDS)
        kept = Kept()
        before, began = target.used(), time.perf_counter()
        await gathered([ask_on(one, operation, kept, seconds) for one in connections], seconds)
        wall = time.perf_counter() - began
        used = [now - then for now, then in zip(target.used(), before, strict=True)]
        for one in connections:
            one.close()
        kept.errors += warm.errors
        return summed(scenario, clients, wall, kept, used)

    return uvloop.run(drive())


async def gathered(every: list[Coroutine[Any, Any, None]], seconds: float) -> None:
    """Run all, for not much longer than ``seconds``."""
    async with asyncio.timeout(seconds + PATIENCE):
        await asyncio.gather(*every)


async def ask_on(connection: Connection, operation: Operation, kept: Kept, seconds: float) -> None:
    """One client: an operation after the other, until it fails or the time is over."""
    began = start = time.perf_counter()
    while start < began + seconds and not kept.is_full:
        try:
            done = await operation(connection)
        except Failed as error:
            kept.errors.append(str(error))
            return
        end = time.perf_counter()
        kept.total.append(end - start)
        kept.first.append(done.first)
        kept.token.append(done.token)
        kept.events += done.events
        start = end


def summed(scenario: str, clients: int, wall: float, kept: Kept, used: list[float]) -> Load:
    """The figures of what was seen; ``used`` is the CPU of server, PostgreSQL and client."""
    server, postgres, client = (round(one / max(1, len(kept.total)) * 1e6, 1) for one in used)
    return Load(
        scenario=scenario,
        clients=clients,
        operations=len(kept.total),
        seconds=round(wall, 2),
        per_second=round(len(kept.total) / wall, 1),
        events_per_second=round(kept.events / wall, 1),
        p50_ms=quantile(kept.total, 0.5),
        p95_ms=quantile(kept.total, 0.95),
        p99_ms=quantile(kept.total, 0.99),
        first_p50_ms=quantile(kept.first, 0.5),
        token_p50_ms=quantile(kept.token, 0.5),
        server_us=server,
        postgres_us=postgres,
        client_us=client,
        errors=kept.errors,
    )


class Pool:
    """Connections for requests that do not wait for each other."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: deque[Connection] = deque()
        self._room = asyncio.Semaphore(MOST_CONNECTIONS)

    async def fill(self, connections: int) -> None:
        """Open some before they are needed."""
        self._idle.extend([await connect(self._port) for _ in range(connections)])

    async def ask(self, operation: Operation, due: float, kept: Kept) -> None:
        """One operation; its latency counts from ``due``."""
        async with self._room:
            connection = self._idle.pop() if self._idle else await connect(self._port)
            try:
                await operation(connection)
            except Failed as error:
                kept.errors.append(str(error))
                return
            kept.total.append(time.perf_counter() - due)
            self._idle.append(connection)

    def close(self) -> None:
        """Close what is idle."""
        for connection in self._idle:
            connection.close()


def paced(scenario: str, port: int, operation: Operation, *, greatest: float, share: float, seconds: float) -> Paced:
    """Begin ``operation`` at ``share`` of the ``greatest`` rate, evenly, for ``seconds``.

    Late beginnings of a busy client count as latency, so what is slow hides nothing that came after it.
    """
    rate = greatest * share

    async def drive() -> Paced:
        pool, warm, kept = Pool(port), Kept(), Kept()
        await pool.fill(16)
        await asyncio.gather(*(pool.ask(operation, time.perf_counter(), warm) for _ in range(16)))
        used, began = time.process_time(), time.perf_counter()
        async with asyncio.timeout(seconds + PATIENCE), asyncio.TaskGroup() as running:
            for n in range(int(rate * seconds)):
                due = began + n / rate
                if (early := due - time.perf_counter()) > 0:
                    await asyncio.sleep(early)
                running.create_task(pool.ask(operation, due, kept))
                if len(kept.errors) >= MOST_ERRORS:
                    break
        wall = time.perf_counter() - began
        pool.close()
        return Paced(
            scenario=scenario,
            share=share,
            rate=round(rate, 1),
            achieved=round(len(kept.total) / wall, 1),
            client_us=round((time.process_time() - used) / max(1, len(kept.total)) * 1e6, 1),
            p50_ms=quantile(kept.total, 0.5),
            p95_ms=quantile(kept.total, 0.95),
            p99_ms=quantile(kept.total, 0.99),
            errors=warm.errors + kept.errors,
        )

    return run_finely(drive())


def run_finely(work: Awaitable[T]) -> T:
    """Run on a loop whose timers are exact: uvloop's and those over epoll wake on whole milliseconds."""
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner:
        return runner.run(wrapped(work))


async def wrapped(work: Awaitable[T]) -> T:
    """``work`` as a coroutine."""
    return await work
