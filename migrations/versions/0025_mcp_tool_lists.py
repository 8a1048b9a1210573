"""Accepted lists of tools of MCP servers.

Revision ID: 0025
Revises: 0023
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0025"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add a table of the service, which only grows."""
    op.create_table(
        "mcp_tool_lists",
        sa.Column("agent", sa.Text(), nullable=False),
        sa.Column("server", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False, comment="counts the accepted lists from 1"),
        sa.Column("digest", sa.Text(), nullable=False, comment="SHA-256 over the digests of its tools"),
        sa.Column("tools", JSONB(), nullable=False, comment="what is pinned of each tool, by name"),
        sa.Column("accepted_by", sa.Text(), nullable=False, comment="operator, or service for a first list"),
        sa.Column("accepted_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("agent", "server", "version", name="mcp_tool_lists_pkey"),
    )
    op.execute("grant select on mcp_tool_lists to agent_app")
    op.execute("grant select, insert on mcp_tool_lists to agent_engine")


def downgrade() -> None:
    """Drop it."""
    op.drop_table("mcp_tool_lists")
