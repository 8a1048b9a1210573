"""Indexes of large tables, built while these are written to: copies by their origin, and runs that died with a process.

A build that fails leaves an invalid index behind: the next attempt removes it first.

Revision ID: 0017
Revises: 0016
"""

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

SUSPECT = "status = 'pending' and (reason = 'recovered' or reason = 'cut' and attempts > 1)"

INDEXES = (
    ("threads_lineage_idx", "threads", ("tenant_id", "lineage"), "lineage is not null"),
    ("runs_suspect_idx", "runs", ("attempts", "available_at"), SUSPECT),
)


@contextmanager
def concurrently() -> Iterator[None]:
    """Outside of a transaction. A concurrent build waits for older transactions, and holds up none that come later."""
    with op.get_context().autocommit_block():
        op.execute("set lock_timeout = '15min'")
        yield
        op.execute("set lock_timeout = '10s'")


def upgrade() -> None:
    """Build the indexes."""
    with concurrently():
        for name, table, columns, where in INDEXES:
            invalid = f"select 1 from pg_index where indexrelid = to_regclass('{name}') and not indisvalid"
            if op.get_bind().execute(sa.text(invalid)).first() is not None:
                op.drop_index(name, table, postgresql_concurrently=True)
            op.create_index(
                name,
                table,
                [*columns],
                postgresql_where=sa.text(where),
                postgresql_concurrently=True,
                if_not_exists=True,
            )


def downgrade() -> None:
    """Take them away."""
    with concurrently():
        for name, table, _, _ in INDEXES:
            op.drop_index(name, table, postgresql_concurrently=True, if_exists=True)
