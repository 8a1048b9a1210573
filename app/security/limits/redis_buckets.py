"""Token buckets shared by all processes, in Redis: one script takes from all buckets of a request or from none."""

import asyncio
import contextlib
import hashlib
import time
from collections.abc import Sequence
from typing import Any

import structlog
from redis.asyncio import Redis
from redis.exceptions import InvalidResponse, NoScriptError, ResponseError

from app.base.tasks import Tasks
from app.infra.redis.connection import FAILURES, SECONDS, RedisAddress, Urls, opened
from app.infra.secrets.secret import Secret
from app.security.limits.token_buckets import BucketResult, BucketTake

log = structlog.get_logger(__name__)

REST_SECONDS = 1.0
"""Seconds without requests to Redis after a failure."""
PRESENT_SECONDS = 5.0
"""Interval of a process's heartbeat; after three missed ones it is not counted."""

MAX_PIPELINED_REQUESTS = 256
"""Requests in one pipeline."""

_PREFIX = "agent-service:limit:"
_PROCESSES = "agent-service:processes"

# microseconds by Redis' clock, so clock skew between processes does not matter
_TAKE = """
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local force = ARGV[1] == '1'
local refused, wait = -1, 0
local new, answer = {}, {}
for i, key in ipairs(KEYS) do
  local step, window, weight = tonumber(ARGV[3 * i - 1]), tonumber(ARGV[3 * i]), tonumber(ARGV[3 * i + 1])
  local full = math.max(tonumber(redis.call('GET', key) or now), now)
  local after = full + weight * step
  local over = after - now - math.max(window, step)
  if over > 0.5 and not force then
    refused = i - 1
    wait = math.max(wait, over)
    answer[i] = full - now
  else
    answer[i] = after - now
  end
  new[i] = after
end
if refused < 0 then
  for i, key in ipairs(KEYS) do
    if new[i] > now then
      redis.call('SET', key, string.format('%.0f', new[i]), 'PX', math.ceil((new[i] - now) / 1000) + 1)
    else
      redis.call('DEL', key)
    end
  end
end
local reply = {refused, string.format('%.0f', wait)}
for i = 1, #KEYS do
  reply[#reply + 1] = string.format('%.0f', answer[i])
end
return reply
"""

_SHA = hashlib.sha1(_TAKE.encode(), usedforsecurity=False).hexdigest()
"""Redis names scripts by their SHA-1."""


class SharedBuckets:
    """Token buckets on one Redis. ``processes`` is the number of processes at the last count."""

    def __init__(self, url: Secret | Urls, process: str) -> None:
        self._address = RedisAddress(url)
        self._redis = opened(self._address.now, decode_responses=True)
        self._next_client: Redis | None = None
        """Client of a rotated address, used from the next batch on."""
        self._process = process
        self._waiting: list[tuple[list[Any], asyncio.Future[list[Any] | None]]] = []
        self._sender: asyncio.Task[None] | None = None
        self._connection: Any = None
        self._paused_until = 0.0
        self._tasks = Tasks("shared_buckets")
        self.processes = 1

    def start(self) -> None:
        """Start the heartbeat that counts processes."""
        self._tasks.repeat(self._count, PRESENT_SECONDS, name="count")

    async def aclose(self) -> None:
        """Stop, deregister this process and close connections."""
        await self._tasks.aclose()
        for _, future in self._waiting:
            future.cancel()
        with contextlib.suppress(*FAILURES):
            async with asyncio.timeout(SECONDS):
                await self._redis.zrem(_PROCESSES, self._process)
        for client in (self._redis, self._next_client):
            with contextlib.suppress(*FAILURES):
                if client is not None:
                    await client.aclose()

    async def take(self, takes: Sequence[BucketTake], *, force: bool = False) -> BucketResult | None:
        """Take from all buckets or from none (``force``: always from all). None if Redis does not answer."""
        if time.monotonic() < self._paused_until:
            return None
        call: list[Any] = [_SHA, len(takes), *(_PREFIX + one.key for one in takes), "1" if force else "0"]
        for one in takes:
            call += [one.window / one.limit * 1e6, one.window * 1e6, one.weight]
        answer = await self._ask(call)
        if answer is None:
            return None
        try:
            refused, wait, *reset = (float(part) for part in answer)
        except FAILURES as error:  # not what the script returns
            await self._disconnect()
            self._pause(error)
            return None
        seconds = tuple(part / 1e6 for part in reset)
        left = tuple(
            max(0.0, (one.window - rest) / (one.window / one.limit)) for one, rest in zip(takes, seconds, strict=True)
        )
        return BucketResult(left, seconds, None if refused < 0 else int(refused), wait / 1e6)

    async def _ask(self, call: list[Any]) -> list[Any] | None:
        """Return the script's answer. Requests that come while a batch is in flight share the next one."""
        future: asyncio.Future[list[Any] | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((call, future))
        if self._sender is None:
            self._sender = self._tasks.start(self._send(), name="send")
            self._sender.add_done_callback(self._sent)
        return await future

    async def _send(self) -> None:
        try:
            while self._waiting:
                batch = self._waiting[:MAX_PIPELINED_REQUESTS]
                answers = await self._send_batch([call for call, _ in batch])
                del self._waiting[: len(batch)]
                for (_, future), answer in zip(batch, answers, strict=True):
                    _resolve(future, answer)
        finally:
            self._sender = None

    def _sent(self, sender: asyncio.Task[None]) -> None:
        """Callers that still wait, whatever ended the task that sends, get no answer from Redis."""
        if self._sender not in (None, sender):
            return  # the next one sends
        self._sender = None
        left, self._waiting = self._waiting, []
        for _, future in left:
            _resolve(future, None)

    async def _send_batch(self, calls: Sequence[list[Any]]) -> Sequence[list[Any] | None]:
        if self._next_client is not None:
            await self._move(self._next_client)
        try:
            async with asyncio.timeout(SECONDS):
                answers = await self._execute(calls)
                if any(isinstance(answer, NoScriptError) for answer in answers):  # Redis was restarted
                    await self._redis.script_load(_TAKE)
                    answers = await self._execute(calls)
        except FAILURES as error:
            self._pause(error)
            return [None] * len(calls)
        for answer, call in zip(answers, calls, strict=True):
            failure = answer if isinstance(answer, Exception) else None
            if failure is None and not (isinstance(answer, list) and len(answer) == call[1] + 2):
                failure = InvalidResponse()
            if failure is not None:
                await self._disconnect()  # a replica, or no Redis at all: the address may lead elsewhere by now
                self._pause(failure)
                return [None] * len(calls)
        return answers

    async def _execute(self, calls: Sequence[list[Any]]) -> list[Any]:
        """Pipeline ``calls`` over a dedicated connection: redis-py's pool and pipeline cost 0.1 ms."""
        if self._connection is None:
            self._connection = await self._redis.connection_pool.get_connection()  # type: ignore[no-untyped-call]
        connection = self._connection
        answers: list[Any] = []
        try:
            packed = connection.pack_commands([("EVALSHA", *call) for call in calls])
            await connection.send_packed_command(packed, check_health=False)
            for _ in calls:
                try:
                    answers.append(await connection.read_response())
                except ResponseError as error:
                    answers.append(error)
        except BaseException:
            await self._disconnect()
            raise
        return answers

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(*FAILURES):
                await connection.disconnect()
            await self._redis.connection_pool.release(connection)

    async def _move(self, client: Redis) -> None:
        """Switch to ``client`` between two batches, when the previous connection is idle."""
        before, self._redis, self._next_client, self._connection = self._redis, client, None, None
        with contextlib.suppress(*FAILURES):
            await before.aclose()

    def _pause(self, error: Exception) -> None:
        self._paused_until = time.monotonic() + REST_SECONDS
        log.warning("shared_limits_lost", error=type(error).__name__, share=round(1 / self.processes, 3))

    async def _count(self) -> None:
        if self._next_client is None and await self._address.moved():
            self._next_client = opened(self._address.now, decode_responses=True)
        with contextlib.suppress(*FAILURES):
            async with asyncio.timeout(SECONDS), self._redis.pipeline(transaction=False) as pipeline:
                now = time.time()
                pipeline.zadd(_PROCESSES, {self._process: now})
                pipeline.zremrangebyscore(_PROCESSES, "-inf", now - 3 * PRESENT_SECONDS)
                pipeline.zcard(_PROCESSES)
                self.processes = max(1, int((await pipeline.execute())[-1]))


def _resolve(future: "asyncio.Future[list[Any] | None]", answer: list[Any] | None) -> None:
    if not future.done():
        future.set_result(answer)
