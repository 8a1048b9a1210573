"""The SQLAlchemy metadata of all tables, which Alembic reads."""

# ruff: noqa: F401  the imports register the tables
import app.agents.mcp.tables
import app.engine.tables
import app.features.assistants.tables
import app.features.crons.tables
import app.features.documents.tables
import app.features.store.tables
import app.features.webhooks.tables
import app.security.access.tables
import app.security.audit.tables
import app.security.idempotency.tables
import app.security.limits.tables
from app.infra.db.metadata import metadata

__all__ = ["metadata"]
