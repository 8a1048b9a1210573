"""HTTP routes of crons."""

import asyncio
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from litestar import Controller, Response, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody, QueryParameter

from app.base.clock import now
from app.features.access.guard import ADDS_NOTHING, READS, WRITES, CurrentPrincipal
from app.features.access.idempotency import key_in
from app.features.crons.schedule import upcoming
from app.features.crons.service import CronService
from app.features.crons.structs import Cron, CronCreate, CronPatch, CronSearch
from app.infra.http.query_params import AnyRequest, page_headers, project

Id = FromPath[UUID]
Service = NamedDependency[CronService]
Schedule = Annotated[str, QueryParameter(description="Five fields: minute, hour, day of month, month, day of week.")]
Timezone = Annotated[str | None, QueryParameter(description="An IANA name, such as Europe/Berlin; UTC if missing.")]
Times = Annotated[int, QueryParameter(ge=1, le=20, description="How many times.")]


class CronsController(Controller):
    """Crons: runs made at the times of a schedule."""

    tags = ("crons",)
    opt = WRITES

    @post("/threads/{thread_id:str}/runs/crons", status_code=200, summary="Create a cron on a thread")
    async def create(
        self,
        thread_id: Id,
        data: JSONBody[CronCreate],
        principal: CurrentPrincipal,
        crons: Service,
        request: AnyRequest,
    ) -> Response[Any]:
        """Create a cron whose runs all use that thread. Takes an ``Idempotency-Key``."""
        return Response(await crons.create(principal, thread_id, data, await key_in(request)))

    @post("/runs/crons", status_code=200, summary="Create a stateless cron")
    async def create_stateless(
        self, data: JSONBody[CronCreate], principal: CurrentPrincipal, crons: Service, request: AnyRequest
    ) -> Response[Any]:
        """Each run gets a thread of its own, which ``on_run_completed`` keeps or (default) deletes."""
        return Response(await crons.create(principal, None, data, await key_in(request)))

    @post("/runs/crons/search", status_code=200, opt=READS, summary="Search crons")
    async def search(
        self, data: JSONBody[CronSearch], principal: CurrentPrincipal, crons: Service
    ) -> Response[list[Any]]:
        """Newest first; totals are in the ``X-Pagination-*`` headers."""
        found, total = await crons.search(principal, data)
        return Response(project(found, data.select), headers=page_headers(total, data.offset, len(found)))

    @post("/runs/crons/count", status_code=200, opt=READS, summary="Count crons")
    async def count(self, data: JSONBody[CronSearch], principal: CurrentPrincipal, crons: Service) -> int:
        """Count all crons that match a search."""
        return await crons.count(principal, data)

    @get("/runs/crons/times", opt=READS, summary="The next times of a schedule")
    async def times(self, schedule: Schedule, timezone: Timezone = None, limit: Times = 5) -> list[datetime]:
        """Return when a schedule is due next, in UTC: to check it before it is used."""
        return await asyncio.to_thread(upcoming, schedule, timezone, now(), limit)  # rare times take 50 ms to find

    @get("/runs/crons/{cron_id:str}", opt=READS, summary="One cron")
    async def get_one(self, cron_id: Id, principal: CurrentPrincipal, crons: Service) -> Cron:
        """Return a cron with the time of its next run."""
        return await crons.get(principal, cron_id)

    @patch("/runs/crons/{cron_id:str}", opt=ADDS_NOTHING, summary="Change a cron")
    async def change(self, cron_id: Id, data: JSONBody[CronPatch], principal: CurrentPrincipal, crons: Service) -> Cron:
        """Omitted fields stay unchanged; an ``end_time`` of null removes the end."""
        return await crons.patch(principal, cron_id, data)

    @delete("/runs/crons/{cron_id:str}", summary="Delete a cron")
    async def delete_one(self, cron_id: Id, principal: CurrentPrincipal, crons: Service) -> None:
        """Delete a cron; the runs that it has created stay."""
        await crons.delete(principal, cron_id)
