"""Usage by day: one report that cannot be stored loses no other, and nothing is lost when a process stops."""

import asyncio
import contextlib
import random
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from structlog.testing import capture_logs

from app.domain.messages import Usage
from app.engine.queue.retention import sweeper
from app.engine.queue.retention.sweeper import RetentionSweeper
from app.infra.db.engine import Database
from app.infra.settings import LimitSettings
from app.infra.telemetry.meters import Meters
from app.security.limits import budgets as module
from app.security.limits.budgets import MAX_MODEL_LENGTH, MAX_TOKENS, Budgets, RunAccount
from app.security.limits.limiter import Limiter
from app.security.limits.prices import Prices
from app.security.limits.structs import BudgetReservation, TenantLimits, UsageKey, UsageSums
from tests.crons.conftest import database
from tests.runs.engine import TENANT, fetch
from tests.waiting import eventually

__all__ = ["database"]

OTHER = UUID(int=8)
LONG = random.Random(1).randbytes(5000).hex()
"""More than an index takes, and hardly compressible."""


@pytest.fixture
def budgets(database: Database) -> Budgets:
    return Budgets(database, Limiter(LimitSettings()), Prices(), lambda _: "", Meters())


async def counted(database: Database, columns: str) -> list[tuple[Any, ...]]:
    found = await fetch(database, f"select {columns} from usage_by_day order by {columns}")
    return [tuple(row.values()) for row in found]


async def test_whatever_a_graph_reports_about_its_model_is_counted(database: Database, budgets: Budgets) -> None:
    account = RunAccount(budgets, TENANT, None, agent="graph")
    for model, tokens in (("a\0b", 1), ("half \ud800", 2), (LONG, 3), ("huge", 2**63), ("negative", -5)):
        account.spend_step(model, Usage(input_tokens=tokens, output_tokens=1))
    RunAccount(budgets, OTHER, None).spend_step("sound", Usage(input_tokens=7, output_tokens=8))
    await budgets.flush()
    assert set(await counted(database, "model, input_tokens, output_tokens")) == {
        ("a\ufffdb", 1, 1),
        ("half ?", 2, 1),
        (LONG[:MAX_MODEL_LENGTH], 3, 1),
        ("huge", MAX_TOKENS, 1),
        ("negative", 0, 1),
        ("sound", 7, 8),
    }
    assert [row["tokens"] for row in await fetch(database, "select tokens from spending order by tenant_id")] == [
        MAX_TOKENS + 6 + 5,
        15,
    ]


async def test_usage_that_the_database_refuses_is_dropped_alone(database: Database, budgets: Budgets) -> None:
    def count(agent: str, tokens: int) -> None:
        budgets.count(UsageKey(TENANT, budgets.today(), agent, "", "m"), UsageSums(input_tokens=tokens))

    for agent, tokens in (("a", 1), ("nul\0", 1), ("b", 2), (LONG, 1), ("half \ud800", 1), ("c", 3), ("sum", 2**63)):
        count(agent, tokens)
    with capture_logs() as lines:
        await budgets.flush()
        await budgets.flush()
    assert await counted(database, "agent, input_tokens") == [("a", 1), ("b", 2), ("c", 3)]
    assert [(line["event"], line["of"]) for line in lines] == [("account_refused", "usage")] * 4, "nor tried again"


async def test_spending_that_the_database_refuses_is_dropped_alone(database: Database, budgets: Budgets) -> None:
    for tenant_id, tokens in ((TENANT, 1), (OTHER, 2**63), (UUID(int=9), 3)):
        used = BudgetReservation(budgets.today(), tokens, 0.5)
        budgets.spend(tenant_id, used, reserved=BudgetReservation(budgets.today(), 0, 0.0))
    with capture_logs() as lines:
        await budgets.flush()
        await budgets.flush()
    assert sorted(row["tokens"] for row in await fetch(database, "select tokens from spending")) == [1, 3]
    assert [(line["event"], line["tenant"]) for line in lines] == [("account_refused", str(OTHER))], "nor tried again"


async def test_spending_is_written_once_though_its_tokens_cannot_be_charged(
    database: Database, budgets: Budgets, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(_: UUID) -> TenantLimits:
        raise asyncpg.QueryCanceledError

    with monkeypatch.context() as patch:
        patch.setattr(budgets, "limits_of", broken)
        for tenant_id in (TENANT, OTHER):
            budgets.spend(
                tenant_id,
                BudgetReservation(budgets.today(), 5, 0.5),
                reserved=BudgetReservation(budgets.today(), 0, 0.0),
            )
        for _ in range(3):
            await budgets.flush()
    await budgets.flush()
    assert [tuple(row.values()) for row in await fetch(database, "select tokens, spent::float from spending")] == [
        (5, 0.5)
    ] * 2


async def test_usage_that_waits_is_bounded_and_loses_no_sum(
    database: Database, budgets: Budgets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_USAGE_ROWS", 3)
    day = budgets.today()
    for number in range(8):
        budgets.count(UsageKey(TENANT, day, "one", f"user {number}", "m"), UsageSums(input_tokens=1))
        budgets.count(UsageKey(TENANT, day, "one", f"user {number}", ""), UsageSums(runs=1))
    assert len(budgets._usage) == 5
    await budgets.flush()
    assert await counted(database, "requested_by, model, input_tokens, runs") == [
        ("", "", 0, 7),
        ("", "*", 6, 0),
        ("user 0", "", 0, 1),
        ("user 0", "m", 1, 0),
        ("user 1", "m", 1, 0),
    ]


@pytest.mark.parametrize("table", ["usage_by_day", "spending"])
async def test_what_is_being_written_when_a_process_stops_is_not_lost(
    database: Database, budgets: Budgets, table: str
) -> None:
    async def waits() -> bool:
        return bool(await fetch(database, "select 1 from pg_locks where not granted"))

    budgets.charge(TENANT, "m", 5)
    async with database.engine_connection() as connection, connection.transaction():
        await connection.execute(f"lock table {table} in share row exclusive mode")
        flush = asyncio.create_task(budgets.flush())
        await eventually(waits)
        flush.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await flush
    await budgets.aclose()
    assert await counted(database, "input_tokens") == [(5,)]
    assert await fetch(database, "select tokens from spending") == [{"tokens": 5}]


async def test_usage_is_kept_for_400_days(
    database: Database, budgets: Budgets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeper, "ROWS", 3)
    today = budgets.today()
    ages = (0, 399, 402, 403, 500, 900)  # those around the limit survive midnight
    for tenant_id in (TENANT, OTHER, UUID(int=9)):
        for age in ages if tenant_id != UUID(int=9) else ages[:1]:
            budgets.count(UsageKey(tenant_id, today - timedelta(days=age), "", "", "m"), UsageSums(input_tokens=age))
    await budgets.flush()
    sweeps = RetentionSweeper(database)
    assert await sweeps.usage() == 8
    assert await counted(database, "input_tokens, tenant_id") == [
        *((0, tenant_id) for tenant_id in (TENANT, OTHER, UUID(int=9))),
        *((399, tenant_id) for tenant_id in (TENANT, OTHER)),
    ]
    assert await sweeps.usage() == 0
