"""Threads: a conversation, its turn (``live_run``) and where its values are (``head``, ``last_number``)."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from app.db.base import UUIDType, json_object, metadata, timestamp

threads = sa.Table(
    "threads",
    metadata,
    sa.Column("tenant_id", UUIDType, nullable=False),
    sa.Column("thread_id", UUIDType, nullable=False),
    json_object("metadata"),
    json_object("config"),
    sa.Column("status", sa.Text, nullable=False, server_default=sa.text("'idle'")),
    sa.Column("error", JSONB, comment='{"error", "message"} of the last run, when it failed'),
    sa.Column("interrupts", JSONB, comment='task id → [{"id", "value"}] that wait for a person'),
    sa.Column("answered", JSONB, comment="interrupt id → answer, given to work that is not finished yet"),
    sa.Column("before", JSONB, comment="head, status, error, interrupts, answered before live_run: for a rollback"),
    sa.Column("live_run", UUIDType, comment="the run whose turn it is"),
    sa.Column("queued", sa.Integer, nullable=False, server_default=sa.text("0"), comment="runs waiting for their turn"),
    sa.Column("runs", sa.Integer, nullable=False, server_default=sa.text("0"), comment="ordinal of the newest run"),
    sa.Column("head", UUIDType, comment="the latest checkpoint"),
    sa.Column("last_number", sa.BigInteger, nullable=False, server_default=sa.text("0"), comment="highest log item"),
    sa.Column("temporary", sa.Boolean, nullable=False, server_default=sa.text("false"), comment="goes with its run"),
    sa.Column("ttl_minutes", sa.Double, comment="the thread goes when nothing happened on it for so long"),
    sa.Column(
        "keep_minutes",
        sa.Double,
        comment="when nothing happened on it for so long, only its newest checkpoint stays",
    ),
    sa.Column("lineage", UUIDType, comment="of a copy: the thread that it and the copies beside it began as"),
    timestamp("created_at"),
    timestamp("updated_at"),
    timestamp("state_updated_at"),
    sa.PrimaryKeyConstraint("thread_id", "tenant_id"),
    sa.CheckConstraint("status in ('idle', 'busy', 'interrupted', 'error')", name="status"),
    sa.CheckConstraint("(status = 'busy') = (live_run is not null)", name="busy"),
    sa.Index(None, "tenant_id", "created_at"),
    sa.Index("threads_ttl_idx", "updated_at", postgresql_where=sa.text("ttl_minutes is not null")),
    sa.Index("threads_keep_idx", "updated_at", postgresql_where=sa.text("keep_minutes is not null")),
    sa.Index("threads_lineage_idx", "tenant_id", "lineage", postgresql_where=sa.text("lineage is not null")),
    sa.Index("threads_temporary_idx", "created_at", postgresql_where=sa.text("temporary")),
    sa.Index(None, "metadata", postgresql_using="gin", postgresql_ops={"metadata": "jsonb_path_ops"}),
    postgresql_with={"fillfactor": "80"},
)
