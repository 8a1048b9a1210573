"""Threads may rest for a while and then keep their newest state alone.

A column of its own: a process of the version before, which runs while this is applied, removes whole threads by
``ttl_minutes``.

Revision ID: 0012
Revises: 0011
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column, which has no default, so no row is rewritten, and an index for those that have it."""
    meaning = "when nothing happened on it for so long, only its newest checkpoint stays"
    op.add_column("threads", sa.Column("keep_minutes", sa.Double, comment=meaning))
    op.create_index("threads_keep_idx", "threads", ["updated_at"], postgresql_where=sa.text("keep_minutes is not null"))


def downgrade() -> None:
    """Take both away: such threads stay as they are."""
    op.drop_index("threads_keep_idx", "threads")
    op.drop_column("threads", "keep_minutes")
