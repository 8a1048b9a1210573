"""Delivers what the outbox holds: at least once, under a stable id, signed, for three days, then never by itself.

The database fills the outbox in the transaction in which a run ends. Any process takes what is due; one that dies in
the middle of a call leaves it to the others when the time for that call is over.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from uuid import UUID

import aiohttp
import asyncpg
import msgspec
import structlog

from app.base.clock import now
from app.base.errors import Unavailable
from app.base.tasks import Tasks, wait_for
from app.engine.checkpoints.snapshot import read
from app.engine.structs import kwargs_of
from app.features.runs.queries import ending
from app.features.webhooks.queries import KEEP_BODY, NEXT, OLD, RUN, SETTLE, TAKE
from app.features.webhooks.signing import signed
from app.infra.db.batches import repeat_deletion
from app.infra.db.engine import Database
from app.infra.egress.addresses import RefusedAddress
from app.infra.egress.client import EgressClient
from app.infra.telemetry.meters import Meters

log = structlog.get_logger(__name__)

BACK_OFF = (5.0, 30.0, 120.0, 600.0, 1800.0, 3600.0, 7200.0, 14400.0, 28800.0, 43200.0)
"""Seconds to the next attempt; after the last ones always the last."""
MAX_RETRY_AFTER = 86_400.0
"""Seconds that a receiver's Retry-After is honoured for."""
GIVE_UP_SECONDS = 3 * 86_400.0
LOOK_SECONDS = 5.0
"""The longest time between two looks: what another process has left is seen after it."""
LEASE_SECONDS = 60.0
"""Longer than any call."""
AT_ONCE = 32
AT_ONCE_A_HOST = 16
AT_ONCE_A_TENANT_AND_HOST = 4
AT_ONCE_SLOW = 8
"""Calls of one process. Tenants share them fairly, and no tenant can fill a receiver's part that others call too."""
SLOW_SECONDS = 300.0
"""How long a host counts as slow after it did not answer in time: calls to slow hosts have a part of their own."""
MAX_SLOW_HOSTS = 10_000
GONE = 410
"""The answer of a receiver that wants no more."""
MAX_PROBLEM_LENGTH = 300

Raw = msgspec.Raw
encode = msgspec.json.Encoder().encode


class DeliveryOutcome(NamedTuple):
    """What came of an attempt: the receiver's status code if it answered, and what went wrong if something did.

    ``over``: whatever the time, it is not tried again. ``wait``: the seconds that the receiver asks to wait.
    ``late``: it did not answer in time.
    """

    answer: int | None
    problem: str | None
    over: bool = False
    wait: float = 0.0
    late: bool = False


class HostLoad:
    """The calls under way in one process, by tenant and host, and the hosts that were slow lately."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._calls: Counter[tuple[UUID, str]] = Counter()
        self._slow: dict[str, float] = {}

    @property
    def total(self) -> int:
        """How many there are."""
        return self._calls.total()

    def begin(self, tenant_id: UUID, host: str) -> None:
        """A call begins."""
        self._calls[tenant_id, host] += 1

    def end(self, tenant_id: UUID, host: str, *, late: bool) -> None:
        """A call has ended; ``late``: without an answer in time."""
        self._calls[tenant_id, host] -= 1
        self._calls += Counter()  # forgets those without a call
        if not late:
            self._slow.pop(host, None)
            return
        if len(self._slow) >= MAX_SLOW_HOSTS:
            self._slow.clear()
        self._slow[host] = self._clock() + SLOW_SECONDS

    def full(self) -> tuple[list[str], list[UUID], list[UUID], list[str]]:
        """What has its share: hosts; tenants; and pairs of both, as two lists."""
        hosts: Counter[str] = Counter()
        tenants: Counter[UUID] = Counter()
        for (tenant_id, host), calls in self._calls.items():
            hosts[host] += calls
            tenants[tenant_id] += calls
        share = max(2, AT_ONCE // (len(tenants) + 1))
        pairs = [pair for pair, calls in self._calls.items() if calls >= AT_ONCE_A_TENANT_AND_HOST]
        full = [host for host, calls in hosts.items() if calls >= AT_ONCE_A_HOST]
        slow = {host for host, until in self._slow.items() if until > self._clock()}
        if sum(hosts[host] for host in slow) >= AT_ONCE_SLOW:
            full += slow
        busy = [tenant_id for tenant_id, calls in tenants.items() if calls >= share]
        return full, busy, [tenant_id for tenant_id, _ in pairs], [host for _, host in pairs]


class WebhookDispatcher:
    """Calls receivers for one process. ``keys`` sign, the newest first; ``spread`` gives the jitter, from 0 to 1."""

    def __init__(
        self,
        database: Database,
        egress: EgressClient,
        keys: Callable[[], Sequence[bytes]],
        meters: Meters,
        spread: Callable[[], float] = random.random,
    ) -> None:
        self._database = database
        self._egress = egress
        self._keys = keys
        self._meters = meters
        self._spread = spread
        self._busy = HostLoad()
        self._wake = asyncio.Event()
        self._tasks = Tasks("webhooks")

    @property
    def signs(self) -> bool:
        """Whether calls are signed."""
        return bool(self._keys())

    def start(self) -> None:
        """Begin to deliver."""
        self._meters.webhooks.add(0, "dead")  # a series that begins with its first event never grows by it
        self._wake.set()
        self._tasks.repeat(self._turn, 0, name="dispatcher", essential=True)
        self._tasks.repeat(self._sweep, 3600, name="sweep")

    async def aclose(self) -> None:
        """Stop; calls under way are repeated by another process."""
        await self._tasks.aclose()

    def wake(self) -> None:
        """There may be something to deliver."""
        self._wake.set()

    async def _turn(self) -> None:
        await wait_for(self._wake, await self._take_all())
        self._wake.clear()

    async def _take_all(self) -> float:
        """Begin everything that is due and has a place; seconds to the next look."""
        async with self._database.engine_connection() as connection:
            while self._busy.total < AT_ONCE:
                row = await connection.fetchrow(TAKE, LEASE_SECONDS, *self._busy.full())
                if row is None:
                    break
                self._busy.begin(row["tenant_id"], row["host"])
                self._tasks.start(self._deliver(row), name=f"run-{row['run_id']}")
            following: float | None = await connection.fetchval(NEXT)
        if following is None or following <= 0:  # what is due and was not taken waits for a place: its end wakes us
            return LOOK_SECONDS
        return min(following, LOOK_SECONDS)

    async def _deliver(self, row: asyncpg.Record) -> None:
        late = False
        try:
            outcome = await self._attempt(row)
            late = outcome.late
            await self._settle(row, outcome)
        except Unavailable:
            return  # tried again when its lease is over
        finally:
            self._busy.end(row["tenant_id"], row["host"], late=late)
            self._wake.set()

    async def _attempt(self, row: asyncpg.Record) -> DeliveryOutcome:
        try:
            return await self._call(row)
        except Unavailable:
            raise
        except Exception as error:  # else it would be tried each minute for ever, since only what is settled ends
            log.exception("webhook_failed", run_id=str(row["run_id"]))
            return DeliveryOutcome(None, f"The call could not be made: {type(error).__name__}.")

    async def _call(self, row: asyncpg.Record) -> DeliveryOutcome:
        body = row["body"] or await self._body(row)
        if body is None:
            return DeliveryOutcome(None, "The run was deleted before its webhook was called.", over=True)
        headers = signed(self._keys(), f"run_{row['run_id']}", int(time.time()), body)
        try:
            answer = await self._egress.post(row["url"], body, {"content-type": "application/json", **headers})
        except RefusedAddress as error:
            return DeliveryOutcome(None, str(error))
        except (OSError, aiohttp.ClientError, ValueError) as error:
            words = "It did not answer in time." if isinstance(error, TimeoutError) else str(error)
            refused = next((e for e in _causes(error) if isinstance(e, RefusedAddress)), None)
            problem = str(refused or words or type(error).__name__)[:MAX_PROBLEM_LENGTH]
            return DeliveryOutcome(None, problem, late=isinstance(error, TimeoutError))
        if 200 <= answer.status < 300:
            return DeliveryOutcome(answer.status, None)
        wait = answer.retry_after or 0.0
        return DeliveryOutcome(answer.status, f"It answered {answer.status}.", over=answer.status == GONE, wait=wait)

    async def _settle(self, row: asyncpg.Record, outcome: DeliveryOutcome) -> None:
        answer, problem, over = outcome.answer, outcome.problem, outcome.over
        attempt = row["attempts"]
        wait = BACK_OFF[min(attempt, len(BACK_OFF)) - 1] * (0.8 + 0.4 * self._spread())
        wait = max(wait, min(outcome.wait, MAX_RETRY_AFTER))
        status = "pending"
        if problem is None:
            status = "delivered"
        elif over or row["age"] + wait > GIVE_UP_SECONDS:
            status = "dead"
        self._meters.webhooks.add(1, "retried" if status == "pending" else status)
        if status == "dead":
            log.warning("webhook_dead", run_id=str(row["run_id"]), attempts=attempt, answer=answer)
        key = (row["tenant_id"], row["run_id"], attempt)
        async with self._database.engine_connection() as connection:
            await connection.execute(SETTLE, *key, status, answer, problem, wait if status == "pending" else 0.0)

    async def _body(self, row: asyncpg.Record) -> bytes | None:
        """What the receiver is told; kept, so that every attempt says the same. None for a run that is gone."""
        tenant_id, run_id = row["tenant_id"], row["run_id"]
        async with self._database.engine_connection() as connection:
            run = await connection.fetchrow(RUN, tenant_id, run_id)
        async with self._database.reading(tenant_id) as session:
            end = await ending(session, tenant_id, None, run_id)
        if run is None or end is None:
            return None
        body = encode(payload(run, b"{}" if end.head is None else read(end, end.last_number).state.json()))
        async with self._database.engine_connection() as connection:
            kept: bytes | None = await connection.fetchval(KEEP_BODY, tenant_id, run_id, body)
        return kept

    async def _sweep(self) -> None:
        await repeat_deletion(self._database, "webhooks", OLD)


def payload(run: asyncpg.Record, values: bytes) -> dict[str, Any]:
    """The run as a client sees it, with the times, the thread's values after it, and its error when it failed."""
    fields: dict[str, Any] = {
        "run_id": run["run_id"],
        "thread_id": run["thread_id"],
        "assistant_id": run["assistant_id"],
        "status": run["status"],
        "metadata": Raw(run["metadata"].encode()),
        "kwargs": kwargs_of(run["request"]),
        "multitask_strategy": run["multitask_strategy"],
        "created_at": run["created_at"],
        "updated_at": run["updated_at"],
        "run_started_at": run["started_at"],
        "run_ended_at": run["ended_at"],
        "webhook_sent_at": now(),
        "values": Raw(values),
    }
    return fields if run["error"] is None else {**fields, "error": Raw(run["error"].encode())}


def _causes(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = getattr(error, "os_error", None) or error.__cause__ or error.__context__
    return found
