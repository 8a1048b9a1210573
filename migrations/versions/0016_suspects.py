"""A run whose process died knows which owner that was, so that another server goes on with it where there is one.

The column has no default, so no row is rewritten; a process of the version before leaves it empty.

Revision ID: 0016
Revises: 0015
"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column("runs", sa.Column("last_owner", sa.Uuid, comment="the owner that died with it, or lost it"))


def downgrade() -> None:
    """Take it away."""
    op.drop_column("runs", "last_owner")
