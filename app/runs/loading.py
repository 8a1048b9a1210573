"""The thread as a run finds it."""

from app.checkpoints.cache import StateCache
from app.checkpoints.snapshot import COLUMNS, ITEMS, read
from app.db.engine import Database
from app.domain.state import State
from app.runs.entries import Claimed
from app.runs.execution import Loaded

SNAPSHOT = f"select {COLUMNS} from checkpoints c {ITEMS} where c.tenant_id = $1 and c.thread_id = $2 and c.checkpoint_id = $3"


async def load_thread(database: Database, cache: StateCache, claimed: Claimed) -> Loaded:
    """The state at the thread's head: from the cache, or in one round trip."""
    if claimed.head is None:
        return Loaded(state=State(claimed.last_number))
    if claimed.attempt == 1:
        kept = cache.take(claimed.tenant_id, claimed.thread_id, claimed.head)
        if kept is not None:
            step, state = kept
            return Loaded(state=state, checkpoint_id=claimed.head, step=step)
    async with database.engine_connection() as connection:
        row = await connection.fetchrow(SNAPSHOT, claimed.tenant_id, claimed.thread_id, claimed.head)
    snapshot = read(row, claimed.last_number)
    return Loaded(
        state=snapshot.state,
        checkpoint_id=snapshot.checkpoint_id,
        run_id=snapshot.run_id,
        step=snapshot.step,
        next=snapshot.next,
    )
