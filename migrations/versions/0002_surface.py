"""What the whole surface of one process keeps: questions and answers, rollbacks, lifetimes, idempotency keys.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

CURRENT_TENANT = "nullif(current_setting('app.tenant', true), '')::uuid"

COLUMNS = (
    ("threads", sa.Column("answered", JSONB, comment="interrupt id → answer, given to work that is not finished yet")),
    (
        "threads",
        sa.Column("before", JSONB, comment="head, status, error, interrupts, answered before live_run: for a rollback"),
    ),
    ("threads", sa.Column("ttl_minutes", sa.Double, comment="the thread goes when nothing happened on it for so long")),
    ("runs", sa.Column("parent_id", sa.UUID, comment="the run whose question this one answers")),
    ("runs", sa.Column("interrupts", JSONB, comment='[{"id", "value"}] that it ended with')),
)


def upgrade() -> None:
    """Add the columns, and the table of keys."""
    for table, column in COLUMNS:
        op.add_column(table, column)
    op.create_index(
        "threads_ttl_idx", "threads", ["updated_at"], postgresql_where=sa.text("ttl_minutes is not null")
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("tenant_id", sa.UUID(), nullable=False),
        sa.Column("route", sa.Text(), nullable=False, comment="method and path of the request"),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False, comment="SHA-256 of the body"),
        sa.Column("run_id", sa.UUID(), nullable=True, comment="the run it made; the nil UUID for other things"),
        sa.Column("thread_id", sa.UUID(), nullable=True, comment="the thread of that run"),
        sa.Column("answer", sa.LargeBinary(), nullable=True, comment="the first answer's body; none while it is made"),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "route", "key", name="idempotency_keys_pkey"),
    )
    op.create_index("idempotency_keys_created_at_idx", "idempotency_keys", ["created_at"])
    op.create_index(
        "idempotency_keys_thread_idx",
        "idempotency_keys",
        ["tenant_id", "thread_id"],
        postgresql_where=sa.text("thread_id is not null"),
    )
    op.execute("alter table idempotency_keys enable row level security")
    op.execute("alter table idempotency_keys force row level security")
    op.execute("grant select, insert, update, delete on idempotency_keys to agent_app, agent_engine")
    op.execute(
        "create policy idempotency_keys_tenant on idempotency_keys to agent_app"
        f" using (tenant_id = {CURRENT_TENANT}) with check (tenant_id = {CURRENT_TENANT})"
    )
    op.execute("create policy idempotency_keys_engine on idempotency_keys to agent_engine using (true) with check (true)")


def downgrade() -> None:
    """Take it all away."""
    op.drop_table("idempotency_keys")
    op.drop_index("threads_ttl_idx", "threads")
    for table, column in reversed(COLUMNS):
        op.drop_column(table, column.name)
