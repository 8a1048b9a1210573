"""What is done for the store of all tenants in the background: items whose time is over go, missing vectors come."""

from app.base.tasks import Tasks
from app.db.batches import repeat_deletion
from app.db.engine import Database
from app.store.backfill import Backfill
from app.store.queries import SWEEP
from app.store.versions import LOOK_SECONDS

SWEEP_SECONDS = 60.0


class Keeping:
    """Keeps the store as it should be."""

    def __init__(self, database: Database, backfill: Backfill) -> None:
        self._database = database
        self._backfill = backfill
        self._tasks = Tasks("store")
        self.aclose = self._tasks.aclose

    def start(self) -> None:
        """Sweep every minute, look for missing vectors every few seconds."""
        self._tasks.repeat(self._backfill.work, LOOK_SECONDS, name="backfill")
        self._tasks.repeat(self.sweep, SWEEP_SECONDS, name="sweep")

    async def sweep(self) -> int:
        """Remove items whose time is over; how many."""
        return await repeat_deletion(self._database, "store items", SWEEP)
