"""Spending on models, one row per tenant and day, whose it was, and stored bytes, one row per tenant."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from app.infra.db.metadata import Timestamp, metadata, tenant

spending = sa.Table(
    "spending",
    metadata,
    tenant(),
    sa.Column("day", sa.Date, primary_key=True, comment="in UTC"),
    sa.Column("reserved", sa.Numeric, nullable=False, server_default=sa.text("0"), comment="dollars, by live runs"),
    sa.Column("spent", sa.Numeric, nullable=False, server_default=sa.text("0"), comment="dollars"),
    sa.Column("tokens", sa.BigInteger, nullable=False, server_default=sa.text("0")),
)

usage_by_day = sa.Table(
    "usage_by_day",
    metadata,
    tenant(),
    sa.Column("day", sa.Date, primary_key=True, comment="in UTC"),
    sa.Column("agent", sa.Text, primary_key=True, comment="its configured name; empty: outside of runs"),
    sa.Column("requested_by", sa.Text, primary_key=True, comment="the key or user that requested it; empty: unknown"),
    sa.Column("model", sa.Text, primary_key=True, comment="vendor:model; empty: the counts of runs"),
    sa.Column("runs", sa.BigInteger, nullable=False, server_default=sa.text("0"), comment="that have ended"),
    sa.Column("failed", sa.BigInteger, nullable=False, server_default=sa.text("0"), comment="with error or timeout"),
    sa.Column("input_tokens", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("output_tokens", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("spent", sa.Numeric, nullable=False, server_default=sa.text("0"), comment="dollars"),
)

storage_usage = sa.Table(
    "storage_usage",
    metadata,
    tenant(),
    sa.Column("bytes", sa.BigInteger, nullable=False, server_default=sa.text("0"), comment="of all kinds"),
    sa.Column("by_kind", JSONB, nullable=False, server_default=sa.text("'{}'::jsonb"), comment="kind → bytes"),
    sa.Column("share", sa.Double, nullable=False, server_default=sa.text("0"), comment="of the limit; 1: full"),
    sa.Column("measured_at", Timestamp),
    sa.Column("next_at", Timestamp, nullable=False, server_default=sa.func.now()),
    sa.Column("walk", JSONB, comment="how far the measurement under way has come"),
    sa.Index("storage_usage_share_idx", "share"),
    sa.Index("storage_usage_next_idx", "next_at"),
)
"""Only tenants with a storage limit have a row."""
