"""Responses by ``Idempotency-Key``, replayed when a request is retried."""

import sqlalchemy as sa

from app.infra.db.metadata import UUIDType, metadata, tenant, timestamp

idempotency_keys = sa.Table(
    "idempotency_keys",
    metadata,
    tenant(),
    sa.Column("route", sa.Text, primary_key=True, comment="method and path of the request"),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("fingerprint", sa.LargeBinary, nullable=False, comment="SHA-256 of the body"),
    sa.Column("run_id", UUIDType, comment="the run it made; the nil UUID for other things"),
    sa.Column("thread_id", UUIDType, comment="the thread of that run"),
    sa.Column("answer", sa.LargeBinary, comment="the first answer's body; none while it is made"),
    timestamp("created_at"),
    sa.Index(None, "created_at"),
    sa.Index(
        "idempotency_keys_thread_idx", "tenant_id", "thread_id", postgresql_where=sa.text("thread_id is not null")
    ),
)
