"""Who follows a thread hears of its next run, even where the signal of it was lost."""

from app.base.ids import new_id
from tests.runs.engine import TENANT, Engine, fetch
from tests.statements import sent_by


async def test_a_thread_whose_signal_was_lost_is_found_again_by_one_statement_for_all(engine: Engine) -> None:
    """Its next run, and its end; who waits for a later run sleeps on."""
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
