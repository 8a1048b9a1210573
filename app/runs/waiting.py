"""How many runs wait for their turn, and for how long the oldest has; which of those under way nobody works on."""

from app.base.tasks import Tasks
from app.db.engine import Database
from app.telemetry.meters import Meters

EVERY_SECONDS = 5.0
MOST = 10_000
"""Runs that are looked at: a queue that is longer is told as being so long."""

_QUEUE = """
select count(*) as depth, coalesce(extract(epoch from now() - min(available_at)), 0)::float8 as age
from (select available_at from runs where status = 'pending' and available_at <= now() limit $1) as due
"""
ORPHANED_SECONDS = 5.0
"""How long after its end a lease counts as not renewed: others look for such runs more often than that."""
_UNDER_WAY = """
select count(*) filter (where lease_until < now() - make_interval(secs => $1)) as orphaned,
  coalesce(extract(epoch from now() - min(started_at)), 0)::float8 as age
from runs where status = 'running'
"""


class Waiting:
    """Looks at the queue, whose length is the same for every process that asks."""

    def __init__(self, database: Database, meters: Meters) -> None:
        self._database = database
        self._meters = meters
        self._tasks = Tasks("waiting")

    def start(self) -> None:
        """Begin to look."""
        self._tasks.repeat(self.look, EVERY_SECONDS, name="look")

    async def aclose(self) -> None:
        """Look no more."""
        await self._tasks.aclose()

    async def look(self) -> None:
        """Look once."""
        async with self._database.engine_connection() as connection:
            queue = await connection.fetchrow(_QUEUE, MOST)
            under_way = await connection.fetchrow(_UNDER_WAY, ORPHANED_SECONDS)
        self._meters.queue_depth.set(queue["depth"])
        self._meters.queue_age.set(queue["age"])
        self._meters.runs_orphaned.set(under_way["orphaned"])
        self._meters.oldest_run.set(under_way["age"])
