"""Every table of the program: the one metadata that Alembic reads."""

from app.infra.db.metadata import metadata

__all__ = ["metadata"]
