"""Calls of removed runs that must not be repeated, by thread; and webhooks that are due, by tenant.

The column is empty in all rows, so adding it takes no time. The indexes are built while the tables are written to.

Revision ID: 0019
Revises: 0018
"""

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

INDEXES = (
    ("tool_intents_thread_idx", "tool_intents", ("tenant_id", "thread_id"), "thread_id is not null"),
    ("webhook_deliveries_turn_idx", "webhook_deliveries", ("tenant_id", "due_at"), "status = 'pending'"),
)


@contextmanager
def concurrently() -> Iterator[None]:
    """Outside of a transaction. A concurrent build waits for older transactions, and holds up none that come later."""
    with op.get_context().autocommit_block():
        op.execute("set lock_timeout = '15min'")
        yield
        op.execute("set lock_timeout = '10s'")


def upgrade() -> None:
    """Add the column, build the indexes; an attempt after one that failed begins with what that has left."""
    op.execute("alter table tool_intents add column if not exists thread_id uuid")
    op.execute(
        "comment on column tool_intents.thread_id is 'of a run that was removed: where its call must not be repeated'"
    )
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
    """Take them away; what was kept of removed runs goes with the column."""
    with concurrently():
        for name, table, _, _ in INDEXES:
            op.drop_index(name, table, postgresql_concurrently=True, if_exists=True)
    op.execute("delete from tool_intents where thread_id is not null")
    op.drop_column("tool_intents", "thread_id")
