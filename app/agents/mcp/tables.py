"""Accepted lists of tools of MCP servers, of the service; accounts of tenants and people at them."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from app.infra.db.metadata import metadata, tenant, timestamp

mcp_tool_lists = sa.Table(
    "mcp_tool_lists",
    metadata,
    sa.Column("agent", sa.Text, primary_key=True),
    sa.Column("server", sa.Text, primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True, comment="counts the accepted lists from 1", autoincrement=False),
    sa.Column("digest", sa.Text, nullable=False, comment="SHA-256 over the digests of its tools"),
    sa.Column("tools", JSONB, nullable=False, comment="what is pinned of each tool, by name"),
    sa.Column("accepted_by", sa.Text, nullable=False, comment="operator, or service for a first list"),
    timestamp("accepted_at"),
)

mcp_accounts = sa.Table(
    "mcp_accounts",
    metadata,
    tenant(),
    sa.Column("server", sa.Text, primary_key=True),
    sa.Column("user_id", sa.Text, primary_key=True, comment="empty: the account is the tenant's"),
    sa.Column("sealed", sa.LargeBinary, nullable=False, comment="tokens and the pending sign-in, encrypted"),
    sa.Column("state", sa.Text, unique=True, comment="SHA-256 of the pending sign-in's state"),
    timestamp("updated_at"),
)
