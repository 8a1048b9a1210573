"""Retention: how far the walks over tables have come, and the right to remove old transitions of deleted runs.

The engine may delete a transition only once it is a day old: a restrictive policy, on top of those that allow.

Revision ID: 0014
Revises: 0013
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

WALKS = ("events", "runs", "transitions", "audit", "threads", "history")


def upgrade() -> None:
    """Add a small table and a policy: no other table is locked for longer than a moment."""
    marks = op.create_table(
        "retention_marks",
        sa.Column("name", sa.Text(), nullable=False, comment="which walk (app.runs.sweeps)"),
        sa.Column("place", sa.Text(), server_default=sa.text("''"), nullable=False, comment="the last key it looked at"),
        sa.Column("done", sa.Boolean(), server_default=sa.text("false"), nullable=False, comment="it came to the end"),
        sa.Column("started_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("name", name="retention_marks_pkey"),
    )
    op.bulk_insert(marks, [{"name": name} for name in WALKS])
    op.execute("grant select on retention_marks to agent_app")
    op.execute("grant select, update on retention_marks to agent_engine")
    op.execute("grant delete on run_transitions to agent_engine")
    op.execute(
        "create policy run_transitions_age on run_transitions as restrictive for delete to agent_engine"
        " using (at < now() - interval '1 day')"
    )


def downgrade() -> None:
    """Take all of it away."""
    op.execute("drop policy run_transitions_age on run_transitions")
    op.execute("revoke delete on run_transitions from agent_engine")
    op.drop_table("retention_marks")
