"""Tenants and their API keys."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from app.infra.db.metadata import Timestamp, UUIDType, json_object, metadata, tenant, timestamp

tenants = sa.Table(
    "tenants",
    metadata,
    tenant(),
    sa.Column("name", sa.Text, nullable=False),
    timestamp("created_at"),
    json_object("limits"),
    sa.UniqueConstraint("name"),
)

api_keys = sa.Table(
    "api_keys",
    metadata,
    sa.Column("tenant_id", UUIDType, sa.ForeignKey("tenants.tenant_id", ondelete="CASCADE"), primary_key=True),
    sa.Column("key_id", sa.Text, primary_key=True, comment="the public part of the key"),
    sa.Column("digest", sa.LargeBinary, nullable=False, comment="HMAC-SHA-256 of the secret part under the pepper"),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("scopes", ARRAY(sa.Text), nullable=False, server_default=sa.text("'{}'::text[]")),
    timestamp("created_at"),
    sa.Column("expires_at", Timestamp),
    sa.Column("revoked_at", Timestamp),
    sa.Column("previous_digest", sa.LargeBinary, comment="the secret before the rotation"),
    sa.Column("previous_until", Timestamp),
    sa.Column("user_id", sa.Text, comment="on whose behalf it acts inside the tenant"),
    sa.Column("last_used_at", Timestamp, comment="to the minute"),
    sa.UniqueConstraint("key_id"),
)
