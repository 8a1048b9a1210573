"""Subscribers of a thread learn of its next run, even if its signal was lost."""

from app.base.ids import new_id
from tests.runs.engine import TENANT, Engine, fetch
from tests.statements import sent_by


async def test_threads_with_lost_signals_are_found_by_one_statement(engine: Engine) -> None:
    """Its next run, and its end; waiters for a later run keep waiting."""
    first = await engine.begin("one")
    await engine.result(first)
    feeds, thread = engine.parts.feeds, (TENANT, first.thread_id)
    with feeds.watching(thread, 2) as next_run, feeds.watching((TENANT, new_id()), 1) as gone:
        await fetch(engine.database, "update threads set runs = 2")
        assert not next_run.done()
        async with sent_by(engine.database) as statements:
            await feeds.poll_threads()
        assert len([one for one in statements if "left join threads" in one]) == 1
        assert next_run.done()
        assert gone.done()
    with feeds.watching(thread, 3) as later:
        await feeds.poll_threads()
        assert not later.done()
