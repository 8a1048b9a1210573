"""Closed-loop load over HTTP: so many clients, each asking again as soon as it was answered, for so many seconds."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import msgspec

HELLO = {"messages": [{"role": "user", "content": "hello"}]}
Ask = Callable[[aiohttp.ClientSession], Awaitable[tuple[float, int]]]
"""One operation: seconds to its first event (or answer), and how many events it had."""


class Figures(msgspec.Struct, kw_only=True):
    """What one scenario showed. CPU is the server's, all its processes."""

    scenario: str
    clients: int
    per_second: float
    events_per_second: float
    p50_ms: float
    p99_ms: float
    first_p50_ms: float
    cpu_us_per_operation: float
    cpu_us_per_event: float
    errors: int


def family(pid: int) -> list[int]:
    """A process and its descendants."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found, todo = [], [pid]
    while todo:
        one = todo.pop()
        found.append(one)
        todo += children.get(one, [])
    return found


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and its descendants."""
    total = 0
    for one in family(pid):
        try:
            fields = Path(f"/proc/{one}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        total += int(fields[11]) + int(fields[12])
    return total / 100


def rss_mb(pid: int) -> float:
    """Resident memory of a process and its descendants, each counted whole."""
    pages = 0
    for one in family(pid):
        try:
            pages += int(Path(f"/proc/{one}/statm").read_text().split()[1])
        except OSError:
            continue
    return pages * 4096 / 1e6


async def run(scenario: str, pid: int, ask: Ask, *, clients: int, seconds: float) -> Figures:
    """Drive ``ask`` and measure; a short warm-up is not counted."""
    total: list[float] = []
    first: list[float] = []
    events = 0
    errors = 0
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=60)
    ) as session:
        await asyncio.gather(*(ask(session) for _ in range(min(clients, 8))))
        cpu, began = cpu_seconds(pid), time.perf_counter()

        async def client() -> None:
            nonlocal events, errors
            while time.perf_counter() - began < seconds:
                start = time.perf_counter()
                try:
                    to_first, count = await ask(session)
                except (aiohttp.ClientError, TimeoutError, AssertionError):
                    errors += 1
                    continue
                total.append(time.perf_counter() - start)
                first.append(to_first)
                events += count

        await asyncio.gather(*(client() for _ in range(clients)))
        wall, used = time.perf_counter() - began, cpu_seconds(pid) - cpu
    return Figures(
        scenario=scenario,
        clients=clients,
        per_second=round(len(total) / wall, 1),
        events_per_second=round(events / wall, 1),
        p50_ms=quantile(total, 0.5),
        p99_ms=quantile(total, 0.99),
        first_p50_ms=quantile(first, 0.5),
        cpu_us_per_operation=round(used / max(1, len(total)) * 1e6, 1),
        cpu_us_per_event=round(used / max(1, events) * 1e6, 1),
        errors=errors,
    )


def quantile(values: list[float], share: float) -> float:
    """In milliseconds; 0 where nothing was measured."""
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000, 2) if ordered else 0.0


def getting(url: str) -> Ask:
    """GET ``url``."""

    async def ask(session: aiohttp.ClientSession) -> tuple[float, int]:
        start = time.perf_counter()
        async with session.get(url) as answer:
            await answer.read()
            assert answer.status == 200
        return time.perf_counter() - start, 1

    return ask


def waiting(base: str) -> Ask:
    """A new thread, and an echo waited for on it."""

    async def ask(session: aiohttp.ClientSession) -> tuple[float, int]:
        start = time.perf_counter()
        async with session.post(f"{base}/threads", json={}) as answer:
            thread_id = (await answer.json())["thread_id"]
        made = time.perf_counter() - start
        body = {"assistant_id": "echo", "input": HELLO}
        async with session.post(f"{base}/threads/{thread_id}/runs/wait", json=body) as answer:
            values = await answer.json()
            assert values["messages"][-1]["content"] == "echo: hello"
        return made, 1

    return ask


def streaming(base: str) -> Ask:
    """A stateless run of a hundred tokens, read to its end."""

    async def ask(session: aiohttp.ClientSession) -> tuple[float, int]:
        start = time.perf_counter()
        first = 0.0
        events = 0
        body = {"assistant_id": "stream100", "input": HELLO, "stream_mode": "messages-tuple"}
        async with session.post(f"{base}/runs/stream", json=body) as answer:
            assert answer.status == 200
            async for chunk in answer.content.iter_any():
                first = first or time.perf_counter() - start
                events += chunk.count(b"\nid: ")
        assert events == 103
        return first, events

    return ask
