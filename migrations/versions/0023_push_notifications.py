"""Push notifications: where news of a run, and of the runs that continue it, are sent to, and their outbox.

The database fills the outbox itself, whichever process ends a run. A process of the version before leaves both tables
alone.

Revision ID: 0023
Revises: 0020
"""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0020"
branch_labels = None
depends_on = None

CURRENT_TENANT = "nullif(current_setting('app.tenant', true), '')::uuid"

FILL = """
create function push_fill() returns trigger language plpgsql as $$
begin
  if exists (select from push_configs c where c.tenant_id = new.tenant_id and c.thread_id = new.thread_id) then
    insert into push_deliveries (tenant_id, run_id, thread_id, ended_run, task_id, config_id, url, host)
    with recursive up as (
      select new.run_id as run_id, new.parent_id as parent_id
      union all
      select r.run_id, r.parent_id from up u join runs r on r.tenant_id = new.tenant_id and r.run_id = u.parent_id
    )
    select new.tenant_id, md5(new.run_id::text || c.task_id::text || c.config_id)::uuid, new.thread_id, new.run_id,
      c.task_id, c.config_id, c.url, coalesce(substring(c.url from '://([^/?#]+)'), '')
    from push_configs c where c.tenant_id = new.tenant_id and c.thread_id = new.thread_id
      and c.task_id in (select u.run_id from up u)
    on conflict do nothing;
  end if;
  return null;
end $$
"""


def policies(table: str) -> None:
    """Restrict a table to the tenant of the session; the engine serves all tenants."""
    op.execute(f"alter table {table} enable row level security")
    op.execute(f"alter table {table} force row level security")
    op.execute(f"grant select, insert, update, delete on {table} to agent_app, agent_engine")
    op.execute(
        f"create policy {table}_tenant on {table} to agent_app"
        f" using (tenant_id = {CURRENT_TENANT}) with check (tenant_id = {CURRENT_TENANT})"
    )
    op.execute(f"create policy {table}_engine on {table} to agent_engine using (true) with check (true)")


def upgrade() -> None:
    """Add the tables and the trigger."""
    op.create_table(
        "push_configs",
        sa.Column("tenant_id", sa.UUID(), nullable=False),
        sa.Column("thread_id", sa.UUID(), nullable=False),
        sa.Column("task_id", sa.UUID(), nullable=False, comment="the run whose news are sent, and of those that continue it"),
        sa.Column("config_id", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("token", sa.Text(), nullable=True, comment="sent along, for the receiver to check"),
        sa.Column("scheme", sa.Text(), nullable=True, comment="of the header Authorization"),
        sa.Column("credentials", sa.Text(), nullable=True),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["thread_id", "tenant_id"],
            ["threads.thread_id", "threads.tenant_id"],
            name="push_configs_thread_id_fkey",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("tenant_id", "thread_id", "task_id", "config_id", name="push_configs_pkey"),
    )
    op.create_table(
        "push_deliveries",
        sa.Column("tenant_id", sa.UUID(), nullable=False),
        sa.Column("run_id", sa.UUID(), nullable=False, comment="the delivery's own id, as in webhook_deliveries"),
        sa.Column("thread_id", sa.UUID(), nullable=False),
        sa.Column("ended_run", sa.UUID(), nullable=False, comment="the run whose end is sent"),
        sa.Column("task_id", sa.UUID(), nullable=False),
        sa.Column("config_id", sa.Text(), nullable=False),
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
        sa.CheckConstraint("status in ('pending', 'delivered', 'dead')", name="push_deliveries_status_check"),
        sa.PrimaryKeyConstraint("tenant_id", "run_id", name="push_deliveries_pkey"),
    )
    pending = sa.text("status = 'pending'")
    op.create_index("push_deliveries_due_idx", "push_deliveries", ["due_at"], postgresql_where=pending)
    op.create_index("push_deliveries_turn_idx", "push_deliveries", ["tenant_id", "due_at"], postgresql_where=pending)
    policies("push_configs")
    policies("push_deliveries")
    op.execute(FILL)
    op.execute(
        "create trigger push_fill after update of status on runs for each row"
        " when (new.status is distinct from old.status"
        " and new.status in ('success', 'error', 'timeout', 'interrupted')) execute function push_fill()"
    )


def downgrade() -> None:
    """Take it all away."""
    op.execute("drop trigger push_fill on runs")
    op.execute("drop function push_fill()")
    op.drop_table("push_deliveries")
    op.drop_table("push_configs")
