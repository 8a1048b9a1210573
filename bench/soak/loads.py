"""Clients of a soak: repeat each kind of work with pauses, despite faults."""

import asyncio
import contextlib
import itertools
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import httpx

HELLO = {"messages": [{"role": "user", "content": "what is 6*7, and what time is it?"}]}
ACCEPTABLE = frozenset({409, 429, 503})
"""Statuses that a client retries: a busy thread, a limit, a server without its database."""


class Wrong(Exception):
    """A wrong response that no fault explains."""


class Clients:
    """Counts completed and disturbed work, and records errors."""

    def __init__(self, base: str, hook: str, seed: int) -> None:
        self.http = httpx.AsyncClient(base_url=base, timeout=30, limits=httpx.Limits(max_connections=200))
        self.hook = hook
        self.random = random.Random(seed)
        self.done: Counter[str] = Counter()
        self.disturbed: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.over = asyncio.Event()

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Return the JSON of a good response. Raises ``httpx.HTTPError`` if it may be retried, else ``Wrong``."""
        answer = await self.http.request(method, path, json=body)
        if answer.status_code in ACCEPTABLE:
            raise httpx.HTTPError(f"{answer.status_code} for {path}")
        if answer.status_code >= 300:
            raise Wrong(f"{method} {path}: {answer.status_code} {answer.text[:200]}")
        return answer.json() if answer.content.strip() else None

    async def again_and_again(self, name: str, work: Callable[[], Awaitable[None]], pause: float) -> None:
        """Repeat ``work`` until the load ends."""
        while not self.over.is_set():
            try:
                await work()
                self.done[name] += 1
            except httpx.HTTPError:
                self.disturbed[name] += 1
            except Wrong as error:
                self.wrong.append(f"{name}: {error}")
            await self.rest(pause * self.random.uniform(0.5, 1.5))

    async def rest(self, seconds: float) -> None:
        """Sleep, at most until the end of the load."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.over.wait()

    async def thread(self) -> str:
        """Create a thread with a TTL of some minutes; return its id."""
        made = await self.ask("POST", "/threads", {"ttl": {"ttl": 10, "strategy": "delete"}})
        return str(made["thread_id"])

    def works(self) -> dict[str, tuple[Callable[[], Awaitable[None]], int, float]]:
        """Name → (work, how many clients do it, seconds between two)."""
        return {
            "echo waited for": (self.echo, 4, 0.1),
            "tools": (self.tools, 3, 0.2),
            "streams cut and resumed": (self.stream, 3, 0.2),
            "cancels": (self.cancel, 2, 0.5),
            "threads": (self.threads, 2, 0.3),
            "store": (self.store, 2, 0.2),
            "webhooks": (self.webhook, 1, 0.5),
            "crons": (self.cron, 1, 5.0),
        }

    async def echo(self) -> None:
        """A run on a new thread, waited for."""
        said = await self.ask(
            "POST", f"/threads/{await self.thread()}/runs/wait", {"assistant_id": "echo", "input": HELLO}
        )
        if "__error__" in said or not said["messages"][-1]["content"].startswith("echo: "):
            raise Wrong(f"not an echo: {said}")

    async def tools(self) -> None:
        """Three turns of an agent that calls tools, on one thread."""
        thread = await self.thread()
        for _ in range(3):
            said = await self.ask("POST", f"/threads/{thread}/runs/wait", {"assistant_id": "helper", "input": HELLO})
            if "__error__" in said or "42" not in said["messages"][-1]["content"]:
                raise Wrong(f"no result of the calculator: {str(said)[-300:]}")

    async def stream(self) -> None:
        """Cut a stream anywhere and resume it: ids have no gap or repeat within an epoch."""
        body = {"assistant_id": "stream100", "input": HELLO, "stream_mode": ["messages-tuple", "values"]}
        thread = await self.thread()
        run = await self.ask("POST", f"/threads/{thread}/runs", body)
        path, last = f"/threads/{thread}/runs/{run['run_id']}/stream", ""
        ids: list[tuple[int, int]] = []
        for _ in range(50):
            cut = self.random.choice((1, 2000, 20_000, 10**9))
            with contextlib.suppress(httpx.HTTPError):
                last = await self._read(path, ids, cut) or last
            if last == "end":
                break
            await asyncio.sleep(0.05)
        if last != "end":
            raise httpx.HTTPError("the stream was cut again and again")
        for (epoch, seq), (later, following) in itertools.pairwise(ids):
            if following != (seq + 1 if later == epoch else 1):
                raise Wrong(f"{path}: {later}-{following} after {epoch}-{seq}")

    async def _read(self, path: str, ids: list[tuple[int, int]], cut: int) -> str:
        """Read about ``cut`` bytes more; return the kind of the last complete event."""
        headers = {"Last-Event-ID": "{}-{}".format(*ids[-1])} if ids else {}
        kind, seen = "", 0
        async with self.http.stream("GET", path, headers=headers) as answer:
            if answer.status_code != 200:
                raise httpx.HTTPError(str(answer.status_code))
            event = ""
            async for line in answer.aiter_lines():
                seen += len(line)
                if line.startswith("event: "):
                    event = line[7:]
                elif line.startswith("id: "):
                    epoch, _, seq = line[4:].partition("-")
                    ids.append((int(epoch), int(seq)))
                    kind = event
                elif not line and seen > cut:
                    break
        return kind

    async def cancel(self) -> None:
        """Cancel a run of a minute, or disconnect its only reader."""
        thread = await self.thread()
        body = {"assistant_id": "clock", "input": {"rest": 60}, "on_disconnect": "cancel", "stream_mode": "custom"}
        if self.random.random() < 0.5:
            run = await self.ask("POST", f"/threads/{thread}/runs", body)
            await self.ask("POST", f"/threads/{thread}/runs/{run['run_id']}/cancel?wait=true")
            return
        async with self.http.stream("POST", f"/threads/{thread}/runs/stream", json=body) as answer:
            async for _ in answer.aiter_lines():
                break

    async def threads(self) -> None:
        """A thread with a state, read, copied, searched for and deleted."""
        thread = await self.thread()
        await self.ask("POST", f"/threads/{thread}/runs/wait", {"assistant_id": "echo", "input": HELLO})
        await self.ask("GET", f"/threads/{thread}/state")
        await self.ask("POST", f"/threads/{thread}/history", {"limit": 5})
        copy = await self.ask("POST", f"/threads/{thread}/copy")
        await self.ask("POST", "/threads/search", {"limit": 10, "status": "idle"})
        for one in (thread, copy["thread_id"]):
            await self.ask("DELETE", f"/threads/{one}")

    async def store(self) -> None:
        """An item is put, found by its words and deleted."""
        number = self.random.randrange(200)
        place = {"namespace": ["soak", str(number % 10)], "key": str(number)}
        await self.ask("PUT", "/store/items", {**place, "value": {"text": f"the {number}th note about gardens"}})
        await self.ask("POST", "/store/items/search", {"namespace_prefix": ["soak"], "query": "gardens", "limit": 5})
        if self.random.random() < 0.3:
            await self.ask("DELETE", "/store/items", place)

    async def webhook(self) -> None:
        """A background run that calls back."""
        body = {"assistant_id": "echo", "input": HELLO, "webhook": self.hook}
        await self.ask("POST", f"/threads/{await self.thread()}/runs", body)

    async def cron(self) -> None:
        """A cron is made, runs when its minute comes, and goes some seconds after the next one."""
        body = {"schedule": "* * * * *", "assistant_id": "echo", "input": HELLO}
        made = await self.ask("POST", "/runs/crons", body)
        await self.rest(70)
        for _ in range(30):  # otherwise it would create runs forever
            try:
                await self.ask("DELETE", f"/runs/crons/{made['cron_id']}")
                return
            except httpx.HTTPError:
                await asyncio.sleep(1)
        raise Wrong(f"the cron {made['cron_id']} cannot be deleted")
