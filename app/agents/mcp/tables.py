"""Accepted lists of tools of MCP servers: of the service, not of a tenant."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from app.infra.db.metadata import metadata, timestamp

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
