"""Budgets of tenants: tokens per minute, dollars per day, runs that have not ended.

A run reserves before it starts, reserves more when that is used up, and releases the rest when it ends. Dollars are
stored in the database, one row per tenant and day, so a crash never frees budget: what a process had not written when
it was killed (at most the last second) is not counted as spent, but its reservation lasts for the day. What it wrote is
counted at least once: a write whose answer is lost with its connection is repeated, and may count twice.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TypeVar
from uuid import UUID
from weakref import WeakValueDictionary

import asyncpg
import msgspec
import structlog

from app.base.clock import now
from app.base.errors import BudgetSpent, Limited
from app.base.tasks import Tasks, run_to_completion
from app.base.ttl_cache import TTLCache
from app.domain.lifecycle import FAILED, TERMINAL
from app.domain.messages import Usage
from app.infra.db.engine import Database
from app.infra.telemetry.meters import Meters
from app.security.limits import queries
from app.security.limits.limiter import COST, CRONS, LLM, QUEUED, RUNS, TOKENS, Limiter
from app.security.limits.prices import MILLION, Prices
from app.security.limits.structs import BudgetReservation, TenantLimits, UsageKey, UsageSums
from app.security.limits.token_buckets import BucketTake

log = structlog.get_logger(__name__)

FLUSH_SECONDS = 1.0
LIMITS_TTL = 5.0
MAX_CACHED_LIMITS = 10_000
MAX_USAGE_ROWS = 10_000
"""Rows of usage that wait to be written; what comes beyond is counted without its model and requester."""
OTHER_MODELS = "*"
MAX_MODEL_LENGTH = 200
MAX_TOKENS = 10**12
"""Of one report: graphs report what their models claim, and no sum may exceed its column."""
REFUSED = (asyncpg.DataError, asyncpg.ProgramLimitExceededError)
"""Errors of values that the database will never take."""

TenantDay = tuple[UUID, date]
K = TypeVar("K", UsageKey, TenantDay)
V = TypeVar("V")


class SpendingChange(msgspec.Struct):
    """Changes of a tenant's day that are not written yet, and tokens to charge."""

    reserved: float = 0.0
    spent: float = 0.0
    tokens: int = 0
    owed: float = 0.0
    """Tokens used beyond those reserved; negative: reserved and not used."""


class Budgets:
    """Reserves budget for runs and records their spending, on ``meters`` too. ``model_of``: the model of an agent."""

    def __init__(
        self,
        database: Database,
        limiter: Limiter,
        prices: Prices,
        model_of: Callable[[str], str],
        meters: Meters,
        clock: Callable[[], datetime] = now,
    ) -> None:
        self.prices = prices
        self._meters = meters
        self._shares: dict[UUID, float] = {}
        self._shares_day = date.min
        self._database = database
        self._limiter = limiter
        self._model_of = model_of
        self._clock = clock
        self._changes: dict[TenantDay, SpendingChange] = {}
        self._usage: dict[UsageKey, UsageSums] = {}
        self._flushing = asyncio.Lock()
        self._locks: WeakValueDictionary[UUID, asyncio.Lock] = WeakValueDictionary()
        self._cached_limits: TTLCache[UUID, TenantLimits] = TTLCache(MAX_CACHED_LIMITS, LIMITS_TTL)
        self._tasks = Tasks("budgets")

    def start(self) -> None:
        """Start the periodic flush."""
        self._tasks.repeat(self.flush, FLUSH_SECONDS, name="flush", essential=True)

    async def aclose(self) -> None:
        """Stop, and write the remaining changes."""
        await self._tasks.aclose()
        await self.flush()

    @property
    def highest_usage(self) -> float:
        """The highest fraction of today's budget, spent or reserved, of the tenants that reserved in this process."""
        return max(self._shares.values(), default=0.0) if self._shares_day == self.today() else 0.0

    async def limits_of(self, tenant_id: UUID) -> TenantLimits:
        """Read a tenant's own limits, where no key has brought them."""
        async with self._database.reading(tenant_id) as session:
            limits = await session.scalar(queries.TENANT_LIMITS, {"tenant": tenant_id})
        return msgspec.json.decode(limits, type=TenantLimits) if limits else TenantLimits()

    async def reserve(self, tenant_id: UUID, own: TenantLimits, agent: str) -> BudgetReservation | None:
        """Reserve for a new run of ``agent``; None if nothing is limited. Raises ``Limited``."""
        max_tokens, max_cost = self._limits(own)
        if not max_tokens and not max_cost:
            return None
        tokens = self._limiter.settings.reserve_tokens
        reserved = BudgetReservation(self.today(), tokens if max_tokens else 0, 0.0)
        if max_cost:
            price = self.prices.of(self._model_of(agent))
            reserved.cost = tokens * max(price) / MILLION
            if not await self._reserve_cost(tenant_id, reserved, max_cost):
                self._limiter.rejected(COST)
                raise Limited(self._spent_today(max_cost), self._until_tomorrow())
        if max_tokens:
            result = await self._limiter.take([_tokens(tenant_id, max_tokens, tokens)])
            if result.refused is not None:
                self.release(tenant_id, BudgetReservation(reserved.day, 0, reserved.cost))
                self._limiter.rejected(TOKENS)
                raise Limited(f"This tenant has used its {max_tokens} tokens per minute: wait a moment.", result.wait)
        return reserved

    async def extend(self, tenant_id: UUID, day: date, cost: float) -> float:
        """Reserve ``cost`` more dollars of ``day`` for a run that has used its own. Raises ``BudgetSpent``."""
        _, max_cost = self._limits(await self.limits_of(tenant_id))
        if max_cost and not await self._reserve_cost(tenant_id, BudgetReservation(day, 0, cost), max_cost):
            self._limiter.rejected(COST)
            raise BudgetSpent(f"The tenant has spent its {max_cost:g} dollars per day, so the run was stopped.")
        return cost if max_cost else 0.0

    def release(self, tenant_id: UUID, reserved: BudgetReservation) -> None:
        """Give back what a run will not use."""
        change = self._change(tenant_id, reserved.day)
        change.reserved -= reserved.cost
        change.owed -= reserved.tokens

    def spend(self, tenant_id: UUID, used: BudgetReservation, *, reserved: BudgetReservation, model: str = "") -> None:
        """Record that ``used`` was spent on ``model``, of which ``reserved`` had been reserved."""
        if used.cost:
            vendor, _, name = model.partition(":")
            self._meters.model_cost.add(used.cost, vendor, name)
        change = self._change(tenant_id, used.day)
        change.spent += used.cost
        change.tokens += used.tokens
        change.reserved -= reserved.cost
        change.owed += used.tokens - reserved.tokens

    async def count_cron(self, tenant_id: UUID) -> float:
        """Count a run that a cron of the tenant starts: 0, or the seconds to wait if its rate is used up."""
        result = await self._limiter.take_runs(tenant_id, CRONS, await self.cached_limits_of(tenant_id), 1)
        if result is None or result.refused is None:
            return 0.0
        self._limiter.rejected(LLM)
        return result.wait

    async def admit(self, tenant_id: UUID) -> None:
        """Check the budget before a call outside of a run, which ``charge`` will record. Raises ``Limited``."""
        max_tokens, max_cost = self._limits(await self.cached_limits_of(tenant_id))
        if max_tokens:
            result = await self._limiter.take([_tokens(tenant_id, max_tokens, 0)])
            if result.refused is not None:
                self._limiter.rejected(TOKENS)
                raise Limited(f"This tenant has used its {max_tokens} tokens per minute: wait a moment.", result.wait)
        if max_cost:
            async with self._database.engine_connection() as connection:
                spent = await connection.fetchval(queries.SPENT, tenant_id, self.today())
            unwritten = self._changes.get((tenant_id, self.today()), SpendingChange()).spent
            if float(spent or 0) + unwritten >= max_cost:
                self._limiter.rejected(COST)
                raise Limited(self._spent_today(max_cost), self._until_tomorrow())

    async def cached_limits_of(self, tenant_id: UUID) -> TenantLimits:
        """Return a tenant's own limits, at most ``LIMITS_TTL`` seconds old."""
        known = self._cached_limits.get(tenant_id)
        if known is None:
            until = time.monotonic() + LIMITS_TTL
            known = await self.limits_of(tenant_id)
            self._cached_limits.put(tenant_id, known, until=until)
        return known

    def count(self, key: UsageKey, sums: UsageSums) -> None:
        """Count ``sums`` as the usage of ``key``."""
        if key not in self._usage and len(self._usage) >= MAX_USAGE_ROWS:
            key = key._replace(requested_by="", model=key.model and OTHER_MODELS)
        self._usage.setdefault(key, UsageSums()).add(sums)

    def charge(self, tenant_id: UUID, model: str, tokens: int) -> None:
        """Record tokens used outside of a run, as by embeddings (``app.providers.llm.registry``)."""
        day = self.today()
        used = BudgetReservation(day, tokens, self.prices.cost(model, tokens, 0))
        self.count(UsageKey(tenant_id, day, "", "", model), UsageSums(input_tokens=tokens, spent=used.cost))
        self.spend(tenant_id, used, reserved=BudgetReservation(day, 0, 0.0), model=model)

    @contextlib.asynccontextmanager
    async def admission(self, tenant_id: UUID, own: TenantLimits, count: int = 1) -> AsyncIterator[None]:
        """Hold the tenant's admission lock while ``count`` runs are accepted in the block. Raises ``Limited``."""
        max_runs, max_queued = self._limiter.limit(own, "runs"), self._limiter.limit(own, "queued_runs")
        if not max_runs and not max_queued:
            yield
            return
        lock = self._locks.setdefault(tenant_id, asyncio.Lock())  # one waiter per process holds a connection
        tenant = self._database.tenant_connection(tenant_id, outer=True)
        async with lock, tenant as connection, connection.transaction():
            await connection.execute(queries.LOCK_ADMISSION, tenant_id)
            row = await connection.fetchrow(queries.ACTIVE_RUNS, tenant_id)
            assert row is not None
            if max_runs and row["runs"] + count > max_runs:
                self._limiter.rejected(RUNS)
                raise Limited(
                    f"This tenant has {max_runs} active runs, which is its limit: wait for one, or cancel it."
                )
            if max_queued and row["queued"] + count > max_queued:
                self._limiter.rejected(QUEUED)
                raise Limited(
                    f"This tenant has {max_queued} pending runs, which is its limit: wait for one, or cancel it."
                )
            yield

    async def flush(self) -> None:
        """Write what was spent, by whom, and charge the tokens, also if cancelled. Failed writes are retried.

        Returns once all that was counted before is written, also by a flush that was under way.
        """
        await run_to_completion(self._flush())

    async def _flush(self) -> None:
        async with self._flushing:
            usage, self._usage = self._usage, {}
            for key, sums in await self._write("usage", usage, self._write_usage):
                self.count(key, sums)
            changes, self._changes = self._changes, {}
            for day, change in await self._write("spending", changes, self._write_spending):
                self._put_back(day, change)

    async def _write(
        self, what: str, rows: Mapping[K, V], write: Callable[[Sequence[tuple[K, V]]], Awaitable[None]]
    ) -> list[tuple[K, V]]:
        """Write ``rows`` in one statement; return those to try again.

        One that the database refuses must not block the others: it is found by halving, logged and left out.
        """
        parts, again = [list(rows.items())] if rows else [], []
        while parts:
            part = parts.pop()
            middle = len(part) // 2
            error = await _error_of(write(part))
            if isinstance(error, REFUSED) and middle:
                parts += part[:middle], part[middle:]
            elif isinstance(error, REFUSED):
                key, figures = part[0]
                log.error("account_refused", of=what, tenant=str(key[0]), error=type(error).__name__, figures=figures)
            elif error is not None:
                log.warning("account_waits", of=what, rows=len(part), error=type(error).__name__)
                again += part
        return again

    async def _write_usage(self, usage: Sequence[tuple[UsageKey, UsageSums]]) -> None:
        rows = [
            (*key, one.runs, one.failed, one.input_tokens, one.output_tokens, dollars(one.spent)) for key, one in usage
        ]
        async with self._database.engine_connection() as connection:
            await connection.execute(queries.COUNT_USAGE, *(list(column) for column in zip(*rows, strict=True)))

    async def _write_spending(self, changes: Sequence[tuple[TenantDay, SpendingChange]]) -> None:
        """Write ``changes``, then charge their tokens."""
        rows = [(*day, dollars(one.reserved), dollars(one.spent), one.tokens) for day, one in changes]
        async with self._database.engine_connection() as connection:
            await connection.execute(queries.SPEND, *(list(column) for column in zip(*rows, strict=True)))
        for (tenant_id, day), one in changes:  # these are written: whatever is raised from here on, only tokens wait
            if one.owed and await _error_of(self._settle(tenant_id, one.owed)) is not None:
                self._change(tenant_id, day).owed += one.owed

    async def _settle(self, tenant_id: UUID, owed: float) -> None:
        """Charge the tokens that a tenant owes."""
        max_tokens, _ = self._limits(await self.limits_of(tenant_id))
        if max_tokens:
            await self._limiter.charge(_tokens(tenant_id, max_tokens, owed))

    def _put_back(self, day: TenantDay, one: SpendingChange) -> None:
        change = self._change(*day)
        change.reserved += one.reserved
        change.spent += one.spent
        change.tokens += one.tokens
        change.owed += one.owed

    def _limits(self, own: TenantLimits) -> tuple[int, float]:
        return self._limiter.limit(own, "tokens_per_minute"), self._limiter.limit(own, "cost_per_day")

    async def _reserve_cost(self, tenant_id: UUID, reserved: BudgetReservation, max_cost: float) -> bool:
        async with self._database.engine_connection() as connection:
            share = await connection.fetchval(
                queries.RESERVE, tenant_id, reserved.day, dollars(reserved.cost), dollars(max_cost)
            )
        if self._shares_day != reserved.day:
            self._shares, self._shares_day = {}, reserved.day
        self._shares[tenant_id] = 1.0 if share is None else share
        return share is not None

    def _change(self, tenant_id: UUID, day: date) -> SpendingChange:
        return self._changes.setdefault((tenant_id, day), SpendingChange())

    def today(self) -> date:
        """Return the current day in UTC."""
        return self._clock().astimezone(UTC).date()

    def _spent_today(self, max_cost: float) -> str:
        return f"This tenant has spent its {max_cost:g} dollars per day: try again tomorrow (UTC)."

    def _until_tomorrow(self) -> float:
        moment = self._clock().astimezone(UTC)
        midnight = datetime.combine(moment.date() + timedelta(days=1), datetime.min.time(), UTC)
        return (midnight - moment).total_seconds()


async def _error_of(writing: Awaitable[None]) -> Exception | None:
    try:
        await writing
    except Exception as error:  # noqa: BLE001  an edge: whatever the driver raises, it is written later
        return error
    return None


def dollars(amount: float) -> Decimal:
    """Round to a billionth: the error of binary fractions would make the fifth fifth of a dollar too much."""
    return Decimal(f"{amount:.9f}")


def _tokens(tenant_id: UUID, max_tokens: int, weight: float) -> BucketTake:
    return BucketTake(TOKENS, f"{TOKENS}:{tenant_id}", max_tokens, weight=weight)


def _credible(tokens: int) -> int:
    return min(max(0, tokens), MAX_TOKENS)


def _storable(model: str) -> str:
    """Return what of a reported name can be stored, as part of a key too."""
    return model[:MAX_MODEL_LENGTH].encode(errors="replace").decode().replace("\0", "\ufffd")


class RunAccount:
    """Account of one run's spending in this process.

    ``reserved`` is the run's reservation, None if nothing is limited; a ``continued`` run has to reserve again when it
    spends. Its usage is that of ``agent``, for ``requested_by`` (a key or user).
    """

    def __init__(
        self,
        budgets: Budgets,
        tenant_id: UUID,
        reserved: BudgetReservation | None,
        *,
        continued: bool = False,
        agent: str = "",
        requested_by: str = "",
    ) -> None:
        self._budgets = budgets
        self._tenant_id = tenant_id
        self.tenant = str(tenant_id)
        self._agent = agent
        self._requested_by = requested_by
        self._limited = reserved is not None
        self._chunk = reserved.cost if reserved is not None else 0.0
        if reserved is None or continued:
            reserved = BudgetReservation(budgets.today(), 0, 0.0)
        self._left = reserved
        self._owed = 0.0
        self.cost = 0.0
        """Dollars that the run has spent here."""
        self._charged_input = self._charged_output = 0

    def charge(self, model: str, usage: Usage, *, in_step: bool) -> None:
        """Charge a model call when it ends (``app.providers.llm.billing.Payer``): its step may never commit."""
        if in_step:
            self._charged_input += usage.input_tokens
            self._charged_output += usage.output_tokens
        self.spend(model, usage.input_tokens, usage.output_tokens)

    def spend_step(self, model: str, usage: Usage) -> None:
        """Charge what a step reports beyond the calls that were charged when they ended."""
        input_tokens, output_tokens = _credible(usage.input_tokens), _credible(usage.output_tokens)
        known_input = min(self._charged_input, input_tokens)
        known_output = min(self._charged_output, output_tokens)
        self._charged_input -= known_input
        self._charged_output -= known_output
        self.spend(_storable(model), input_tokens - known_input, output_tokens - known_output)

    def spend(self, model: str, input_tokens: int, output_tokens: int) -> None:
        """Charge the tokens that ``model`` used."""
        if not input_tokens and not output_tokens:
            return
        left = self._left
        cost = self._budgets.prices.cost(model, input_tokens, output_tokens)
        used = BudgetReservation(left.day, input_tokens + output_tokens, cost)
        covered = BudgetReservation(left.day, min(left.tokens, used.tokens), min(left.cost, cost))
        self.cost += cost
        self._count(left.day, model, UsageSums(input_tokens=input_tokens, output_tokens=output_tokens, spent=cost))
        self._owed += cost - covered.cost
        self._budgets.spend(self._tenant_id, used, reserved=covered, model=model)
        self._left = BudgetReservation(left.day, left.tokens - covered.tokens, left.cost - covered.cost)

    async def check(self) -> None:
        """Reserve more before the run continues if its reservation is used up. Raises ``BudgetSpent``.

        What it used beyond may not be written as spent yet, so that is reserved too, and released together.
        """
        if self._limited and self._chunk and not self._left.cost:
            owed, self._owed = self._owed, 0.0
            more = await self._budgets.extend(self._tenant_id, self._left.day, self._chunk + owed)
            if more:
                self._budgets.release(self._tenant_id, BudgetReservation(self._left.day, 0, owed))
                self._left.cost += more - owed

    def _count(self, day: date, model: str, sums: UsageSums) -> None:
        self._budgets.count(UsageKey(self._tenant_id, day, self._agent, self._requested_by, model), sums)

    def close(self, status: str) -> None:
        """Release the rest of the reservation: the run has ended with ``status``, or left this process."""
        if status in TERMINAL:
            self._count(self._budgets.today(), "", UsageSums(runs=1, failed=int(status in FAILED)))
        if self._limited:
            self._budgets.release(self._tenant_id, self._left)
        self._left = BudgetReservation(
            self._left.day, 0, 0.0
        )  # a call that ends later is charged without a reservation
        self._limited = False
