"""Accounts of tenants and people at MCP servers: tokens of their sign-ins, encrypted.

Revision ID: 0027
Revises: 0026
"""

import sqlalchemy as sa
from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None

CURRENT_TENANT = "nullif(current_setting('app.tenant', true), '')::uuid"


def upgrade() -> None:
    """Add the table, restricted to the tenant of the session; the engine serves all tenants."""
    op.create_table(
        "mcp_accounts",
        sa.Column("tenant_id", sa.UUID(), nullable=False),
        sa.Column("server", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False, comment="empty: the account is the tenant's"),
        sa.Column("sealed", sa.LargeBinary(), nullable=False, comment="tokens and the pending sign-in, encrypted"),
        sa.Column("state", sa.Text(), nullable=True, comment="SHA-256 of the pending sign-in's state"),
        sa.Column("updated_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "server", "user_id", name="mcp_accounts_pkey"),
        sa.UniqueConstraint("state", name="mcp_accounts_state_key"),
    )
    op.execute("alter table mcp_accounts enable row level security")
    op.execute("alter table mcp_accounts force row level security")
    op.execute("grant select, insert, update, delete on mcp_accounts to agent_app, agent_engine")
    op.execute(
        "create policy mcp_accounts_tenant on mcp_accounts to agent_app"
        f" using (tenant_id = {CURRENT_TENANT}) with check (tenant_id = {CURRENT_TENANT})"
    )
    op.execute("create policy mcp_accounts_engine on mcp_accounts to agent_engine using (true) with check (true)")


def downgrade() -> None:
    """Drop it."""
    op.drop_table("mcp_accounts")
