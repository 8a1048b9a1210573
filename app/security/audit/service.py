"""Audit log: actions on keys, secrets and decisions, and refused requests.

Events are buffered and written together every second; equal ones are counted. Events of the last second before a
process is killed are lost.
"""

from collections import Counter
from uuid import UUID

from app.base.ids import new_id
from app.base.tasks import Tasks
from app.infra.db.columns import from_row
from app.infra.db.engine import Database
from app.security.access.structs import AuditEvent
from app.security.audit import queries
from app.security.audit.structs import Entry

FLUSH_SECONDS = 1.0

MAX_PENDING_EVENTS = 1_000
"""Distinct events between two writes. Beyond it, events are counted under one name per action."""

OTHERS = "others"
"""Actor and subject of events beyond the limit."""

MAX_NAME_LENGTH = 200
"""Characters of an actor or a subject."""


class AuditService:
    """Buffers audit events, writes them in batches, and reads them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._events: Counter[AuditEvent] = Counter()
        self._used: set[str] = set()
        self._tasks = Tasks("audit")

    def start(self) -> None:
        """Start the periodic flush."""
        self._tasks.repeat(self.flush, FLUSH_SECONDS, name="flush")

    async def aclose(self) -> None:
        """Stop, and flush the buffer."""
        await self._tasks.aclose()
        await self.flush()

    def record(self, event: AuditEvent, count: int = 1) -> None:
        """Buffer an event; it is written within a second."""
        if len(self._events) >= MAX_PENDING_EVENTS and event not in self._events:
            event = event._replace(actor=OTHERS, subject=OTHERS)
        self._events[event] += count

    def used(self, key_id: str) -> None:
        """Record that a key was used."""
        self._used.add(key_id)

    async def flush(self) -> None:
        """Write buffered events. Failed writes are retried; the buffer stays bounded."""
        events, used = self._events, self._used
        if not events and not used:
            return
        self._events, self._used = Counter(), set()
        try:
            async with self._database.engine_connection() as connection:
                if used:
                    await connection.execute(queries.USED, list(used))
                if events:
                    await connection.execute(queries.WRITE, *_columns(events))
        except BaseException:  # a cancellation too: the next flush retries
            self._used |= used
            for event, count in events.items():
                self.record(event, count)
            raise

    async def entries(self, tenant_id: UUID, limit: int, before: UUID | None = None) -> list[Entry]:
        """Return the tenant's entries, newest first, older than ``before``."""
        async with self._database.reading(tenant_id) as session:
            rows = await queries.entries(session, tenant_id, limit, before)
        return [from_row(Entry, row) for row in rows]


def _columns(events: "Counter[AuditEvent]") -> list[list[object]]:
    rows = [
        (event.tenant_id, new_id(), event.action, event.actor[:MAX_NAME_LENGTH], event.subject[:MAX_NAME_LENGTH], count)
        for event, count in events.items()
    ]
    return [list(column) for column in zip(*rows, strict=True)]
