"""Deliver webhooks from the outbox: at least once, under a stable id, signed, retried with backoff for three days.

The database fills the outbox in the transaction in which a run ends. Every process claims due deliveries under a lease;
if it dies during a call, another process retries after the lease has expired.
"""

import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol
from uuid import UUID

import aiohttp
import asyncpg
import msgspec
import structlog

from app.base.clock import now
from app.base.errors import Unavailable
from app.base.tasks import Tasks
from app.base.ttl_cache import TTLCache
from app.base.wakeup import WakeUp
from app.engine.checkpoints.snapshot import read
from app.engine.structs import SHOWN, kwargs_of
from app.features.runs.queries import final_state
from app.features.webhooks import queries
from app.features.webhooks.signing import signed_headers
from app.infra.db.batches import repeat_deletion
from app.infra.db.engine import Database
from app.infra.egress.addresses import RefusedAddress
from app.infra.egress.client import EgressClient
from app.infra.telemetry.meters import Meters

log = structlog.get_logger(__name__)

BACKOFF = (5.0, 30.0, 120.0, 600.0, 1800.0, 3600.0, 7200.0, 14400.0, 28800.0, 43200.0)
"""Seconds to the next attempt; the last value repeats."""
MAX_RETRY_AFTER = 86_400.0
"""The longest Retry-After of a receiver that is honoured, in seconds."""
GIVE_UP_SECONDS = 3 * 86_400.0
POLL_SECONDS = 5.0
"""The longest poll interval: deliveries that other processes leave are seen after it."""
LEASE_SECONDS = 60.0
"""Longer than any call."""
MAX_CALLS = 32
MAX_CALLS_PER_HOST = 16
MAX_CALLS_PER_TENANT_AND_HOST = 4
MAX_SLOW_CALLS = 8
"""Concurrent calls of one process, shared fairly between tenants, also for each host."""
SLOW_SECONDS = 300.0
"""How long a host counts as slow after a timeout. Calls to slow hosts have a limit of their own."""
MAX_SLOW_HOSTS = 10_000
GONE = 410
"""The status of a receiver that wants no more attempts."""
MAX_PROBLEM_LENGTH = 300

Raw = msgspec.Raw
encode = msgspec.json.Encoder().encode


class DeliveryOutcome(NamedTuple):
    """The outcome of an attempt: the receiver's status, if any, and the problem; None if it was delivered.

    ``final``: do not retry. ``wait``: the receiver's Retry-After, in seconds. ``timed_out``: it did not answer in time.
    """

    answer: int | None
    problem: str | None
    final: bool = False
    wait: float = 0.0
    timed_out: bool = False


class OutgoingCall(NamedTuple):
    """What is sent to a receiver, besides the signature."""

    body: bytes
    headers: Mapping[str, str]


class Outbox(Protocol):
    """Deliveries that are due. ``prefix``: of the ids that receivers see."""

    prefix: str
    statements: queries.OutboxStatements

    async def prepare(self, row: asyncpg.Record) -> OutgoingCall | None:
        """Return the call of the delivery ``row``, with its stored body if it has one; None if there is no more."""
        ...


class RunWebhooks:
    """The outbox of runs that were created with a webhook. Implements ``Outbox``."""

    prefix = "run"
    statements = queries.statements_of("webhook_deliveries")

    def __init__(self, database: Database) -> None:
        self._database = database

    async def prepare(self, row: asyncpg.Record) -> OutgoingCall | None:
        """Return the run and its values."""
        body = row["body"] or await self._body(row["tenant_id"], row["run_id"])
        return None if body is None else OutgoingCall(body, {"content-type": "application/json"})

    async def _body(self, tenant_id: UUID, run_id: UUID) -> bytes | None:
        async with self._database.engine_connection() as connection:
            run = await connection.fetchrow(queries.RUN, tenant_id, run_id)
        async with self._database.reading(tenant_id) as session:
            end = await final_state(session, tenant_id, None, run_id)
        if run is None or end is None:
            return None
        return encode(payload(run, b"{}" if end.head is None else read(end, end.last_number).state.json()))


class HostLoad:
    """Counts a process's calls in flight by tenant and host, and remembers slow hosts."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._calls: Counter[tuple[UUID, str]] = Counter()
        self._slow: TTLCache[str, bool] = TTLCache(MAX_SLOW_HOSTS, SLOW_SECONDS, clock=clock)

    @property
    def total(self) -> int:
        """Return the number of calls in flight."""
        return self._calls.total()

    def begin(self, tenant_id: UUID, host: str) -> None:
        """Count a started call."""
        self._calls[tenant_id, host] += 1

    def end(self, tenant_id: UUID, host: str, *, timed_out: bool) -> None:
        """Count an ended call; a timeout marks the host as slow."""
        self._calls[tenant_id, host] -= 1
        self._calls += Counter()  # drops zero counts
        if not timed_out:
            self._slow.pop(host)
            return
        self._slow.put(host, True)

    def full(self) -> tuple[list[str], list[UUID], list[UUID], list[str]]:
        """Return what has reached its limit: hosts, tenants, and pairs of both as two parallel lists."""
        hosts: Counter[str] = Counter()
        tenants: Counter[UUID] = Counter()
        for (tenant_id, host), calls in self._calls.items():
            hosts[host] += calls
            tenants[tenant_id] += calls
        share = max(2, MAX_CALLS // (len(tenants) + 1))
        pairs = [pair for pair, calls in self._calls.items() if calls >= MAX_CALLS_PER_TENANT_AND_HOST]
        full = [host for host, calls in hosts.items() if calls >= MAX_CALLS_PER_HOST]
        slow = set(self._slow)
        if sum(hosts[host] for host in slow) >= MAX_SLOW_CALLS:
            full += slow
        busy = [tenant_id for tenant_id, calls in tenants.items() if calls >= share]
        return full, busy, [tenant_id for tenant_id, _ in pairs], [host for _, host in pairs]


class WebhookDispatcher:
    """Calls the receivers of one outbox for one process.

    ``keys`` sign, newest first; ``jitter`` returns a number from 0 to 1.
    """

    def __init__(
        self,
        database: Database,
        egress: EgressClient,
        keys: Callable[[], Sequence[bytes]],
        meters: Meters,
        outbox: Outbox | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """``outbox``: that of webhooks, unless another one is given."""
        self._database = database
        self._outbox = RunWebhooks(database) if outbox is None else outbox
        self._egress = egress
        self._keys = keys
        self._meters = meters
        self._jitter = jitter
        self._load = HostLoad()
        self._wake = WakeUp()
        self._tasks = Tasks("webhooks")

    @property
    def signs(self) -> bool:
        """Return whether calls are signed."""
        return bool(self._keys())

    def start(self) -> None:
        """Start the dispatcher and the retention sweep."""
        self._meters.webhooks.add(0, "dead")  # a series that starts at its first event shows no increase for it
        self._wake.set()
        self._tasks.repeat(self._poll, 0, name="dispatcher", essential=True)
        self._tasks.repeat(self._sweep, 3600, name="sweep")

    async def aclose(self) -> None:
        """Stop; another process repeats calls in flight."""
        await self._tasks.aclose()

    def wake(self) -> None:
        """Poll now: a delivery may be due."""
        self._wake.set()

    async def _poll(self) -> None:
        await self._wake.wait(await self._start_due())

    async def _start_due(self) -> float:
        """Start due deliveries within the limits; return the seconds to the next poll."""
        async with self._database.engine_connection() as connection:
            while self._load.total < MAX_CALLS:
                row = await connection.fetchrow(self._outbox.statements.claim_due, LEASE_SECONDS, *self._load.full())
                if row is None:
                    break
                self._load.begin(row["tenant_id"], row["host"])
                self._tasks.start(self._deliver(row), name=f"run-{row['run_id']}")
            following: float | None = await connection.fetchval(self._outbox.statements.next_due)
        if following is None or following <= 0:  # what is due exceeds a limit: the end of a call wakes the dispatcher
            return POLL_SECONDS
        return min(following, POLL_SECONDS)

    async def _deliver(self, row: asyncpg.Record) -> None:
        timed_out = False
        try:
            outcome = await self._attempt(row)
            timed_out = outcome.timed_out
            await self._settle(row, outcome)
        except Unavailable:
            return  # retried when its lease has expired
        finally:
            self._load.end(row["tenant_id"], row["host"], timed_out=timed_out)
            self._wake.set()

    async def _attempt(self, row: asyncpg.Record) -> DeliveryOutcome:
        try:
            return await self._call(row)
        except Unavailable:
            raise
        except Exception as error:  # the edge: an attempt that is not settled would be retried for ever
            log.exception("webhook_failed", run_id=str(row["run_id"]))
            return DeliveryOutcome(None, f"The call could not be made: {type(error).__name__}.")

    async def _call(self, row: asyncpg.Record) -> DeliveryOutcome:
        call = await self._outbox.prepare(row)
        body = None if call is None else row["body"] or await self._stored(row, call.body)
        if call is None or body is None:
            return DeliveryOutcome(None, "The run was deleted before its webhook was called.", final=True)
        headers = signed_headers(self._keys(), f"{self._outbox.prefix}_{row['run_id']}", int(time.time()), body)
        try:
            answer = await self._egress.post(row["url"], body, {**call.headers, **headers})
        except RefusedAddress as error:
            return DeliveryOutcome(None, str(error))
        except (OSError, aiohttp.ClientError, ValueError) as error:
            timed_out = isinstance(error, TimeoutError)
            message = "It did not answer in time." if timed_out else str(error)
            refused = next((e for e in _causes(error) if isinstance(e, RefusedAddress)), None)
            problem = str(refused or message or type(error).__name__)[:MAX_PROBLEM_LENGTH]
            return DeliveryOutcome(None, problem, timed_out=timed_out)
        if 200 <= answer.status < 300:
            return DeliveryOutcome(answer.status, None)
        wait = answer.retry_after or 0.0
        return DeliveryOutcome(answer.status, f"It answered {answer.status}.", final=answer.status == GONE, wait=wait)

    async def _settle(self, row: asyncpg.Record, outcome: DeliveryOutcome) -> None:
        answer, problem = outcome.answer, outcome.problem
        attempt = row["attempts"]
        wait = BACKOFF[min(attempt, len(BACKOFF)) - 1] * (0.8 + 0.4 * self._jitter())
        wait = max(wait, min(outcome.wait, MAX_RETRY_AFTER))
        status = "pending"
        if problem is None:
            status = "delivered"
        elif outcome.final or row["age"] + wait > GIVE_UP_SECONDS:
            status = "dead"
        self._meters.webhooks.add(1, "retried" if status == "pending" else status)
        if status == "dead":
            log.warning("webhook_dead", run_id=str(row["run_id"]), attempts=attempt, answer=answer)
        key = (row["tenant_id"], row["run_id"], attempt)
        async with self._database.engine_connection() as connection:
            await connection.execute(
                self._outbox.statements.settle, *key, status, answer, problem, wait if status == "pending" else 0.0
            )

    async def _stored(self, row: asyncpg.Record, body: bytes) -> bytes | None:
        """Store the body, so that retries send identical bytes; return what is stored."""
        store = self._outbox.statements.store_body
        async with self._database.engine_connection() as connection:
            stored: bytes | None = await connection.fetchval(store, row["tenant_id"], row["run_id"], body)
        return stored

    async def _sweep(self) -> None:
        await repeat_deletion(self._database, "webhooks", self._outbox.statements.delete_expired)


def payload(run: asyncpg.Record, values: bytes) -> dict[str, Any]:
    """Return the body of a webhook: the run as clients see it, its times, the final values, and its error, if any."""
    fields = {
        **{name: run[name] for name in (*SHOWN, "run_started_at", "run_ended_at")},
        "metadata": Raw(run["metadata"].encode()),
        "kwargs": kwargs_of(run["request"]),
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
