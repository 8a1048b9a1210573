"""The audit log: who did what to keys, secrets and decisions, and who was refused.

Notes are taken without waiting and written together every second; equal ones are counted. What a process had heard in
the last second before it was killed is lost.
"""

from collections import Counter
from uuid import UUID

from app.base.ids import new_id
from app.base.tasks import Tasks
from app.infra.db.engine import Database
from app.security.access.structs import AuditEvent
from app.security.audit import queries
from app.security.audit.structs import Entry

FLUSH_SECONDS = 1.0

MAX_PENDING_EVENTS = 1_000
"""Different notes between two writes. A flood beyond it is counted under one name for each action."""

OTHERS = "others"
"""The actor and subject of what is beyond."""

MAX_NAME_LENGTH = 200
"""Characters of an actor or a subject."""


class AuditService:
    """Takes notes (``record``) and tells of them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._notes: Counter[AuditEvent] = Counter()
        self._used: set[str] = set()
        self._tasks = Tasks("audit")

    def start(self) -> None:
        """Begin to write."""
        self._tasks.repeat(self.flush, FLUSH_SECONDS, name="flush")

    async def aclose(self) -> None:
        """Write what is left, and stop."""
        await self._tasks.aclose()
        await self.flush()

    def record(self, note: AuditEvent, count: int = 1) -> None:
        """Take a note; it is written within a second."""
        if len(self._notes) >= MAX_PENDING_EVENTS and note not in self._notes:
            note = note._replace(actor=OTHERS, subject=OTHERS)
        self._notes[note] += count

    def used(self, key_id: str) -> None:
        """A key has let somebody in."""
        self._used.add(key_id)

    async def flush(self) -> None:
        """Write what was heard. What cannot be written now is tried again, and still bounded."""
        notes, used = self._notes, self._used
        if not notes and not used:
            return
        self._notes, self._used = Counter(), set()
        try:
            async with self._database.engine_connection() as connection:
                if used:
                    await connection.execute(queries.USED, list(used))
                if notes:
                    await connection.execute(queries.WRITE, *_columns(notes))
        except BaseException:  # whatever it was: the next try writes them too
            self._used |= used
            for note, count in notes.items():
                self.record(note, count)
            raise

    async def entries(self, tenant_id: UUID, limit: int, before: UUID | None = None) -> list[Entry]:
        """A tenant's entries, the newest first, older than ``before``."""
        async with self._database.reading(tenant_id) as session:
            rows = await queries.entries(session, tenant_id, limit, before)
        return [Entry(**row._mapping) for row in rows]  # noqa: SLF001  public by documentation


def _columns(notes: "Counter[AuditEvent]") -> list[list[object]]:
    rows = [
        (note.tenant_id, new_id(), note.action, note.actor[:MAX_NAME_LENGTH], note.subject[:MAX_NAME_LENGTH], count)
        for note, count in notes.items()
    ]
    return [list(column) for column in zip(*rows, strict=True)]
