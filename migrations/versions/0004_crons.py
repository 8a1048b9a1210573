"""Crons, and which of their times have had a run.

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

CURRENT_TENANT = "nullif(current_setting('app.tenant', true), '')::uuid"

TABLES = ("crons", "cron_slots")


def upgrade() -> None:
    """Add both tables; requests see a tenant's rows, the engine all."""
    op.create_table(
        "crons",
        sa.Column("tenant_id", sa.UUID(), nullable=False),
        sa.Column("cron_id", sa.UUID(), nullable=False),
        sa.Column("assistant_id", sa.UUID(), nullable=False),
        sa.Column("thread_id", sa.UUID(), nullable=True, comment="none: each run gets a thread of its own"),
        sa.Column("schedule", sa.Text(), nullable=False, comment="five fields"),
        sa.Column("timezone", sa.Text(), nullable=True, comment="IANA name; none: UTC"),
        sa.Column("end_time", sa.TIMESTAMP(timezone=True), nullable=True, comment="no later time counts"),
        sa.Column("enabled", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column(
            "on_run_completed", sa.Text(), nullable=True, comment="delete or keep: what becomes of a run's own thread"
        ),
        sa.Column("payload", sa.LargeBinary(), nullable=False, comment="app.crons.structs.Payload as JSON"),
        sa.Column("metadata", JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.Column(
            "next_run_date",
            sa.TIMESTAMP(timezone=True),
            nullable=True,
            comment="none: disabled, or no time is left",
        ),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("enabled or next_run_date is null", name="crons_enabled_check"),
        sa.PrimaryKeyConstraint("cron_id", "tenant_id", name="crons_pkey"),
        sa.ForeignKeyConstraint(
            ["tenant_id", "assistant_id"],
            ["assistants.tenant_id", "assistants.assistant_id"],
            name="crons_tenant_id_fkey",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["thread_id", "tenant_id"],
            ["threads.thread_id", "threads.tenant_id"],
            name="crons_thread_id_fkey",
            ondelete="CASCADE",
        ),
    )
    op.create_index(
        "crons_due_idx", "crons", ["next_run_date"], postgresql_where=sa.text("next_run_date is not null")
    )
    op.create_index("crons_tenant_id_created_at_idx", "crons", ["tenant_id", "created_at"])
    op.create_index("crons_tenant_id_assistant_id_idx", "crons", ["tenant_id", "assistant_id"])
    op.create_index(
        "crons_thread_idx", "crons", ["thread_id", "tenant_id"], postgresql_where=sa.text("thread_id is not null")
    )
    op.create_table(
        "cron_slots",
        sa.Column("tenant_id", sa.UUID(), nullable=False),
        sa.Column("cron_id", sa.UUID(), nullable=False),
        sa.Column("slot", sa.TIMESTAMP(timezone=True), nullable=False, comment="the time of the schedule"),
        sa.Column("run_id", sa.UUID(), nullable=True, comment="the run that was made for it"),
        sa.Column("problem", sa.Text(), nullable=True, comment="why none was made"),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "cron_id", "slot", name="cron_slots_pkey"),
        sa.ForeignKeyConstraint(
            ["cron_id", "tenant_id"],
            ["crons.cron_id", "crons.tenant_id"],
            name="cron_slots_cron_id_fkey",
            ondelete="CASCADE",
        ),
    )
    for table in TABLES:
        op.execute(f"alter table {table} enable row level security")
        op.execute(f"alter table {table} force row level security")
        op.execute(f"grant select, insert, update, delete on {table} to agent_app, agent_engine")
        op.execute(
            f"create policy {table}_tenant on {table} to agent_app"
            f" using (tenant_id = {CURRENT_TENANT}) with check (tenant_id = {CURRENT_TENANT})"
        )
        op.execute(f"create policy {table}_engine on {table} to agent_engine using (true) with check (true)")


def downgrade() -> None:
    """Take both away."""
    for table in reversed(TABLES):
        op.drop_table(table)
