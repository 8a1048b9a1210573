"""Usage of models by day, agent, requester and model.

Only adds: a process of the version before counts nothing here.

Revision ID: 0026
Revises: 0025
"""

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None

CURRENT_TENANT = "nullif(current_setting('app.tenant', true), '')::uuid"


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "usage_by_day",
        sa.Column("tenant_id", sa.UUID(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False, comment="in UTC"),
        sa.Column("agent", sa.Text(), nullable=False, comment="its configured name; empty: outside of runs"),
        sa.Column(
            "requested_by", sa.Text(), nullable=False, comment="the key or user that requested it; empty: unknown"
        ),
        sa.Column("model", sa.Text(), nullable=False, comment="vendor:model; empty: the counts of runs"),
        sa.Column("runs", sa.BigInteger(), server_default=sa.text("0"), nullable=False, comment="that have ended"),
        sa.Column(
            "failed", sa.BigInteger(), server_default=sa.text("0"), nullable=False, comment="with error or timeout"
        ),
        sa.Column("input_tokens", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("spent", sa.Numeric(), server_default=sa.text("0"), nullable=False, comment="dollars"),
        sa.PrimaryKeyConstraint("tenant_id", "day", "agent", "requested_by", "model", name="usage_by_day_pkey"),
    )
    op.execute("alter table usage_by_day enable row level security")
    op.execute("alter table usage_by_day force row level security")
    op.execute("grant select, delete on usage_by_day to agent_app")
    op.execute("grant select, insert, update, delete on usage_by_day to agent_engine")
    op.execute(
        "create policy usage_by_day_tenant on usage_by_day to agent_app"
        f" using (tenant_id = {CURRENT_TENANT}) with check (tenant_id = {CURRENT_TENANT})"
    )
    op.execute("create policy usage_by_day_engine on usage_by_day to agent_engine using (true) with check (true)")


def downgrade() -> None:
    """Drop it."""
    op.drop_table("usage_by_day")
