"""Webhooks: the outbox, filled by the database itself whenever a run that has one ends.

Revision ID: 0005
Revises: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

CURRENT_TENANT = "nullif(current_setting('app.tenant', true), '')::uuid"

FILL = """
create function webhooks_fill() returns trigger language plpgsql as $$
begin
  insert into webhook_deliveries (tenant_id, run_id, thread_id, url, host)
  values (new.tenant_id, new.run_id, new.thread_id, new.webhook, coalesce(substring(new.webhook from '://([^/?#]+)'), ''))
  on conflict do nothing;
  return null;
end $$
"""


def upgrade() -> None:
    """Add the column, the table and the trigger."""
    op.add_column("runs", sa.Column("webhook", sa.Text, comment="told when the run has ended"))
    op.create_table(
        "webhook_deliveries",
        sa.Column("tenant_id", sa.UUID(), nullable=False),
        sa.Column("run_id", sa.UUID(), nullable=False),
        sa.Column("thread_id", sa.UUID(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("status", sa.Text(), server_default=sa.text("'pending'"), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column(
            "due_at",
            sa.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="a lease, while it is tried",
        ),
        sa.Column(
            "body", sa.LargeBinary(), nullable=True, comment="what is sent, the same in every attempt; made at the first"
        ),
        sa.Column("answer", sa.Integer(), nullable=True, comment="status code of the last attempt"),
        sa.Column("problem", sa.Text(), nullable=True, comment="why the last attempt failed"),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("ended_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.CheckConstraint(
            "status in ('pending', 'delivered', 'dead')", name="webhook_deliveries_status_check"
        ),
        sa.PrimaryKeyConstraint("tenant_id", "run_id", name="webhook_deliveries_pkey"),
    )
    op.create_index(
        "webhook_deliveries_due_idx", "webhook_deliveries", ["due_at"], postgresql_where=sa.text("status = 'pending'")
    )
    op.create_index("webhook_deliveries_tenant_idx", "webhook_deliveries", ["tenant_id", "created_at"])
    op.execute("alter table webhook_deliveries enable row level security")
    op.execute("alter table webhook_deliveries force row level security")
    op.execute("grant select, insert, update, delete on webhook_deliveries to agent_app, agent_engine")
    op.execute(
        "create policy webhook_deliveries_tenant on webhook_deliveries to agent_app"
        f" using (tenant_id = {CURRENT_TENANT}) with check (tenant_id = {CURRENT_TENANT})"
    )
    op.execute(
        "create policy webhook_deliveries_engine on webhook_deliveries to agent_engine using (true) with check (true)"
    )
    op.execute(FILL)
    op.execute(
        "create trigger webhooks_fill after update of status on runs for each row"
        " when (new.webhook is not null and new.status is distinct from old.status"
        " and new.status in ('success', 'error', 'timeout', 'interrupted')) execute function webhooks_fill()"
    )


def downgrade() -> None:
    """Take it all away."""
    op.execute("drop trigger webhooks_fill on runs")
    op.execute("drop function webhooks_fill()")
    op.drop_table("webhook_deliveries")
    op.drop_column("runs", "webhook")
