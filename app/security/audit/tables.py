"""The audit log, append-only."""

import sqlalchemy as sa

from app.infra.db.metadata import UUIDType, metadata, timestamp

audit_log = sa.Table(
    "audit_log",
    metadata,
    sa.Column("tenant_id", UUIDType, primary_key=True, comment="all zero: of the service itself"),
    sa.Column("entry_id", UUIDType, primary_key=True),
    timestamp("at"),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("actor", sa.Text, nullable=False, comment="the public part of a key, or a user"),
    sa.Column("subject", sa.Text, nullable=False, comment="what it was done to"),
    sa.Column("count", sa.Integer, nullable=False, server_default=sa.text("1"), comment="how often at that time"),
    sa.Index(None, "tenant_id", "at"),
)
