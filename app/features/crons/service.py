"""Use cases of crons. Their runs are started by ``app.features.crons.scheduler``."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import Row

from app.base.clock import now
from app.base.errors import Conflict, Invalid, NotFound
from app.base.ids import new_id
from app.base.page_bounds import check_page
from app.engine.structs import RunCreate, kwargs_of
from app.features.assistants.service import AssistantService
from app.features.crons import queries
from app.features.crons.schedule import first_slot
from app.features.crons.structs import (
    Cron,
    CronCreate,
    CronPatch,
    CronSearch,
    Payload,
    StoredPayload,
    check_completion,
    run_of,
)
from app.features.runs.creation import RunFactory, RunRequester
from app.infra.db.columns import from_row
from app.infra.db.engine import Database
from app.security.access.structs import MetadataFilter, Principal
from app.security.idempotency.queries import once
from app.security.idempotency.structs import IdempotencyKey

TIMES = {"schedule", "timezone", "end_time", "enabled"}
"""The fields that determine when runs are due."""

encode = msgspec.json.Encoder().encode


class CronService:
    """Crons of all tenants.

    ``clock`` defines what is past. ``max_crons``: crons per tenant (0: unlimited), unless its own limits say otherwise.
    """

    def __init__(
        self,
        database: Database,
        assistants: AssistantService,
        creation: RunFactory,
        clock: Callable[[], datetime] = now,
        *,
        max_crons: int = 0,
    ) -> None:
        self._max_crons = max_crons
        self._database = database
        self._assistants = assistants
        self._creation = creation
        self._clock = clock

    async def create(
        self, principal: Principal, thread_id: UUID | None, body: CronCreate, key: IdempotencyKey | None = None
    ) -> Cron | msgspec.Raw:
        """Create a cron, once per ``key``; without ``thread_id`` each of its runs gets a thread of its own.

        Raises ``Invalid`` for an invalid schedule, time zone, end or input, ``NotFound`` for an unknown assistant or
        thread, ``Conflict`` if the tenant has reached its quota of crons.
        """
        tenant_id = principal.tenant_id
        max_crons = self._max_crons if principal.limits.crons is None else principal.limits.crons
        check_completion(thread_id, body.on_run_completed)
        at = self._clock()
        times = _times(
            at,
            schedule=body.schedule,
            timezone=body.timezone,
            end_time=_end(body.end_time, at),
            enabled=body.enabled is not False,
        )
        fields = {name: getattr(body, name) for name in Payload.__struct_fields__}
        payload = StoredPayload(**fields, **_author(principal))
        on_completed = None if thread_id is not None else body.on_run_completed or "delete"
        cron_id = new_id()
        metadata, by = await self._stamped(principal, cron_id, thread_id, body)
        run = run_of(payload, body.assistant_id, metadata, on_completed)
        entry = await self._creation.entry(tenant_id, thread_id, run, by)
        values = {
            **times,
            "cron_id": cron_id,
            "assistant_id": entry.assistant_id,
            "thread_id": thread_id,
            "on_run_completed": on_completed,
            "payload": encode(payload),
            "metadata": metadata,
        }

        async def make() -> Cron:
            if max_crons and not await queries.below_quota(session, tenant_id, max_crons):
                raise Conflict(f"This tenant has reached its limit of {max_crons} crons: delete one first.")
            if not await queries.hold_assistant(session, tenant_id, entry.assistant_id):
                raise NotFound(f"Assistant with ID {entry.assistant_id} not found")
            session.owned = by.owned
            if thread_id is not None and not await queries.hold_thread(session, tenant_id, thread_id):
                raise NotFound(f"Thread with ID {thread_id} not found")
            return _cron_view(await queries.add(session, tenant_id, values))

        async with self._database.writing(tenant_id) as session:
            return await once(session, tenant_id, key, make)

    async def _stamped(
        self, principal: Principal, cron_id: UUID, thread_id: UUID | None, body: CronCreate
    ) -> tuple[dict[str, Any], RunRequester]:
        """Authorise a new cron; return its stamped metadata and the requester of its runs.

        Raises ``Forbidden``, ``Refused``.
        """
        if principal.rules is None:
            return body.metadata or {}, RunRequester()
        about = {name: getattr(body, name) for name in ("schedule", "end_time", "timezone", "enabled", "assistant_id")}
        payload = {"input": body.input, "metadata": body.metadata or {}}
        _, metadata = await principal.stamp(
            "crons", "create", body.metadata, cron_id=cron_id, thread_id=thread_id, payload=payload, **about
        )
        by = RunRequester(None, principal.rules.user, await self._assistants.reach(principal, body.assistant_id))
        if thread_id is not None:  # a cron on a thread needs the permission to start runs there
            run = RunCreate(assistant_id=body.assistant_id, input=body.input, metadata=metadata)
            by, _ = await self._creation.reach(principal, thread_id, run)
        return metadata or {}, by

    async def get(self, principal: Principal, cron_id: UUID) -> Cron:
        """Return a cron. Raises ``NotFound``."""
        tenant_id = principal.tenant_id
        owned = await principal.permit("crons", "read", cron_id=cron_id)
        async with self._database.reading(tenant_id, owned) as session:
            row = await queries.get(session, tenant_id, cron_id)
        if row is None:
            raise _unknown(cron_id)
        return _cron_view(row)

    async def patch(self, principal: Principal, cron_id: UUID, body: CronPatch) -> Cron:
        """Change a cron from its next run on. Raises as ``create``.

        Its runs act for the user who last changed their request.
        """
        tenant_id = principal.tenant_id
        given = body.given().get("metadata")
        about = {"cron_id": cron_id, "schedule": body.given().get("schedule")}
        owned, metadata = await principal.stamp("crons", "update", given, **about)
        if metadata is not None:
            body = msgspec.structs.replace(body, metadata=metadata)
        async with self._database.reading(tenant_id, owned) as session:
            row = await queries.get(session, tenant_id, cron_id)
        if row is None:
            raise _unknown(cron_id)
        changes = self._changes(row, body, principal)
        if "payload" in changes:  # validated before the transaction, which would need a second connection
            payload = msgspec.json.decode(changes["payload"], type=StoredPayload)
            run = run_of(payload, str(row.assistant_id), {}, row.on_run_completed)
            await self._creation.entry(tenant_id, row.thread_id, run)
            await self._check_reach(principal, row.thread_id, run)
        async with self._database.writing(tenant_id, owned) as session:
            row = await queries.lock(session, tenant_id, cron_id)
            if row is None:
                raise _unknown(cron_id)
            return _cron_view(await queries.change(session, tenant_id, cron_id, self._changes(row, body, principal)))

    async def _check_reach(self, principal: Principal, thread_id: UUID | None, run: RunCreate) -> None:
        """Check that the principal may start the changed run. Raises ``Forbidden``, ``Refused``, ``NotFound``."""
        if principal.rules is None:
            return
        by, _ = await self._creation.reach(principal, thread_id, run)
        await self._assistants.resolve(principal.tenant_id, run.assistant_id, by.assistants)
        if thread_id is not None:
            async with self._database.writing(principal.tenant_id, by.owned) as session:
                if not await queries.hold_thread(session, principal.tenant_id, thread_id):
                    raise NotFound(f"Thread with ID {thread_id} not found")

    def _changes(self, row: Row[Any], body: CronPatch, principal: Principal) -> dict[str, Any]:
        """Return the columns of ``row`` that ``body`` changes. Raises ``Invalid``, ``BadRequest``.

        A cron acts for the user who last changed its request, and depends on the key that did so or enabled it.
        """
        given = body.given()
        check_completion(row.thread_id, given.get("on_run_completed"))
        changes: dict[str, Any] = {}
        if "on_run_completed" in given:
            changes["on_run_completed"] = given["on_run_completed"]
        if "metadata" in given:
            changes["metadata"] = {**row.metadata, **given["metadata"]}
        changed = {name: given[name] for name in Payload.__struct_fields__ if name in given}
        if changed:
            changed |= _author(principal)
        elif given.get("enabled"):
            changed["key_id"] = principal.key_id or ""
        if changed:
            payload = msgspec.structs.replace(msgspec.json.decode(row.payload, type=StoredPayload), **changed)
            run_of(payload, str(row.assistant_id), {}, row.on_run_completed).check()
            changes["payload"] = encode(payload)
        if TIMES & given.keys():
            changes |= self._new_times(row, given)
        return changes

    def _new_times(self, row: Row[Any], given: dict[str, Any]) -> dict[str, Any]:
        """Return the changed time columns; a due slot stays due unless schedule or time zone change."""
        at = self._clock()
        wanted = {name: given.get(name, getattr(row, name)) for name in TIMES}
        if "end_time" in given:
            wanted["end_time"] = _end(given["end_time"], at)
        times = _times(at, **wanted)
        unchanged = (wanted["schedule"], wanted["timezone"]) == (row.schedule, row.timezone)
        if unchanged and wanted["enabled"] and not _after_end(row.next_run_date, wanted["end_time"]):
            times["next_run_date"] = row.next_run_date or times["next_run_date"]
        return times

    async def delete(self, principal: Principal, cron_id: UUID) -> None:
        """Delete a cron; its runs stay. Raises ``NotFound``."""
        tenant_id = principal.tenant_id
        owned = await principal.permit("crons", "delete", cron_id=cron_id)
        async with self._database.writing(tenant_id, owned) as session:
            if not await queries.delete(session, tenant_id, cron_id):
                raise _unknown(cron_id)

    async def search(self, principal: Principal, wanted: CronSearch) -> tuple[list[Cron], int]:
        """Return a page of crons and the total count. Raises ``Invalid``."""
        tenant_id = principal.tenant_id
        check_page(wanted.limit, wanted.offset)
        owned, wanted = await _authorised_search(principal, wanted)
        assistant_id = await self._assistant(tenant_id, wanted)
        async with self._database.reading(tenant_id, owned) as session:
            rows = await queries.search(session, tenant_id, wanted, assistant_id)
            total = await queries.count(session, tenant_id, wanted, assistant_id)
        found = [_cron_view(row) for row in rows]
        if "now" in (wanted.select or ()):
            for cron in found:
                cron.now = self._clock()
        return found, total

    async def count(self, principal: Principal, wanted: CronSearch) -> int:
        """Count matching crons. Raises ``Invalid``."""
        tenant_id = principal.tenant_id
        owned, wanted = await _authorised_search(principal, wanted)
        assistant_id = await self._assistant(tenant_id, wanted)
        async with self._database.reading(tenant_id, owned) as session:
            return await queries.count(session, tenant_id, wanted, assistant_id)

    async def _assistant(self, tenant_id: UUID, wanted: CronSearch) -> UUID | None:
        """Resolve the assistant filter; an unknown id matches no crons."""
        if wanted.assistant_id is None:
            return None
        try:
            return UUID(wanted.assistant_id)
        except ValueError:
            return (await self._assistants.resolve(tenant_id, wanted.assistant_id))[0]


async def _authorised_search(principal: Principal, wanted: CronSearch) -> tuple[MetadataFilter, CronSearch]:
    """Authorise a search; return the principal's metadata filter and the search with stamped metadata."""
    if principal.rules is None:
        return None, wanted
    about = {name: getattr(wanted, name) for name in ("assistant_id", "thread_id", "limit", "offset")}
    owned, metadata = await principal.stamp("crons", "search", wanted.metadata, **about)
    return owned, msgspec.structs.replace(wanted, metadata=metadata)


def _times(
    at: datetime, *, schedule: str, timezone: str | None, end_time: datetime | None, enabled: bool
) -> dict[str, Any]:
    """Return the columns of ``TIMES``, with the first slot after ``at``. Raises ``Invalid``."""
    slot = first_slot(schedule, timezone, at)
    return {
        "schedule": schedule,
        "timezone": timezone,
        "end_time": end_time,
        "enabled": enabled,
        "next_run_date": slot if enabled and not _after_end(slot, end_time) else None,
    }


def _after_end(slot: datetime | None, end_time: datetime | None) -> bool:
    return slot is not None and end_time is not None and slot > end_time


def _end(given: datetime | None, at: datetime) -> datetime | None:
    """Validate an ``end_time`` and convert it to UTC. Raises ``Invalid``."""
    if given is None:
        return None
    try:
        end = (given if given.tzinfo is not None else given.replace(tzinfo=UTC)).astimezone(UTC)
    except OverflowError as error:
        raise Invalid("end_time is out of range.", (("/end_time", "out of range"),)) from error
    if end <= at:
        raise Invalid(f"end_time {end.isoformat()} is in the past.", (("/end_time", "in the past"),))
    return end


def _author(principal: Principal) -> dict[str, Any]:
    """Return the fields of ``StoredPayload`` that identify the user of the runs."""
    return {
        "langgraph_auth_user": None if principal.rules is None else principal.rules.user,
        "langgraph_auth_user_id": principal.user_id if principal.rules is None else "",
        "requested_by": principal.actor,
        "key_id": principal.key_id or "",
    }


def _unknown(cron_id: UUID) -> NotFound:
    return NotFound(f"Cron with ID {cron_id} not found")


def _cron_view(row: Row[Any]) -> Cron:
    try:
        payload = msgspec.json.decode(row.payload, type=StoredPayload)
    except msgspec.MsgspecError:  # its runs fail too; return it, so that it can be deleted
        return from_row(Cron, row, payload={})
    shown = row.payload
    if payload.key_id or payload.requested_by:
        shown = encode(msgspec.structs.replace(payload, key_id="", requested_by=""))
    return from_row(Cron, row, payload=kwargs_of(shown))
