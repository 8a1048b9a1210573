"""Access: two live secrets a key, whose it is and when it was used; limits of tenants, what they spend; the audit log.

Revision ID: 0006
Revises: 0005
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

CURRENT_TENANT = "nullif(current_setting('app.tenant', true), '')::uuid"

TABLES = ("audit_log", "spending")


def upgrade() -> None:
    """Add the columns and the tables."""
    op.add_column("api_keys", sa.Column("previous_digest", sa.LargeBinary(), comment="the secret before the rotation"))
    op.add_column("api_keys", sa.Column("previous_until", sa.TIMESTAMP(timezone=True)))
    op.add_column("api_keys", sa.Column("user_id", sa.Text(), comment="on whose behalf it acts inside the tenant"))
    op.add_column("api_keys", sa.Column("last_used_at", sa.TIMESTAMP(timezone=True), comment="to the minute"))
    op.add_column(
        "tenants",
        sa.Column(
            "limits", postgresql.JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False
        ),
    )
    op.create_table(
        "audit_log",
        sa.Column("tenant_id", sa.UUID(), nullable=False, comment="all zero: of the service itself"),
        sa.Column("entry_id", sa.UUID(), nullable=False),
        sa.Column("at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False, comment="the public part of a key, or a user"),
        sa.Column("subject", sa.Text(), nullable=False, comment="what it was done to"),
        sa.Column("count", sa.Integer(), server_default=sa.text("1"), nullable=False, comment="how often at that time"),
        sa.PrimaryKeyConstraint("tenant_id", "entry_id", name="audit_log_pkey"),
    )
    op.create_index("audit_log_tenant_id_at_idx", "audit_log", ["tenant_id", "at"])
    op.create_table(
        "spending",
        sa.Column("tenant_id", sa.UUID(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False, comment="in UTC"),
        sa.Column("reserved", sa.Numeric(), server_default=sa.text("0"), nullable=False, comment="dollars, by live runs"),
        sa.Column("spent", sa.Numeric(), server_default=sa.text("0"), nullable=False, comment="dollars"),
        sa.Column("tokens", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "day", name="spending_pkey"),
    )
    for table in TABLES:
        op.execute(f"alter table {table} enable row level security")
        op.execute(f"alter table {table} force row level security")
        op.execute(
            f"create policy {table}_tenant on {table} to agent_app"
            f" using (tenant_id = {CURRENT_TENANT}) with check (tenant_id = {CURRENT_TENANT})"
        )
        op.execute(f"create policy {table}_engine on {table} to agent_engine using (true) with check (true)")
    op.execute("grant select, insert on audit_log to agent_app")
    op.execute("grant select, insert, delete on audit_log to agent_engine")
    op.execute("grant select on spending to agent_app")
    op.execute("grant select, insert, update, delete on spending to agent_engine")
    op.execute("grant select (tenant_id, key_id, last_used_at), update (last_used_at) on api_keys to agent_engine")
    op.execute("create policy api_keys_engine on api_keys to agent_engine using (true)")
    # who is looked up by a key learns of its tenant's limits by the same statement
    op.execute(
        "create policy tenants_lookup on tenants for select to agent_app using"
        " (tenant_id in (select tenant_id from api_keys"
        " where key_id = nullif(current_setting('app.key_id', true), '')))"
    )


def downgrade() -> None:
    """Take it all away."""
    op.execute("drop policy tenants_lookup on tenants")
    op.execute("drop policy api_keys_engine on api_keys")
    op.execute("revoke all on api_keys from agent_engine")
    op.execute("revoke all (tenant_id, key_id, last_used_at) on api_keys from agent_engine")
    for table in reversed(TABLES):
        op.drop_table(table)
    op.drop_column("tenants", "limits")
    for column in ("last_used_at", "user_id", "previous_until", "previous_digest"):
        op.drop_column("api_keys", column)
