"""Erasure: a role that may delete the transitions of one tenant's runs. The server does not have it.

Revision ID: 0008
Revises: 0007
"""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

CURRENT_TENANT = "nullif(current_setting('app.tenant', true), '')::uuid"

ROLE = """
do $$
begin
  if not exists (select from pg_roles where rolname = 'agent_eraser') then create role agent_eraser nologin; end if;
  if not (select rolsuper from pg_roles where rolname = current_user) then
    execute format('grant agent_eraser to %I with inherit false, set true', current_user);
  end if;
end $$
"""


def upgrade() -> None:
    """Make the role, which the owner of the tables alone may take."""
    op.execute(ROLE)
    op.execute("grant usage on schema public to agent_eraser")
    op.execute("grant select, delete on run_transitions to agent_eraser")
    op.execute(
        "create policy run_transitions_eraser on run_transitions to agent_eraser"
        f" using (tenant_id = {CURRENT_TENANT}) with check (tenant_id = {CURRENT_TENANT})"
    )


def downgrade() -> None:
    """Take its rights away; the role may serve other databases of the cluster."""
    op.execute("drop policy run_transitions_eraser on run_transitions")
    op.execute("revoke all on run_transitions from agent_eraser")
    op.execute("revoke usage on schema public from agent_eraser")
