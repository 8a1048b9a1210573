"""Additional migrations, for tests of how migrations are applied."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from app.infra.db import migrations, revisions

SOURCE = """
import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = "{name}", "{before}", None, None


def upgrade():
    op.create_table("made_by_{name}", sa.Column("id", sa.Integer))
    {more}


def downgrade():
    op.drop_table("made_by_{name}")
"""

Later = Callable[..., None]


@pytest.fixture
def later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Later:
    """Adds a migration that makes a table to a copy of the program's: ``later("fails", "raise ValueError")``."""
    shutil.copytree(migrations.ROOT / "migrations", tmp_path / "migrations")
    shutil.copy(migrations.ROOT / "alembic.ini", tmp_path)
    monkeypatch.setattr(migrations, "ROOT", tmp_path)

    known = [*revisions.REVISIONS]

    def add(name: str, more: str = "") -> None:
        text = SOURCE.format(name=name, before=known[-1], more=more)
        known.append(name)
        (tmp_path / "migrations" / "versions" / f"{name}.py").write_text(text)
        monkeypatch.setattr(migrations, "REVISIONS", tuple(known))

    return add
