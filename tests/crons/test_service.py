"""Use cases of crons: create, search, change, refuse; crons of another tenant are unknown."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest

from app.base.errors import BadRequest, Invalid, NotFound
from app.base.ids import agent_id, new_id
from app.features.crons.structs import Cron, CronCreate, CronPatch, CronSearch
from app.security.access.structs import Principal
from app.security.idempotency.structs import IdempotencyKey
from tests.crons.replicas import PRINCIPAL, Replica, payload_of, runs_of
from tests.runs.engine import TENANT

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


async def found(replica: Replica, **wanted: Any) -> list[UUID]:
    crons, total = await replica.crons.search(PRINCIPAL, CronSearch(**{"limit": 100, **wanted}))
    assert total == len(crons) == await replica.crons.count(PRINCIPAL, CronSearch(**wanted))
    return [cron.cron_id for cron in crons]


async def test_a_cron_shows_the_fields_it_was_created_with(replica: Replica) -> None:
    cron = await replica.create(
        "0 9 * * MON",
        timezone="Europe/Berlin",
        metadata={"k": "v"},
        context={"a": 1},
        interrupt_before=["agent"],
        multitask_strategy="reject",
        stream_mode=["values", "updates"],
        durability="sync",
    )
    assert cron == await replica.get(cron)
    assert (cron.assistant_id, cron.thread_id, cron.on_run_completed) == (agent_id("echo"), None, "delete")
    assert (cron.schedule, cron.timezone, cron.enabled) == ("0 9 * * MON", "Europe/Berlin", True)
    assert cron.next_run_date == datetime(2026, 3, 9, 8, 0, tzinfo=UTC)
    assert cron.metadata == {"k": "v"}
    assert payload_of(cron) == {
        "input": ["hello"],
        "context": {"a": 1},
        "interrupt_before": ["agent"],
        "multitask_strategy": "reject",
        "stream_mode": ["values", "updates"],
        "durability": "sync",
    }


@pytest.mark.parametrize(
    "fields,error,words",
    [
        ({"schedule": "* * * *"}, Invalid, "use five fields"),
        ({"schedule": "61 * * * *"}, Invalid, "bad minute"),
        ({"schedule": "0 0 30 2 *"}, Invalid, "bad day-of-month"),
        ({"schedule": "0 0 */31 4,6 MON#5"}, Invalid, "matches no future time"),
        ({"timezone": "Mars/Olympus"}, Invalid, "Unknown time zone 'Mars/Olympus'"),
        ({"end_time": NOON}, Invalid, "in the past"),
        ({"end_time": datetime(2026, 3, 2, 11)}, Invalid, "in the past"),
        ({"end_time": datetime.fromisoformat("9999-12-31T23:59:59-14:00")}, Invalid, "out of range"),
        ({"webhook": "http://127.0.0.1/"}, Invalid, "cannot be called"),
        ({"context": {"a": 1}, "config": {"configurable": {"b": 1}}}, BadRequest, "both configurable and context"),
        ({"interrupt_before": ["missing"]}, Invalid, "which is not a node"),
    ],
)
async def test_invalid_fields_are_refused_on_create_and_on_patch(
    replica: Replica, fields: dict[str, Any], error: type[Exception], words: str
) -> None:
    body = {"assistant_id": "echo", "schedule": "* * * * *", "input": ["x"], **fields}
    with pytest.raises(error, match=words):
        await replica.crons.create(Principal(TENANT), None, msgspec.convert(body, CronCreate))
    assert await found(replica) == []
    cron = await replica.create()
    with pytest.raises(error, match=words):
        await replica.crons.patch(PRINCIPAL, cron.cron_id, msgspec.convert(fields, CronPatch))
    assert await replica.get(cron) == cron


async def test_the_assistant_and_the_thread_must_exist(replica: Replica) -> None:
    with pytest.raises(Invalid, match="Invalid assistant: 'unknown'"):
        await replica.crons.create(Principal(TENANT), None, CronCreate(assistant_id="unknown", schedule="* * * * *"))
    with pytest.raises(NotFound, match=r"Assistant with ID .* not found"):
        await replica.crons.create(
            Principal(TENANT), None, CronCreate(assistant_id=str(new_id()), schedule="* * * * *")
        )
    unknown = new_id()
    with pytest.raises(NotFound, match=f"Thread with ID {unknown} not found"):
        await replica.create(thread_id=unknown)
    temporary = await replica.engine.accept("x", temporary=True, delay=600.0)
    with pytest.raises(NotFound):
        await replica.create(thread_id=temporary.thread_id)


async def test_on_run_completed_is_for_crons_without_a_thread(replica: Replica) -> None:
    thread_id = await replica.thread()
    with pytest.raises(Invalid, match="on_run_completed"):
        await replica.create(thread_id=thread_id, on_run_completed="keep")
    cron = await replica.create(thread_id=thread_id)
    assert (cron.thread_id, cron.on_run_completed) == (thread_id, None)
    with pytest.raises(Invalid, match="on_run_completed"):
        await replica.patch(cron, on_run_completed="keep")


async def test_a_change_replaces_what_it_names_and_merges_metadata(replica: Replica) -> None:
    cron = await replica.create(metadata={"a": 1}, context={"x": 1}, end_time=NOON + timedelta(days=1))
    changed = await replica.patch(
        cron,
        metadata={"b": 2},
        input=["other"],
        context=None,
        stream_mode="updates",
        on_run_completed="keep",
        timezone="Asia/Tokyo",
    )
    assert changed.metadata == {"a": 1, "b": 2}
    assert payload_of(changed) == {"input": ["other"], "stream_mode": "updates"}
    assert (changed.on_run_completed, changed.timezone) == ("keep", "Asia/Tokyo")
    assert changed.end_time == cron.end_time
    assert changed.updated_at > cron.updated_at
    assert (await replica.patch(cron, end_time=None, timezone=None)).end_time is None
    assert await replica.patch(cron) == (again := await replica.get(cron))
    assert again.timezone is None


async def test_the_next_run_uses_the_latest_fields_of_the_cron(replica: Replica) -> None:
    cron = await replica.create()
    await replica.patch(cron, input=["changed"], metadata={"n": 1})
    await replica.at(NOON + timedelta(minutes=5))
    (run,) = await runs_of(replica.database)
    assert b"changed" in run["request"]
    assert run["metadata"]["n"] == 1


async def test_crons_are_found_by_assistant_thread_state_and_metadata(replica: Replica) -> None:
    thread_id = await replica.thread()
    one = await replica.create(metadata={"a": 1, "b": {"c": [1, 2]}})
    two = await replica.create(enabled=False)
    three = await replica.create(thread_id=thread_id)
    ids = [cron.cron_id for cron in (three, two, one)]
    assert await found(replica) == await found(replica, assistant_id="echo") == ids
    assert await found(replica, assistant_id=str(agent_id("echo"))) == ids
    assert await found(replica, assistant_id=str(new_id())) == []
    assert await found(replica, thread_id=thread_id) == [three.cron_id]
    assert await found(replica, enabled=False) == [two.cron_id]
    assert await found(replica, metadata={"b": {"c": [2]}}) == [one.cron_id]
    assert await found(replica, sort_by="created_at", sort_order="asc") == ids[::-1]
    assert (await found(replica, sort_by="next_run_date"))[-1] == two.cron_id
    with pytest.raises(Invalid, match="Invalid assistant"):
        await found(replica, assistant_id="unknown")
    page, total = await replica.crons.search(PRINCIPAL, CronSearch(limit=1, offset=1, select=["now"]))
    assert ([cron.cron_id for cron in page], total, page[0].now) == ([two.cron_id], 3, NOON)
    for limit, offset in ((0, 0), (1001, 0), (10, -1)):
        with pytest.raises(Invalid):
            await replica.crons.search(PRINCIPAL, CronSearch(limit=limit, offset=offset))


async def test_a_cron_of_another_tenant_is_unknown(replica: Replica) -> None:
    cron, unknown = await replica.create(), new_id()
    stranger = Principal(new_id())
    for cron_id in (cron.cron_id, unknown):
        for attempt in (
            replica.crons.get(stranger, cron_id),
            replica.crons.patch(stranger, cron_id, CronPatch(enabled=False)),
            replica.crons.delete(stranger, cron_id),
        ):
            with pytest.raises(NotFound, match=f"^Cron with ID {cron_id} not found$"):
                await attempt
    assert (await replica.crons.search(stranger, CronSearch()))[0] == []
    assert await replica.crons.count(stranger, CronSearch()) == 0
    assert await replica.get(cron) == cron
    thread_id = await replica.thread()
    with pytest.raises(NotFound, match=f"Thread with ID {thread_id} not found"):
        await replica.create(thread_id=thread_id, tenant=stranger.tenant_id)


async def test_each_tenants_runs_are_its_own(replica: Replica) -> None:
    stranger = new_id()
    ours, theirs = await replica.create(), await replica.create(tenant=stranger)
    assert await replica.at(NOON + timedelta(minutes=5)) == 2
    for cron, tenant in ((ours, TENANT), (theirs, stranger)):
        assert [run["tenant_id"] for run in await runs_of(replica.database, cron)] == [tenant]


async def test_a_request_that_is_sent_again_with_its_key_makes_one_cron(replica: Replica) -> None:
    key = IdempotencyKey("POST /runs/crons", "k", b"body")
    body = CronCreate(assistant_id="echo", schedule="* * * * *", input=["x"])
    made = await replica.crons.create(Principal(TENANT), None, body, key)
    again = await replica.crons.create(Principal(TENANT), None, body, key)
    assert isinstance(made, Cron)
    assert not isinstance(again, Cron)
    assert str(made.cron_id).encode() in bytes(again)
    assert await found(replica) == [made.cron_id]
