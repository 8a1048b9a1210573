"""What each tenant stores, as measured: kept by a sweep for tenants that have a limit on stored bytes.

Only adds: a process of the version before neither reads nor writes any of it. The engine may read which limits tenants
have, and the sizes of versions of assistants.

Revision ID: 0018
Revises: 0017
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

CURRENT_TENANT = "nullif(current_setting('app.tenant', true), '')::uuid"


def upgrade() -> None:
    """Add a small table, and two rights to read."""
    op.create_table(
        "storage_usage",
        sa.Column("tenant_id", sa.UUID(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), server_default=sa.text("0"), nullable=False, comment="of all kinds"),
        sa.Column("by_kind", JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False, comment="kind → bytes"),
        sa.Column("share", sa.Double(), server_default=sa.text("0"), nullable=False, comment="of the limit; 1: full"),
        sa.Column("measured_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("next_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("walk", JSONB(), nullable=True, comment="how far the measurement under way has come"),
        sa.PrimaryKeyConstraint("tenant_id", name="storage_usage_pkey"),
    )
    op.create_index("storage_usage_share_idx", "storage_usage", ["share"])
    op.create_index("storage_usage_next_idx", "storage_usage", ["next_at"])
    op.execute("alter table storage_usage enable row level security")
    op.execute("alter table storage_usage force row level security")
    op.execute("grant select on storage_usage to agent_app")
    op.execute("grant select, insert, update, delete on storage_usage to agent_engine")
    op.execute(
        "create policy storage_usage_tenant on storage_usage to agent_app"
        f" using (tenant_id = {CURRENT_TENANT}) with check (tenant_id = {CURRENT_TENANT})"
    )
    op.execute("create policy storage_usage_engine on storage_usage to agent_engine using (true) with check (true)")
    op.execute("grant select (tenant_id, name, limits) on tenants to agent_engine")
    op.execute("create policy tenants_engine on tenants for select to agent_engine using (true)")
    op.execute("grant select on assistant_versions to agent_engine")
    op.execute("create policy assistant_versions_engine on assistant_versions for select to agent_engine using (true)")


def downgrade() -> None:
    """Take it all away."""
    op.execute("drop policy assistant_versions_engine on assistant_versions")
    op.execute("revoke select on assistant_versions from agent_engine")
    op.execute("drop policy tenants_engine on tenants")
    op.execute("revoke select (tenant_id, name, limits) on tenants from agent_engine")
    op.drop_table("storage_usage")
