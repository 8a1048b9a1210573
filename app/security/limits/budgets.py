"""Budgets of tenants: tokens a minute, dollars a day, runs that are not ended.

A run reserves before it starts, takes more when it has used that up, and gives back what is left when it ends. Dollars
are kept in the database, a row a tenant and day: nothing that happens to a process makes room for more. What a process
had not written when it was killed (a second at most) is not counted as spent, but its reservation stays for the day.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from uuid import UUID
from weakref import WeakValueDictionary

import asyncpg
import msgspec
import sqlalchemy as sa
import structlog

from app.base.clock import now
from app.base.errors import BudgetSpent, Limited, Unavailable
from app.base.tasks import Tasks
from app.domain.messages import Usage
from app.infra.db.engine import Database
from app.infra.telemetry.meters import Meters
from app.security.limits.limiter import COST, CRONS, LLM, QUEUED, RUNS, TOKENS, Limiter
from app.security.limits.prices import MILLION, Prices
from app.security.limits.structs import BudgetReservation, TenantLimits
from app.security.limits.token_buckets import BucketTake

log = structlog.get_logger(__name__)

FLUSH_SECONDS = 1.0
OWN_SECONDS = 5.0
MAX_OWNS = 10_000

_RESERVE = """
insert into spending as s (tenant_id, day, reserved) select $1, $2, $3::numeric where $3::numeric <= $4::numeric
on conflict (tenant_id, day) do update set reserved = s.reserved + $3
where s.spent + s.reserved + $3 <= $4
returning ((s.spent + s.reserved) / $4)::float8
"""
_SPEND = """
insert into spending as s (tenant_id, day, reserved, spent, tokens)
select * from unnest($1::uuid[], $2::date[], $3::numeric[], $4::numeric[], $5::bigint[])
on conflict (tenant_id, day) do update
set reserved = greatest(s.reserved + excluded.reserved, 0), spent = s.spent + excluded.spent,
  tokens = s.tokens + excluded.tokens
"""
_SPENT = "select (spent + reserved)::float8 from spending where tenant_id = $1 and day = $2"
_OWN = sa.text("select limits::text from tenants where tenant_id = :tenant")
_TURN = "select pg_advisory_xact_lock(hashtextextended('runs of ' || $1::uuid, 0))"
_RUNS = """
select count(*) as runs, count(*) filter (where status = 'pending') as queued
from runs where tenant_id = $1 and status in ('pending', 'running')
"""


class SpendingChange(msgspec.Struct):
    """What is still to be written of a tenant's day, and to be taken from its tokens."""

    reserved: float = 0.0
    spent: float = 0.0
    tokens: int = 0
    owed: float = 0.0
    """Tokens used beyond those reserved; below zero: reserved and not used."""


class Budgets:
    """Reserves for runs, and keeps what they spend, also on ``meters``. ``model_of`` names the model of an agent."""

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
        self._shares_of = date.min
        self._database = database
        self._limiter = limiter
        self._model_of = model_of
        self._clock = clock
        self._changes: dict[tuple[UUID, date], SpendingChange] = {}
        self._rooms: WeakValueDictionary[UUID, asyncio.Lock] = WeakValueDictionary()
        self._owns: dict[UUID, tuple[float, TenantLimits]] = {}
        self._tasks = Tasks("budgets")

    def start(self) -> None:
        """Begin to write."""
        self._tasks.repeat(self.flush, FLUSH_SECONDS, name="flush", essential=True)

    async def aclose(self) -> None:
        """Write what is left, and stop."""
        await self._tasks.aclose()
        await self.flush()

    @property
    def fullest(self) -> float:
        """The greatest part of today's budget that a tenant had spent or reserved when it last asked here."""
        return max(self._shares.values(), default=0.0) if self._shares_of == self.today() else 0.0

    async def own(self, tenant_id: UUID) -> TenantLimits:
        """A tenant's own limits, where no key has brought them."""
        async with self._database.reading(tenant_id) as session:
            limits = await session.scalar(_OWN, {"tenant": tenant_id})
        return msgspec.json.decode(limits, type=TenantLimits) if limits else TenantLimits()

    async def reserve(self, tenant_id: UUID, own: TenantLimits, agent: str) -> BudgetReservation | None:
        """What a new run of ``agent`` needs; None where nothing is limited. Raises ``Limited``."""
        per_minute, per_day = self._limits(own)
        if not per_minute and not per_day:
            return None
        tokens = self._limiter.settings.reserve_tokens
        reserved = BudgetReservation(self.today(), tokens if per_minute else 0, 0.0)
        if per_day:
            price = self.prices.of(self._model_of(agent))
            reserved.cost = tokens * max(price) / MILLION
            if not await self._reserve_cost(tenant_id, reserved, per_day):
                self._limiter.rejected(COST)
                raise Limited(self._spent_today(per_day), self._until_tomorrow())
        if per_minute:
            verdict = await self._limiter.take([_tokens(tenant_id, per_minute, tokens)])
            if verdict.refused is not None:
                self.release(tenant_id, BudgetReservation(reserved.day, 0, reserved.cost))
                self._limiter.rejected(TOKENS)
                raise Limited(f"This tenant has used its {per_minute} tokens a minute.", verdict.wait)
        return reserved

    async def extend(self, tenant_id: UUID, day: date, cost: float) -> float:
        """Dollars more for a run that has used up what it had reserved on ``day``. Raises ``BudgetSpent``."""
        _, per_day = self._limits(await self.own(tenant_id))
        if per_day and not await self._reserve_cost(tenant_id, BudgetReservation(day, 0, cost), per_day):
            self._limiter.rejected(COST)
            raise BudgetSpent(f"The tenant has spent its {per_day:g} dollars of the day: the run stops here.")
        return cost if per_day else 0.0

    def release(self, tenant_id: UUID, reserved: BudgetReservation) -> None:
        """Give back what a run will not use."""
        change = self._change(tenant_id, reserved.day)
        change.reserved -= reserved.cost
        change.owed -= reserved.tokens

    def spend(self, tenant_id: UUID, used: BudgetReservation, *, reserved: BudgetReservation, model: str = "") -> None:
        """Keep that ``used`` was spent on ``model``, of which ``reserved`` had been reserved."""
        if used.cost:
            vendor, _, name = model.partition(":")
            self._meters.model_cost.add(used.cost, vendor, name)
        change = self._change(tenant_id, used.day)
        change.spent += used.cost
        change.tokens += used.tokens
        change.reserved -= reserved.cost
        change.owed += used.tokens - reserved.tokens

    async def count_cron(self, tenant_id: UUID) -> float:
        """Count a run that a cron of the tenant starts: 0, or the seconds to wait where it has none left now."""
        verdict = await self._limiter.take_runs(tenant_id, CRONS, await self.own_lately(tenant_id), 1)
        if verdict is None or verdict.refused is None:
            return 0.0
        self._limiter.rejected(LLM)
        return verdict.wait

    async def admit(self, tenant_id: UUID) -> None:
        """Before a call outside of a run that ``charge`` will count. Raises ``Limited`` where the budget is spent."""
        per_minute, per_day = self._limits(await self.own_lately(tenant_id))
        if per_minute:
            verdict = await self._limiter.take([_tokens(tenant_id, per_minute, 0)])
            if verdict.refused is not None:
                self._limiter.rejected(TOKENS)
                raise Limited(f"This tenant has used its {per_minute} tokens a minute.", verdict.wait)
        if per_day:
            async with self._database.engine_connection() as connection:
                spent = await connection.fetchval(_SPENT, tenant_id, self.today())
            unwritten = self._changes.get((tenant_id, self.today()), SpendingChange()).spent
            if float(spent or 0) + unwritten >= per_day:
                self._limiter.rejected(COST)
                raise Limited(self._spent_today(per_day), self._until_tomorrow())

    async def own_lately(self, tenant_id: UUID) -> TenantLimits:
        """A tenant's own limits as they were within the last seconds."""
        known = self._owns.get(tenant_id)
        if known is None or time.monotonic() - known[0] > OWN_SECONDS:
            if len(self._owns) >= MAX_OWNS:
                self._owns.clear()
            known = self._owns[tenant_id] = (time.monotonic(), await self.own(tenant_id))
        return known[1]

    def charge(self, tenant_id: UUID, model: str, tokens: int) -> None:
        """Charge for tokens that were used outside of a run, as by embeddings (``app.providers.llm.registry``)."""
        day = self.today()
        used = BudgetReservation(day, tokens, self.prices.cost(model, tokens, 0))
        self.spend(tenant_id, used, reserved=BudgetReservation(day, 0, 0.0), model=model)

    @contextlib.asynccontextmanager
    async def room(self, tenant_id: UUID, own: TenantLimits, count: int = 1) -> AsyncIterator[None]:
        """Accept ``count`` runs of the tenant in the block, while no other process does. Raises ``Limited``."""
        most, most_queued = self._limiter.limit(own, "runs"), self._limiter.limit(own, "queued_runs")
        if not most and not most_queued:
            yield
            return
        lock = self._rooms.setdefault(
            tenant_id, asyncio.Lock()
        )  # so that one waits for the tenant's turn in the database
        async with lock, self._database.engine_connection() as connection, connection.transaction():
            await connection.execute(_TURN, tenant_id)
            row = await connection.fetchrow(_RUNS, tenant_id)
            assert row is not None
            if most and row["runs"] + count > most:
                self._limiter.rejected(RUNS)
                raise Limited(f"This tenant has its {most} runs that are not ended: wait for one, or cancel it.")
            if most_queued and row["queued"] + count > most_queued:
                self._limiter.rejected(QUEUED)
                raise Limited(f"This tenant has its {most_queued} runs waiting: wait for one, or cancel it.")
            yield

    async def flush(self) -> None:
        """Write what was spent, and settle the tokens. What cannot be written now is tried again."""
        changes, self._changes = self._changes, {}
        if not changes:
            return
        failed = await self._write(changes)
        if failed is not None and isinstance(failed, asyncpg.DataError):  # one tenant's figures stop no other's
            for key, change in changes.items():
                if await self._write({key: change}) is not None:
                    self._put_back(key, change)
        elif failed is not None:
            for key, change in changes.items():
                self._put_back(key, change)

    async def _write(self, changes: dict[tuple[UUID, date], SpendingChange]) -> Exception | None:
        """Write ``changes`` in one statement and settle their tokens; the error if the database did not take them."""
        rows = [
            (tenant_id, day, dollars(one.reserved), dollars(one.spent), one.tokens)
            for (tenant_id, day), one in changes.items()
        ]
        try:
            async with self._database.engine_connection() as connection:
                await connection.execute(_SPEND, *(list(column) for column in zip(*rows, strict=True)))
        except Exception as error:  # noqa: BLE001  the edge: whatever the driver raises, nothing that was spent is forgotten
            log.warning("spending_waits", tenants=len(rows), error=type(error).__name__)
            return error
        for (tenant_id, day), one in changes.items():
            if one.owed and not await self._settle(tenant_id, one.owed):
                self._change(tenant_id, day).owed += one.owed
        return None

    async def _settle(self, tenant_id: UUID, owed: float) -> bool:
        """Take the tokens that a tenant owes from its minute; False if its limits cannot be read now."""
        try:
            per_minute, _ = self._limits(await self.own(tenant_id))
        except Unavailable:
            return False
        if per_minute:
            await self._limiter.charge(_tokens(tenant_id, per_minute, owed))
        return True

    def _put_back(self, key: tuple[UUID, date], one: SpendingChange) -> None:
        change = self._change(*key)
        change.reserved += one.reserved
        change.spent += one.spent
        change.tokens += one.tokens
        change.owed += one.owed

    def _limits(self, own: TenantLimits) -> tuple[int, float]:
        return self._limiter.limit(own, "tokens_per_minute"), self._limiter.limit(own, "cost_per_day")

    async def _reserve_cost(self, tenant_id: UUID, reserved: BudgetReservation, per_day: float) -> bool:
        async with self._database.engine_connection() as connection:
            share = await connection.fetchval(
                _RESERVE, tenant_id, reserved.day, dollars(reserved.cost), dollars(per_day)
            )
        if self._shares_of != reserved.day:
            self._shares, self._shares_of = {}, reserved.day
        self._shares[tenant_id] = 1.0 if share is None else share
        return share is not None

    def _change(self, tenant_id: UUID, day: date) -> SpendingChange:
        return self._changes.setdefault((tenant_id, day), SpendingChange())

    def today(self) -> date:
        """The day in UTC."""
        return self._clock().astimezone(UTC).date()

    def _spent_today(self, per_day: float) -> str:
        return f"This tenant has spent its {per_day:g} dollars of today: try again tomorrow."

    def _until_tomorrow(self) -> float:
        moment = self._clock().astimezone(UTC)
        midnight = datetime.combine(moment.date() + timedelta(days=1), datetime.min.time(), UTC)
        return (midnight - moment).total_seconds()


def dollars(amount: float) -> Decimal:
    """To a billionth: what binary fractions add to it would make the fifth fifth of a dollar too much."""
    return Decimal(f"{amount:.9f}")


def _tokens(tenant_id: UUID, per_minute: int, weight: float) -> BucketTake:
    return BucketTake(TOKENS, f"{TOKENS}:{tenant_id}", per_minute, weight=weight)


class RunAccount:
    """What one run spends in this process.

    ``reserved`` is what was reserved for it, None where nothing is limited; a run that is ``continued`` has to reserve
    anew when it spends.
    """

    def __init__(
        self, budgets: Budgets, tenant_id: UUID, reserved: BudgetReservation | None, *, continued: bool = False
    ) -> None:
        self._budgets = budgets
        self._tenant_id = tenant_id
        self.tenant = str(tenant_id)
        self._limited = reserved is not None
        self._chunk = reserved.cost if reserved is not None else 0.0
        if reserved is None or continued:
            reserved = BudgetReservation(budgets.today(), 0, 0.0)
        self._left = reserved
        self._owed = 0.0
        self._charged_input = self._charged_output = 0

    def charge(self, model: str, usage: Usage, *, in_step: bool) -> None:
        """Charge a model call when it ends (``app.providers.llm.billing.Payer``): a step may never come of it."""
        if in_step:
            self._charged_input += usage.input_tokens
            self._charged_output += usage.output_tokens
        self.spend(model, usage.input_tokens, usage.output_tokens)

    def spend_step(self, model: str, usage: Usage) -> None:
        """Charge what a step reports beyond the calls that were charged when they ended."""
        known_input = min(self._charged_input, usage.input_tokens)
        known_output = min(self._charged_output, usage.output_tokens)
        self._charged_input -= known_input
        self._charged_output -= known_output
        self.spend(model, usage.input_tokens - known_input, usage.output_tokens - known_output)

    def spend(self, model: str, input_tokens: int, output_tokens: int) -> None:
        """Keep that ``model`` has used tokens."""
        if not input_tokens and not output_tokens:
            return
        left = self._left
        cost = self._budgets.prices.cost(model, input_tokens, output_tokens)
        used = BudgetReservation(left.day, input_tokens + output_tokens, cost)
        covered = BudgetReservation(left.day, min(left.tokens, used.tokens), min(left.cost, cost))
        self._owed += cost - covered.cost
        self._budgets.spend(self._tenant_id, used, reserved=covered, model=model)
        self._left = BudgetReservation(left.day, left.tokens - covered.tokens, left.cost - covered.cost)

    async def check(self) -> None:
        """Before the run goes on: reserve more if what it had is used up. Raises ``BudgetSpent``.

        What it used beyond may not be written as spent yet, so it is reserved too, and given back with that.
        """
        if self._limited and self._chunk and not self._left.cost:
            owed, self._owed = self._owed, 0.0
            more = await self._budgets.extend(self._tenant_id, self._left.day, self._chunk + owed)
            if more:
                self._budgets.release(self._tenant_id, BudgetReservation(self._left.day, 0, owed))
                self._left.cost += more - owed

    def close(self) -> None:
        """The run has ended here for good."""
        if self._limited:
            self._budgets.release(self._tenant_id, self._left)
        self._left = BudgetReservation(
            self._left.day, 0, 0.0
        )  # a call that ends later is charged, and covered by nothing
        self._limited = False
