"""The events of a run, which other protocols project: the same live, in another process, and in a replay."""

import asyncio

import msgspec
import pytest

from app.agents.port import RunContext, RunOutcome
from app.domain.event_id import EventId
from app.domain.events import Custom, Ended, Event, InputApplied, MessageAdded, MessageDelta, RunStarted, StepCommitted
from app.engine.entries import ClaimedRun
from app.engine.streams.feed import Feed, FeedTruncated
from app.engine.streams.frames import MODES
from app.infra.db.engine import Database
from tests.runs.engine import TENANT, Engine, SteeredAgent, engine_on, fetch, step
from tests.runs.test_processes import two

MODE_SETS = [["values"], ["custom"], ["tasks"], ["messages-tuple", "updates", "values", "custom"], list(MODES)]


async def chatty(context: RunContext) -> RunOutcome:
    """Two steps, with every kind of event in between."""
    for text in ("one", "two"):
        context.emit(MessageDelta(message_id=f"m-{text}", node="agent", step=context.step, text=text))
        context.emit(Custom(data=msgspec.Raw(b'"%s"' % text.encode())))
        context.emit(MessageAdded("tools", context.step, msgspec.Raw(b'{"type":"tool","content":"x"}')))
        await context.commit(step(text))
    return RunOutcome()


async def events_of(engine: Engine, run: ClaimedRun, found: list[Event] | None = None) -> list[Event]:
    found = [] if found is None else found
    async with asyncio.timeout(40):
        async for batch in engine.streams.follow_events(TENANT, run.run_id):
            found += batch
    return found


@pytest.mark.parametrize("modes", MODE_SETS, ids=",".join)
async def test_events_are_the_same_live_elsewhere_and_in_a_replay(database: Database, modes: list[str]) -> None:
    may = asyncio.Event()

    async def waiting(context: RunContext) -> RunOutcome:
        await may.wait()
        return await chatty(context)

    async with two(database, SteeredAgent("steered", waiting)) as (api, worker):
        run = await api.begin("x", agent="steered", modes=modes)
        readers = [asyncio.ensure_future(events_of(engine, run)) for engine in (worker, api)]
        await asyncio.sleep(0)
        may.set()
        here, elsewhere = await asyncio.gather(*readers)
    async with engine_on(database, SteeredAgent("steered", chatty)) as another:
        replayed = await events_of(another, run)
    assert here == elsewhere == replayed
    kinds = [type(event) for event in here]
    assert (kinds[0], kinds[-1]) == (RunStarted, Ended)
    assert (kinds.count(Custom), kinds.count(StepCommitted)) == (2, 2)
    shown = 2 if {"messages-tuple", "messages", "events"} & set(modes) else 0
    assert (kinds.count(MessageDelta), kinds.count(MessageAdded)) == (shown, shown)


async def test_frames_of_a_process_that_sends_no_events_are_read_from_the_log(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As during an upgrade, when the owner is of the version before."""
    monkeypatch.setattr("app.engine.streams.frame_transport.encode_events", lambda _: None)
    may = asyncio.Event()

    async def waiting(context: RunContext) -> RunOutcome:
        await may.wait()
        return await chatty(context)

    async with two(database, SteeredAgent("steered", waiting)) as (api, _):
        run = await api.begin("x", agent="steered")
        reader = asyncio.ensure_future(events_of(api, run))
        await asyncio.sleep(0)
        may.set()
        events = await reader
    assert isinstance(events[-1], Ended)
    assert [event.node for event in events if isinstance(event, StepCommitted)] == ["agent", "agent"]


def test_events_before_the_buffer_are_left_to_the_log() -> None:
    feed = Feed()
    feed.open(9, 5)
    with pytest.raises(FeedTruncated):
        feed.take_events(EventId(9, 3))


async def test_an_event_without_a_frame_is_not_lost_between_two_owners(database: Database) -> None:
    """The last step of the first owner shows in no stream mode, so its frame would have been the next one."""
    may = asyncio.Event()

    async def first_owner(context: RunContext) -> RunOutcome:
        context.emit(Custom(data=msgspec.Raw(b'"begun"')))
        await context.commit(step("one"))
        await may.wait()
        return RunOutcome()

    async def second_owner(context: RunContext) -> RunOutcome:
        await may.wait()
        context.emit(Custom(data=msgspec.Raw(b'"again"')))
        return RunOutcome(step=step("two"))

    async with engine_on(database, SteeredAgent("steered", second_owner), max_runs=0, sweeping=True) as api:
        lost = Engine(database, SteeredAgent("steered", first_owner), max_runs=1)
        await lost.start(sweeping=True)
        run = await lost.begin("x", agent="steered", modes=["custom"])
        seen: list[Event] = []
        reader = asyncio.ensure_future(events_of(api, run, seen))
        async with asyncio.timeout(20):
            while not await fetch(database, "select 1 from steps where node = 'agent'"):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await fetch(database, "update runs set lease_until = now() - interval '1 second'")
        async with engine_on(database, SteeredAgent("steered", second_owner), sweeping=True) as other:
            async with asyncio.timeout(20):
                while RunStarted(str(run.run_id), 2) not in seen:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            may.set()
            live = await reader
            assert live == await events_of(other, run)
        await lost.stop()
    assert [type(event) for event in live].count(StepCommitted) == 2


async def test_a_run_whose_log_has_expired_is_shown_from_its_steps_and_checkpoints(database: Database) -> None:
    async with engine_on(database, SteeredAgent("steered", chatty)) as engine:
        run = await engine.begin("x", agent="steered", modes=["values", "tasks"])
        live = await events_of(engine, run)
        await fetch(database, "delete from events")
        shown = await events_of(engine, run)
    assert [type(event) for event in shown] == [RunStarted, InputApplied, StepCommitted, StepCommitted, Ended]

    def steps(events: list[Event]) -> list[tuple[int, str, str]]:
        return [(one.step, one.checkpoint_id, one.node) for one in events if isinstance(one, StepCommitted)]

    assert steps(shown) == steps(live)
    assert [one.move.parent_id for one in shown if isinstance(one, StepCommitted) and one.move] == [
        one.move.parent_id for one in live if isinstance(one, StepCommitted) and one.move
    ]
