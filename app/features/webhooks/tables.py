"""The outboxes: one delivery for each ended run with a webhook, and for each push configuration of its task."""

from typing import Any

import sqlalchemy as sa

from app.infra.db.metadata import Timestamp, UUIDType, metadata, tenant, timestamp


def _attempts() -> list[sa.Column[Any] | sa.CheckConstraint]:
    """Return what the dispatcher reads and writes of each delivery."""
    return [
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("host", sa.Text, nullable=False, server_default=sa.text("''")),
        sa.Column("status", sa.Text, nullable=False, server_default=sa.text("'pending'")),
        sa.Column("attempts", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column(
            "due_at", Timestamp, nullable=False, server_default=sa.func.now(), comment="a lease, while it is tried"
        ),
        sa.Column("body", sa.LargeBinary, comment="what is sent, the same in every attempt; made at the first"),
        sa.Column("answer", sa.Integer, comment="status code of the last attempt"),
        sa.Column("problem", sa.Text, comment="why the last attempt failed"),
        timestamp("created_at"),
        sa.Column("ended_at", Timestamp),
        sa.CheckConstraint("status in ('pending', 'delivered', 'dead')", name="status"),
    ]


webhook_deliveries = sa.Table(
    "webhook_deliveries",
    metadata,
    tenant(),
    sa.Column("run_id", UUIDType, primary_key=True),
    sa.Column("thread_id", UUIDType, nullable=False),
    *_attempts(),
    sa.Index("webhook_deliveries_due_idx", "due_at", postgresql_where=sa.text("status = 'pending'")),
    sa.Index("webhook_deliveries_turn_idx", "tenant_id", "due_at", postgresql_where=sa.text("status = 'pending'")),
    sa.Index("webhook_deliveries_tenant_idx", "tenant_id", "created_at"),
)

push_configs = sa.Table(
    "push_configs",
    metadata,
    tenant(),
    sa.Column("thread_id", UUIDType, primary_key=True),
    sa.Column(
        "task_id", UUIDType, primary_key=True, comment="the run whose news are sent, and of those that continue it"
    ),
    sa.Column("config_id", sa.Text, primary_key=True),
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("token", sa.Text, comment="sent along, for the receiver to check"),
    sa.Column("scheme", sa.Text, comment="of the header Authorization"),
    sa.Column("credentials", sa.Text),
    timestamp("created_at"),
    sa.ForeignKeyConstraint(
        ["thread_id", "tenant_id"],
        ["threads.thread_id", "threads.tenant_id"],
        name="push_configs_thread_id_fkey",
        ondelete="CASCADE",
    ),
)

push_deliveries = sa.Table(
    "push_deliveries",
    metadata,
    tenant(),
    sa.Column("run_id", UUIDType, primary_key=True, comment="the delivery's own id, as in webhook_deliveries"),
    sa.Column("thread_id", UUIDType, nullable=False),
    sa.Column("ended_run", UUIDType, nullable=False, comment="the run whose end is sent"),
    sa.Column("task_id", UUIDType, nullable=False),
    sa.Column("config_id", sa.Text, nullable=False),
    *_attempts(),
    sa.Index("push_deliveries_due_idx", "due_at", postgresql_where=sa.text("status = 'pending'")),
    sa.Index("push_deliveries_turn_idx", "tenant_id", "due_at", postgresql_where=sa.text("status = 'pending'")),
)
