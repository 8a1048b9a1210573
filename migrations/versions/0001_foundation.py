"""Foundation: tenants, keys, assistants, threads, runs, checkpoints, events; roles, policies, transition triggers.

Revision ID: 0001
Revises:
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

APP_TABLES = ("tenants", "api_keys", "assistants", "assistant_versions")
"""Tables of requests alone: the role ``agent_app``, one tenant at a time."""

RUN_TABLES = (
    "threads",
    "runs",
    "run_transitions",
    "steps",
    "tool_intents",
    "events",
    "checkpoints",
    "checkpoint_items",
)
"""Tables that the engine writes in groups over tenants: also the role ``agent_engine``."""

TABLES = APP_TABLES + RUN_TABLES

ROLES = """
do $$
begin
  if not exists (select from pg_roles where rolname = 'agent_app') then create role agent_app nologin; end if;
  if not exists (select from pg_roles where rolname = 'agent_engine') then create role agent_engine nologin; end if;
end $$
"""

GRANT_ROLES = """
do $$
begin
  if not (select rolsuper from pg_roles where rolname = current_user) then
    execute format('grant agent_app, agent_engine to %I with inherit false, set true', current_user);
  end if;
end $$
"""

CURRENT_TENANT = "nullif(current_setting('app.tenant', true), '')::uuid"

RUNS_GUARD = """
create function runs_guard() returns trigger language plpgsql as $$
begin
  if old.status not in ('pending', 'running') then
    raise exception 'run % ended with %: it cannot change', old.run_id, old.status using errcode = 'check_violation';
  end if;
  raise exception 'run %: % cannot become %', old.run_id, old.status, new.status using errcode = 'check_violation';
end $$
"""

RUNS_GUARD_TRIGGER = """
create trigger runs_guard before update on runs for each row
when (old.status not in ('pending', 'running')
      or (old.status = 'pending' and new.status not in ('pending', 'running', 'interrupted')))
execute function runs_guard()
"""

RUNS_BIRTH_TRIGGER = """
create trigger runs_birth before insert on runs for each row
when (new.status not in ('pending', 'running')) execute function runs_unborn()
"""

RUNS_UNBORN = """
create function runs_unborn() returns trigger language plpgsql as $$
begin
  raise exception 'run %: a run cannot begin as %', new.run_id, new.status using errcode = 'check_violation';
end $$
"""

RUNS_RECORD = """
create function runs_record() returns trigger language plpgsql as $$
begin
  if tg_op = 'INSERT' then
    insert into run_transitions (tenant_id, run_id, thread_id, new_status, reason, epoch)
      select tenant_id, run_id, thread_id, status, reason, epoch from new_rows;
  elsif tg_op = 'DELETE' then
    insert into run_transitions (tenant_id, run_id, thread_id, old_status, reason, epoch)
      select tenant_id, run_id, thread_id, status, 'removed', epoch from old_rows;
  else
    insert into run_transitions (tenant_id, run_id, thread_id, old_status, new_status, reason, epoch)
      select n.tenant_id, n.run_id, n.thread_id, o.status, n.status, n.reason, n.epoch
      from new_rows n join old_rows o on (o.tenant_id, o.run_id) = (n.tenant_id, n.run_id)
      where o.status <> n.status or o.epoch <> n.epoch;
  end if;
  return null;
end $$
"""

RUNS_RECORD_TRIGGERS = (
    "create trigger runs_record_insert after insert on runs referencing new table as new_rows"
    " for each statement execute function runs_record()",
    "create trigger runs_record_update after update on runs referencing old table as old_rows new table as new_rows"
    " for each statement execute function runs_record()",
    "create trigger runs_record_delete after delete on runs referencing old table as old_rows"
    " for each statement execute function runs_record()",
)


def upgrade() -> None:
    """Create everything."""
    create_tables()
    op.execute(ROLES)
    op.execute(GRANT_ROLES)
    op.execute("grant usage on schema public to agent_app, agent_engine")
    op.execute("grant select on alembic_version to agent_app, agent_engine")
    for table in TABLES:
        secure(table)
    for statement in (
        RUNS_GUARD,
        RUNS_UNBORN,
        RUNS_RECORD,
        RUNS_GUARD_TRIGGER,
        RUNS_BIRTH_TRIGGER,
        *RUNS_RECORD_TRIGGERS,
    ):
        op.execute(statement)


def secure(table: str) -> None:
    """Let each role see of ``table`` what is its own: a tenant's rows for requests, all run rows for the engine."""
    op.execute(f"alter table {table} enable row level security")
    op.execute(f"alter table {table} force row level security")
    rights = "select, insert" if table == "run_transitions" else "select, insert, update, delete"
    op.execute(f"grant {rights} on {table} to agent_app")
    op.execute(
        f"create policy {table}_tenant on {table} to agent_app"
        f" using (tenant_id = {CURRENT_TENANT}) with check (tenant_id = {CURRENT_TENANT})"
    )
    if table in RUN_TABLES:
        op.execute(f"grant {rights} on {table} to agent_engine")
        op.execute(f"create policy {table}_engine on {table} to agent_engine using (true) with check (true)")
    if table == "assistants":
        op.execute("grant select on assistants to agent_engine")
        op.execute("create policy assistants_engine on assistants for select to agent_engine using (true)")
    if table == "api_keys":
        op.execute(
            "create policy api_keys_lookup on api_keys for select to agent_app"
            " using (key_id = nullif(current_setting('app.key_id', true), ''))"
        )


def create_tables() -> None:
    """Create the tables and their indexes."""
    op.create_table(
        "assistants",
        sa.Column("tenant_id", sa.UUID(), nullable=False),
        sa.Column("assistant_id", sa.UUID(), nullable=False),
        sa.Column("graph_id", sa.Text(), nullable=False, comment="the agent's name in the agents file"),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column(
            "config", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False
        ),
        sa.Column(
            "context", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False
        ),
        sa.Column(
            "metadata", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False
        ),
        sa.Column("version", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "assistant_id", name="assistants_pkey"),
    )
    op.create_index("assistants_tenant_id_created_at_idx", "assistants", ["tenant_id", "created_at"], unique=False)
    op.create_index("assistants_tenant_id_graph_id_idx", "assistants", ["tenant_id", "graph_id"], unique=False)
    op.create_table(
        "checkpoint_items",
        sa.Column("tenant_id", sa.UUID(), nullable=False),
        sa.Column("thread_id", sa.UUID(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False, comment="JSON, or zstd of it (app.checkpoints.codec)"),
        sa.PrimaryKeyConstraint("tenant_id", "thread_id", "number", name="checkpoint_items_pkey"),
    )
    op.create_table(
        "checkpoints",
        sa.Column("tenant_id", sa.UUID(), nullable=False),
        sa.Column("thread_id", sa.UUID(), nullable=False),
        sa.Column("checkpoint_id", sa.UUID(), nullable=False),
        sa.Column("parent_id", sa.UUID(), nullable=True),
        sa.Column("run_id", sa.UUID(), nullable=True, comment="none: written by a client"),
        sa.Column("source", sa.Text(), nullable=False, comment="input, loop, update or fork"),
        sa.Column("step", sa.Integer(), nullable=False, comment="-1 is the first of a thread"),
        sa.Column("next", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("head", sa.LargeBinary(), nullable=False, comment="app.domain.state.Head as JSON"),
        sa.Column("first_items", postgresql.ARRAY(sa.BigInteger()), nullable=False, comment="starts of the item ranges it names"),
        sa.Column("last_items", postgresql.ARRAY(sa.BigInteger()), nullable=False, comment="their ends, inclusive"),
        sa.Column("metadata", postgresql.JSONB(astext_type=sa.Text()), nullable=True, comment="what the writer added"),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "thread_id", "checkpoint_id", name="checkpoints_pkey"),
    )
    op.create_table(
        "events",
        sa.Column("tenant_id", sa.UUID(), nullable=False),
        sa.Column("run_id", sa.UUID(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False, comment="seq of the first frame"),
        sa.Column("body", sa.LargeBinary(), nullable=False, comment="list of app.domain.events.Event as JSON (app.checkpoints.codec)"),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "run_id", "epoch", "seq", name="events_pkey"),
    )
    op.create_table(
        "run_transitions",
        sa.Column("tenant_id", sa.UUID(), nullable=False),
        sa.Column("run_id", sa.UUID(), nullable=False),
        sa.Column("number", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("thread_id", sa.UUID(), nullable=False),
        sa.Column("old_status", sa.Text(), nullable=True, comment="none: the run was made"),
        sa.Column("new_status", sa.Text(), nullable=True, comment="none: the run was removed"),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("at", sa.TIMESTAMP(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "run_id", "number", name="run_transitions_pkey"),
    )
    op.create_table(
        "runs",
        sa.Column("tenant_id", sa.UUID(), nullable=False),
        sa.Column("run_id", sa.UUID(), nullable=False),
        sa.Column("thread_id", sa.UUID(), nullable=False),
        sa.Column("assistant_id", sa.UUID(), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False, comment="counts the runs of the thread from 1"),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("request", sa.LargeBinary(), nullable=False, comment="app.runs.structs.RunRequest as JSON"),
        sa.Column(
            "metadata", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False
        ),
        sa.Column("multitask_strategy", sa.Text(), nullable=False),
        sa.Column(
            "temporary", sa.Boolean(), server_default=sa.text("false"), nullable=False, comment="takes its thread along"
        ),
        sa.Column("epoch", sa.Integer(), nullable=False, comment="raised by every claim"),
        sa.Column("attempts", sa.Integer(), nullable=False, comment="claims that count against a poison run"),
        sa.Column("owner", sa.UUID(), nullable=True, comment="random token of the claim"),
        sa.Column("lease_until", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("cancel", sa.Text(), nullable=True, comment="interrupt or rollback, once asked for"),
        sa.Column("available_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("checkpoint_id", sa.UUID(), nullable=True, comment="the state it ended with"),
        sa.Column("error", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("usage", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("started_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("ended_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.CheckConstraint(
            "status in ('pending', 'running', 'success', 'error', 'timeout', 'interrupted')", name="runs_status_check"
        ),
        sa.PrimaryKeyConstraint("run_id", "tenant_id", name="runs_pkey"),
        postgresql_with={"fillfactor": "80"},
    )
    op.create_index(
        "runs_live_key", "runs", ["tenant_id", "thread_id"], unique=True, postgresql_where=sa.text("status = 'running'")
    )
    op.create_index(
        "runs_pending_idx", "runs", ["available_at"], unique=False, postgresql_where=sa.text("status = 'pending'")
    )
    op.create_index("runs_thread_idx", "runs", ["tenant_id", "thread_id", "ordinal"], unique=False)
    op.create_table(
        "steps",
        sa.Column("tenant_id", sa.UUID(), nullable=False),
        sa.Column("run_id", sa.UUID(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("checkpoint_id", sa.UUID(), nullable=False),
        sa.Column("usage", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "run_id", "step", name="steps_pkey"),
    )
    op.create_table(
        "tenants",
        sa.Column("tenant_id", sa.UUID(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", name="tenants_pkey"),
        sa.UniqueConstraint("name", name="tenants_name_key"),
    )
    op.create_table(
        "threads",
        sa.Column("tenant_id", sa.UUID(), nullable=False),
        sa.Column("thread_id", sa.UUID(), nullable=False),
        sa.Column(
            "metadata", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False
        ),
        sa.Column(
            "config", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False
        ),
        sa.Column("status", sa.Text(), server_default=sa.text("'idle'"), nullable=False),
        sa.Column(
            "error",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=True,
            comment='{"error", "message"} of the last run, when it failed',
        ),
        sa.Column(
            "interrupts",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=True,
            comment='task id → [{"id", "value"}] that wait for a person',
        ),
        sa.Column("live_run", sa.UUID(), nullable=True, comment="the run whose turn it is"),
        sa.Column(
            "queued", sa.Integer(), server_default=sa.text("0"), nullable=False, comment="runs waiting for their turn"
        ),
        sa.Column(
            "runs", sa.Integer(), server_default=sa.text("0"), nullable=False, comment="ordinal of the newest run"
        ),
        sa.Column("head", sa.UUID(), nullable=True, comment="the latest checkpoint"),
        sa.Column(
            "last_number", sa.BigInteger(), server_default=sa.text("0"), nullable=False, comment="highest log item"
        ),
        sa.Column(
            "temporary", sa.Boolean(), server_default=sa.text("false"), nullable=False, comment="goes with its run"
        ),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("state_updated_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("(status = 'busy') = (live_run is not null)", name="threads_busy_check"),
        sa.CheckConstraint("status in ('idle', 'busy', 'interrupted', 'error')", name="threads_status_check"),
        sa.PrimaryKeyConstraint("thread_id", "tenant_id", name="threads_pkey"),
        postgresql_with={"fillfactor": "80"},
    )
    op.create_index(
        "threads_metadata_idx",
        "threads",
        ["metadata"],
        unique=False,
        postgresql_using="gin",
        postgresql_ops={"metadata": "jsonb_path_ops"},
    )
    op.create_index("threads_tenant_id_created_at_idx", "threads", ["tenant_id", "created_at"], unique=False)
    op.create_index("threads_temporary_idx", "threads", ["created_at"], postgresql_where=sa.text("temporary"))
    op.create_table(
        "tool_intents",
        sa.Column("tenant_id", sa.UUID(), nullable=False),
        sa.Column("run_id", sa.UUID(), nullable=False),
        sa.Column("call_id", sa.Text(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False, comment="the step that asked for the call"),
        sa.Column("tool", sa.Text(), nullable=False),
        sa.Column("tool_class", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False, comment="the idempotency key, the same for every attempt"),
        sa.Column("args", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "run_id", "call_id", name="tool_intents_pkey"),
    )
    op.create_table(
        "api_keys",
        sa.Column("tenant_id", sa.UUID(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False, comment="the public part of the key"),
        sa.Column(
            "digest", sa.LargeBinary(), nullable=False, comment="HMAC-SHA-256 of the secret part under the pepper"
        ),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("scopes", postgresql.ARRAY(sa.Text()), server_default=sa.text("'{}'::text[]"), nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.tenant_id"], name="api_keys_tenant_id_fkey", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("tenant_id", "key_id", name="api_keys_pkey"),
        sa.UniqueConstraint("key_id", name="api_keys_key_id_key"),
    )
    op.create_table(
        "assistant_versions",
        sa.Column("tenant_id", sa.UUID(), nullable=False),
        sa.Column("assistant_id", sa.UUID(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("graph_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column(
            "config", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False
        ),
        sa.Column(
            "context", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False
        ),
        sa.Column(
            "metadata", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False
        ),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "assistant_id"],
            ["assistants.tenant_id", "assistants.assistant_id"],
            name="assistant_versions_tenant_id_fkey",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("tenant_id", "assistant_id", "version", name="assistant_versions_pkey"),
    )


def downgrade() -> None:
    """Drop everything but the roles: they may own or serve other databases of the cluster."""
    for table in reversed(TABLES):
        op.drop_table(table)
    for function in ("runs_guard", "runs_unborn", "runs_record"):
        op.execute(f"drop function {function}()")
    op.execute("revoke select on alembic_version from agent_app, agent_engine")
    op.execute("revoke usage on schema public from agent_app, agent_engine")
