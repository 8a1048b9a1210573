"""Processes that serve crons: each with its own engine, on one database and clock."""

import contextlib
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from app.engine.queue.claims import RunAdmission
from app.features.assistants.service import AssistantService
from app.features.crons.scheduler import CronScheduler
from app.features.crons.service import CronService
from app.features.crons.structs import Cron, CronCreate, CronPatch
from app.features.runs.creation import RunFactory
from app.features.runs.service import RunService
from app.infra.db.engine import Database
from app.infra.settings import LimitSettings
from app.security.access.structs import Principal
from app.security.limits.limiter import Limiter
from app.security.limits.storage_quota import StorageQuota
from tests.runs.engine import TENANT, Agents, Behaviour, Engine, SteeredAgent, echo, fetch
from tests.waiting import eventually

PRINCIPAL = Principal(TENANT)


class Clock:
    """A clock that shows ``at``."""

    def __init__(self, at: datetime) -> None:
        self.at = at

    def __call__(self) -> datetime:
        return self.at


class Replica:
    """One process."""

    def __init__(self, database: Database, clock: Clock, behaviour: Behaviour = echo, max_crons: int = 0) -> None:
        self.database = database
        self.clock = clock
        agent = SteeredAgent("echo", behaviour)
        self.engine = Engine(database, agent)
        assistants = AssistantService(database, Agents(agent))
        creation = RunFactory(database, assistants, Agents(agent), lambda: self.engine.supervisor.owner)
        self.quota = StorageQuota(database, Limiter(LimitSettings()))
        admission = RunAdmission(self.engine.parts.budgets, self.quota)
        self.runs = RunService(database, self.engine.claims, self.engine.supervisor, creation, admission)
        self.crons = CronService(database, assistants, creation, clock, max_crons=max_crons)
        self.scheduler = CronScheduler(database, self.engine.claims, creation, self.runs, clock)

    async def create(
        self, schedule: str = "*/5 * * * *", thread_id: UUID | None = None, tenant: UUID = TENANT, **more: Any
    ) -> Cron:
        """Create a cron that says hello."""
        body = CronCreate(assistant_id="echo", schedule=schedule, **{"input": ["hello"], **more})
        made = await self.crons.create(Principal(tenant), thread_id, body)
        assert isinstance(made, Cron)
        return made

    async def patch(self, cron: Cron, **changes: Any) -> Cron:
        return await self.crons.patch(PRINCIPAL, cron.cron_id, CronPatch(**changes))

    async def get(self, cron: Cron) -> Cron:
        return await self.crons.get(PRINCIPAL, cron.cron_id)

    async def at(self, time: datetime) -> int:
        """Set the clock to ``time``, fire due crons and return the number of runs."""
        self.clock.at = time
        assert await self.scheduler.fire_due() == []
        return len(await runs_of(self.database))

    async def fires(self, cron: Cron, time: datetime) -> None:
        """Set the clock to ``time`` and fire ``cron`` once its thread is not locked."""
        self.clock.at = time

        async def seen_to() -> bool:
            assert await self.scheduler.fire_due() == []
            return any(slot == time for slot, _, _ in await slots_of(self.database, cron))

        await eventually(seen_to)

    async def thread(self) -> UUID:
        """Create a thread with an ended run."""
        claimed = await self.engine.begin("before")
        await self.engine.result(claimed)
        return claimed.thread_id


@contextlib.asynccontextmanager
async def replicas_on(
    database: Database, clock: Clock, count: int, behaviour: Behaviour = echo
) -> AsyncIterator[list[Replica]]:
    """Run processes for the duration of the block."""
    async with contextlib.AsyncExitStack() as stack:
        replicas = [Replica(database, clock, behaviour) for _ in range(count)]
        for replica in replicas:
            await replica.engine.start()
            stack.push_async_callback(replica.engine.stop)
            stack.push_async_callback(replica.scheduler.aclose)
        yield replicas


async def runs_of(database: Database, *crons: Cron) -> list[dict[str, Any]]:
    """Return the runs of crons, oldest first; of all crons, or of ``crons``."""
    rows = await fetch(
        database, "select *, metadata->>'cron_id' as cron_id from runs where metadata ? 'cron_id' order by run_id"
    )
    ids = {str(cron.cron_id) for cron in crons}
    return [row for row in rows if not ids or row["cron_id"] in ids]


async def slots_of(database: Database, cron: Cron) -> list[tuple[datetime, UUID | None, str | None]]:
    """Return the slots of a cron with their run or problem."""
    rows = await fetch(
        database, "select slot, run_id, problem from cron_slots where cron_id = $1 order by slot", cron.cron_id
    )
    return [(row["slot"], row["run_id"], row["problem"]) for row in rows]


def payload_of(cron: Cron) -> Any:
    return msgspec.json.decode(cron.payload)
