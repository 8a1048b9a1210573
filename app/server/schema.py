"""The SQLAlchemy metadata of all tables, which Alembic reads."""

from app.infra.db.metadata import metadata

__all__ = ["metadata"]
