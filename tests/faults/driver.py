"""A client that retries until it gets a response, and records everything it receives."""

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
TIMEOUT = 90.0
"""Seconds after which a run that has not ended is stuck."""

END_SECONDS = 45.0
"""Seconds after the end of a run within which every reader must receive it, even if its server is killed and restarts
on a busy machine."""


class RunRecord(msgspec.Struct):
    """What a client received of one run: every frame as (id, event, bytes), and the final status."""

    run_id: str
    program: str
    frames: list[tuple[str, str, bytes]] = []
    status: str = ""
    late: float = 0.0
    """Seconds from the end of the run at its first reader to the end of this stream."""
    connections: int = 0


class Stuck(AssertionError):
    """No progress within the timeout."""


class Driver:
    """One client. ``bases`` returns the servers, used in turn; ``count_effects`` queries the ledger for a key."""

    def __init__(self, bases: Callable[[], list[str]], count_effects: Callable[[str], int]) -> None:
        self._bases = bases
        self._count_effects = count_effects
        self._turn = itertools.count()
        self._http = httpx.AsyncClient(timeout=httpx.Timeout(15, connect=2))
        self.records: list[RunRecord] = []
        self.reader_records: list[RunRecord] = []
        """Records of readers that stay with one server: one per run and server."""
        self.thread_ids: dict[int, str] = {}
        self.reviews = 0

    async def aclose(self) -> None:
        await self._http.aclose()

    async def converse(self, number: int, turns: list[Program]) -> None:
        """Run ``turns`` one after the other on a new thread."""
        thread_id = str(uuid5(SPACE, turns[0].id))
        self.thread_ids[number] = thread_id
        await self._request("POST", "/threads", {"thread_id": thread_id, "if_exists": "do_nothing"})
        for program in turns:
            body: dict[str, Any] = {"input": program.input}
            for answer in itertools.count():
                record = await self.follow(thread_id, program, body, f"{program.id}.{answer}")
                if record.status != "interrupted":
                    break
                body = {"command": {"resume": await self._review(thread_id)}}

    async def follow(self, thread_id: str, program: Program, body: dict[str, Any], key: str) -> RunRecord:
        """Create a run and read its stream to the end, reconnecting to other servers as needed."""
        body = {"assistant_id": program.agent, "stream_mode": ["messages-tuple", "values"], **body}
        headers = {"Idempotency-Key": key}
        made = await self._request("POST", f"/threads/{thread_id}/runs", body, headers)
        record = RunRecord(run_id=made["run_id"], program=program.id)
        self.records.append(record)
        readers = [
            asyncio.ensure_future(self._follow_at(index, thread_id, record)) for index in range(len(self._bases()))
        ]
        try:
            await self._read_to_end(thread_id, record)
            ended = time.monotonic()
            for reader in readers:
                reader_record, at = await reader
                reader_record.late = max(0.0, at - ended)
        finally:
            for reader in readers:
                reader.cancel()
        return record

    async def _read_to_end(self, thread_id: str, record: RunRecord, index: int | None = None) -> None:
        deadline = time.monotonic() + TIMEOUT
        while not record.status:
            if time.monotonic() > deadline:
                raise Stuck(f"run {record.run_id} of {record.program} does not end")
            try:
                await self._read(thread_id, record, index)
            except (httpx.HTTPError, OSError):
                await asyncio.sleep(0.05)

    async def _follow_at(self, index: int, thread_id: str, of: RunRecord) -> tuple[RunRecord, float]:
        """Read the stream of a run at one server; return its record and the time of its end."""
        reader_record = RunRecord(run_id=of.run_id, program=of.program)
        self.reader_records.append(reader_record)
        await self._read_to_end(thread_id, reader_record, index)
        return reader_record, time.monotonic()

    async def _read(self, thread_id: str, record: RunRecord, index: int | None = None) -> None:
        last = record.frames[-1][0] if record.frames else "-1"
        base = self._base() if index is None else self._bases()[index]
        url = f"{base}/threads/{thread_id}/runs/{record.run_id}/stream"
        async with self._http.stream("GET", url, headers={"Last-Event-ID": last}) as answer:
            if answer.status_code != 200:
                await asyncio.sleep(0.05)
                return
            record.connections += 1
            rest = b""
            async for piece in answer.aiter_bytes():
                *frames, rest = (rest + piece).split(b"\r\n\r\n")
                for frame in frames:
                    self._add_frame(record, frame)

    @staticmethod
    def _add_frame(record: RunRecord, frame: bytes) -> None:
        fields = dict(line.partition(b": ")[::2] for line in frame.split(b"\r\n") if not line.startswith(b":"))
        if b"id" in fields:
            record.frames.append((fields[b"id"].decode(), fields[b"event"].decode(), frame))
        if fields.get(b"event") == b"end":
            record.status = msgspec.json.decode(fields[b"data"])["status"]

    async def _review(self, thread_id: str) -> dict[str, Any]:
        """Answer tool reviews: retry a call only if the ledger has no effect of it."""
        thread = await self._request("GET", f"/threads/{thread_id}")
        answers: dict[str, Any] = {}
        for asked in (one for many in thread["interrupts"].values() for one in many):
            value = asked["value"]
            assert value["type"] == "tool_review", value
            done = await asyncio.to_thread(self._count_effects, value["idempotency_key"])
            answers[asked["id"]] = {"action": "done", "result": "paid"} if done else {"action": "retry"}
            self.reviews += 1
        return answers

    async def state(self, thread_id: str) -> dict[str, Any]:
        """Return the thread's values."""
        found: dict[str, Any] = (await self._request("GET", f"/threads/{thread_id}/state"))["values"]
        return found

    async def replay(self, thread_id: str, record: RunRecord) -> list[tuple[str, str, bytes]]:
        """Read the whole stream again from the log."""
        again = RunRecord(run_id=record.run_id, program=record.program)
        deadline = time.monotonic() + TIMEOUT
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

    async def _request(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
        """Send a request to the servers in turn until one answers 2xx. Raises ``Stuck`` with their last answers."""
        deadline = time.monotonic() + TIMEOUT
        last: dict[str, str] = {}
        while True:
            base, started_at = self._base(), time.monotonic()
            try:
                answer = await self._http.request(method, base + path, json=body, headers=headers)
                if answer.is_success:
                    return answer.json()
                if answer.status_code < 500 and answer.status_code != 409:
                    raise AssertionError(f"{method} {path}: {answer.status_code} {answer.text}")
                answer_text = f"{answer.status_code} {answer.text[:300]}"
            except (httpx.HTTPError, OSError) as error:
                answer_text = repr(error)
            last[base] = f"{answer_text} (after {time.monotonic() - started_at:.1f} s)"
            if time.monotonic() > deadline:
                raise Stuck(f"no server answers {method} {path} with {headers}; their last answers: {last}")
            await asyncio.sleep(0.05)
