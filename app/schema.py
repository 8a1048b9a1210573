"""Every table of the program: the one metadata that Alembic reads."""

import app.access.tables
import app.assistants.tables
import app.audit.tables
import app.bus.tables
import app.checkpoints.tables
import app.crons.tables
import app.documents.tables
import app.idempotency.tables
import app.limits.tables
import app.runs.tables
import app.store.tables
import app.threads.tables
import app.webhooks.tables  # noqa: F401  the imports register the tables
from app.db.base import metadata

__all__ = ["metadata"]
