"""Runs know where in a trace they were asked for, so that whoever executes them goes on with it.

Revision ID: 0009
Revises: 0008
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; it has no default, so no row is rewritten."""
    op.add_column("runs", sa.Column("traceparent", sa.Text, comment="where in a trace it was asked for"))


def downgrade() -> None:
    """Take it away."""
    op.drop_column("runs", "traceparent")
