"""A client that gets its answers whatever happens to the servers, and keeps everything it has heard."""

import asyncio
import itertools
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid5

import httpx
import msgspec

from tests.faults.programs import Program

SPACE = UUID("5a1dbb1e-27cf-4f59-9b0b-4c1a7a2a1b0e")
PATIENCE = 90.0
"""Seconds after which a run that has not ended is stuck."""

END_SECONDS = 45.0
"""Seconds after the end of a run in which every reader of it has its end, whatever its server goes through: that it is
killed and starts again on a busy machine among that."""


class Told(msgspec.Struct):
    """What a client has heard of one run: every frame as (id, event, bytes), and how it says that it ended."""

    run_id: str
    program: str
    frames: list[tuple[str, str, bytes]] = []
    status: str = ""
    late: float = 0.0
    """Seconds from the end of the run, as its first reader was given it, to the end of this stream."""
    connections: int = 0


class Stuck(AssertionError):
    """Nothing moved for too long."""


class Driver:
    """One client. ``bases`` gives the servers, asked in turn; ``happened`` asks the ledger about a key."""

    def __init__(self, bases: Callable[[], list[str]], happened: Callable[[str], int]) -> None:
        self._bases = bases
        self._happened = happened
        self._turn = itertools.count()
        self._http = httpx.AsyncClient(timeout=httpx.Timeout(15, connect=2))
        self.told: list[Told] = []
        self.watched: list[Told] = []
        """What readers that stay with one server have got, of every run one at each server."""
        self.thread_ids: dict[int, str] = {}
        self.reviews = 0

    async def aclose(self) -> None:
        await self._http.aclose()

    async def converse(self, number: int, turns: list[Program]) -> None:
        """Run ``turns`` one after the other on a thread of their own."""
        thread_id = str(uuid5(SPACE, turns[0].id))
        self.thread_ids[number] = thread_id
        await self._ask("POST", "/threads", {"thread_id": thread_id, "if_exists": "do_nothing"})
        for program in turns:
            body: dict[str, Any] = {"input": program.input}
            for answer in itertools.count():
                told = await self.follow(thread_id, program, body, f"{program.id}.{answer}")
                if told.status != "interrupted":
                    break
                body = {"command": {"resume": await self._review(thread_id)}}

    async def follow(self, thread_id: str, program: Program, body: dict[str, Any], key: str) -> Told:
        """Make a run and read its stream to the end, over as many connections and servers as it takes."""
        body = {"assistant_id": program.agent, "stream_mode": ["messages-tuple", "values"], **body}
        headers = {"Idempotency-Key": key}
        made = await self._ask("POST", f"/threads/{thread_id}/runs", body, headers)
        told = Told(run_id=made["run_id"], program=program.id)
        self.told.append(told)
        readers = [asyncio.ensure_future(self._watch(place, thread_id, told)) for place in range(len(self._bases()))]
        try:
            await self._read_to_the_end(thread_id, told)
            ended = time.monotonic()
            for reader in readers:
                watched, at = await reader
                watched.late = max(0.0, at - ended)
        finally:
            for reader in readers:
                reader.cancel()
        return told

    async def _read_to_the_end(self, thread_id: str, told: Told, place: int | None = None) -> None:
        deadline = time.monotonic() + PATIENCE
        while not told.status:
            if time.monotonic() > deadline:
                raise Stuck(f"run {told.run_id} of {told.program} does not end")
            try:
                await self._read(thread_id, told, place)
            except (httpx.HTTPError, OSError):
                await asyncio.sleep(0.05)

    async def _watch(self, place: int, thread_id: str, of: Told) -> tuple[Told, float]:
        """Read the stream of a run at one server, on one connection while that lasts; what came, and when it ended."""
        watched = Told(run_id=of.run_id, program=of.program)
        self.watched.append(watched)
        await self._read_to_the_end(thread_id, watched, place)
        return watched, time.monotonic()

    async def _read(self, thread_id: str, told: Told, place: int | None = None) -> None:
        last = told.frames[-1][0] if told.frames else "-1"
        base = self._base() if place is None else self._bases()[place]
        url = f"{base}/threads/{thread_id}/runs/{told.run_id}/stream"
        async with self._http.stream("GET", url, headers={"Last-Event-ID": last}) as answer:
            if answer.status_code != 200:
                await asyncio.sleep(0.05)
                return
            told.connections += 1
            rest = b""
            async for piece in answer.aiter_bytes():
                *frames, rest = (rest + piece).split(b"\r\n\r\n")
                for frame in frames:
                    self._take(told, frame)

    @staticmethod
    def _take(told: Told, frame: bytes) -> None:
        fields = dict(line.partition(b": ")[::2] for line in frame.split(b"\r\n") if not line.startswith(b":"))
        if b"id" in fields:
            told.frames.append((fields[b"id"].decode(), fields[b"event"].decode(), frame))
        if fields.get(b"event") == b"end":
            told.status = msgspec.json.decode(fields[b"data"])["status"]

    async def _review(self, thread_id: str) -> dict[str, Any]:
        """Decide as a careful person would, who looks whether the call has happened."""
        thread = await self._ask("GET", f"/threads/{thread_id}")
        answers: dict[str, Any] = {}
        for asked in (one for many in thread["interrupts"].values() for one in many):
            value = asked["value"]
            assert value["type"] == "tool_review", value
            done = await asyncio.to_thread(self._happened, value["idempotency_key"])
            answers[asked["id"]] = {"action": "done", "result": "paid"} if done else {"action": "retry"}
            self.reviews += 1
        return answers

    async def state(self, thread_id: str) -> dict[str, Any]:
        """The thread's values."""
        found: dict[str, Any] = (await self._ask("GET", f"/threads/{thread_id}/state"))["values"]
        return found

    async def replay(self, thread_id: str, told: Told) -> list[tuple[str, str, bytes]]:
        """The whole stream once more, from the log."""
        again = Told(run_id=told.run_id, program=told.program)
        deadline = time.monotonic() + PATIENCE
        while not again.status and time.monotonic() < deadline:
            again.frames = []
            try:
                await self._read(thread_id, again)
            except (httpx.HTTPError, OSError):
                await asyncio.sleep(0.05)
        return again.frames

    def _base(self) -> str:
        bases = self._bases()
        return bases[next(self._turn) % len(bases)]

    async def _ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
        """An answer of 2xx, from whichever server gives one. Raises ``Stuck`` with the last word of each server."""
        deadline = time.monotonic() + PATIENCE
        last: dict[str, str] = {}
        while True:
            base, began = self._base(), time.monotonic()
            try:
                answer = await self._http.request(method, base + path, json=body, headers=headers)
                if answer.is_success:
                    return answer.json()
                if answer.status_code < 500 and answer.status_code != 409:
                    raise AssertionError(f"{method} {path}: {answer.status_code} {answer.text}")
                said = f"{answer.status_code} {answer.text[:300]}"
            except (httpx.HTTPError, OSError) as error:
                said = repr(error)
            last[base] = f"{said} (after {time.monotonic() - began:.1f} s)"
            if time.monotonic() > deadline:
                raise Stuck(f"no server answers {method} {path} with {headers}; their last answers: {last}")
            await asyncio.sleep(0.05)
