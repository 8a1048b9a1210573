"""What is swept away: items whose time is over."""

from app.base.tasks import Tasks
from app.db.engine import Database
from app.store.queries import SWEEP

SWEEP_SECONDS = 60.0


class Keeping:
    """Keeps the store of all tenants free of what nobody is shown any more."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._tasks = Tasks("store")
        self.aclose = self._tasks.aclose

    def start(self) -> None:
        """Sweep every minute."""
        self._tasks.repeat(self.sweep, SWEEP_SECONDS, name="sweep")

    async def sweep(self) -> int:
        """Remove items whose time is over; how many."""
        removed = 0
        async with self._database.engine_connection() as connection:
            while count := int((await connection.execute(SWEEP)).rpartition(" ")[2]):
                removed += count
        return removed
