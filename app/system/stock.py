"""How large the database has become, and the parts of it that grow."""

import time
from collections.abc import Callable

from app.db.engine import Database
from app.telemetry.meters import Meters

EVERY_SECONDS = 60.0

PARTS = {
    "checkpoints": "^checkpoint",
    "runs": "^(runs|steps|tool_intents)$",
    "transitions": "^run_transitions$",
    "records": "^(audit_log|idempotency_keys|webhook_deliveries)$",
    "events": "^(events|live_frames)$",
    "store": "^store_",
}
"""Patterns of the names of tables, which count with their indexes, by what they hold."""

_SIZES = """
select $1 as part, pg_database_size(current_database())::float8 as bytes
union all
select part, sum(pg_total_relation_size(c.oid))::float8
from unnest($2::text[], $3::text[]) as t (part, pattern)
join pg_class c on c.relname ~ pattern and c.relkind = 'r' and c.relnamespace = current_schema()::regnamespace
group by part
"""


class Stock:
    """Looks once a minute, however often it is asked to; every process sees the same. ``clock`` counts seconds."""

    def __init__(self, database: Database, meters: Meters, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._meters = meters
        self._clock = clock
        self._due = clock()

    async def look(self) -> None:
        """Look, if it is time."""
        if self._clock() < self._due:
            return
        self._due = self._clock() + EVERY_SECONDS
        async with self._database.engine_connection() as connection:
            sizes = await connection.fetch(_SIZES, "database", list(PARTS), list(PARTS.values()))
        for row in sizes:
            self._meters.storage_size.set(row["bytes"], row["part"])
