"""The migrations of this program, available without importing Alembic (8 MB per worker)."""

from pathlib import Path

_VERSIONS = Path(__file__).parents[3] / "migrations" / "versions"

REVISIONS = tuple(sorted(path.name.partition("_")[0] for path in _VERSIONS.glob("[0-9]*.py")))
"""Oldest first, by the names of their files; a test compares them with what Alembic finds."""

HEAD = REVISIONS[-1]
