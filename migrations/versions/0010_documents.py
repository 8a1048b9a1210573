"""Documents: what was uploaded, in parts. Their chunks are items of the store, and go with them.

Revision ID: 0010
Revises: 0009
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

CURRENT_TENANT = "nullif(current_setting('app.tenant', true), '')::uuid"

FORGET = """
create function documents_forget_chunks() returns trigger language plpgsql as $$
begin
  delete from store_items where tenant_id = old.tenant_id and namespace = old.namespace;
  return null;
end $$
"""

ANALYZE = """
create function store_analyze(added bigint) returns void
language plpgsql security definer set search_path = public, pg_temp
as $$
declare t regclass;
begin
  for t in select c.oid::regclass from pg_class c
    where c.relname ~ '^store_(items|vectors_[0-9]+)$' and c.relnamespace = 'public'::regnamespace
      and c.relkind = 'r' and c.reltuples < 10 * added
  loop
    execute format('analyze %s', t);
  end loop;
end $$
"""
"""What a large document adds changes how a search is best planned, and autovacuum looks once a minute. Only a table's
owner may look at it anew: this does, where a tenth or more was added."""


def secure(table: str) -> None:
    op.execute(f"alter table {table} enable row level security")
    op.execute(f"alter table {table} force row level security")
    op.execute(f"grant select, insert, update, delete on {table} to agent_app, agent_engine")
    op.execute(
        f"create policy {table}_tenant on {table} to agent_app"
        f" using (tenant_id = {CURRENT_TENANT}) with check (tenant_id = {CURRENT_TENANT})"
    )
    op.execute(f"create policy {table}_engine on {table} to agent_engine using (true) with check (true)")


def upgrade() -> None:
    """Create everything."""
    op.create_table(
        "documents",
        sa.Column("tenant_id", sa.UUID(), nullable=False),
        sa.Column("document_id", sa.UUID(), nullable=False),
        sa.Column("collection", sa.Text(collation="C"), nullable=False),
        sa.Column("namespace", sa.Text(collation="C"), nullable=False, comment="of the store: where its chunks lie"),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=True, comment="as given, or as the document says itself"),
        sa.Column("filename", sa.Text(), nullable=True),
        sa.Column("content_type", sa.Text(), nullable=False),
        sa.Column("charset", sa.Text(), nullable=True, comment="of HTML, as the upload said"),
        sa.Column("size", sa.BigInteger(), server_default=sa.text("0"), nullable=False, comment="bytes"),
        sa.Column("sha256", sa.LargeBinary(), nullable=True, comment="of the content"),
        sa.Column(
            "fingerprint",
            sa.LargeBinary(),
            nullable=True,
            comment="of content, type and metadata: what makes it the same document",
        ),
        sa.Column("metadata", JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.Column("run_id", sa.UUID(), nullable=True, comment="the run that ingests it"),
        sa.Column("thread_id", sa.UUID(), nullable=True, comment="the thread of that run"),
        sa.Column("characters", sa.BigInteger(), nullable=True, comment="of its text; none: not extracted yet"),
        sa.Column("pages", JSONB(), nullable=True, comment="where in the text each page begins"),
        sa.Column("position", sa.BigInteger(), server_default=sa.text("0"), nullable=False, comment="cut up to here"),
        sa.Column("chunks", sa.Integer(), server_default=sa.text("0"), nullable=False, comment="made so far"),
        sa.Column("error", sa.Text(), nullable=True, comment="why it could not be ingested"),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "status in ('receiving', 'accepted', 'ready', 'failed', 'deleted')", name="documents_status_check"
        ),
        sa.PrimaryKeyConstraint("tenant_id", "document_id", name="documents_pkey"),
    )
    op.create_index("documents_namespace_key", "documents", ["tenant_id", "namespace"], unique=True)
    op.create_index(
        "documents_same_key",
        "documents",
        ["tenant_id", "collection", "fingerprint"],
        unique=True,
        postgresql_where=sa.text("fingerprint is not null"),
    )
    op.create_index("documents_newest_idx", "documents", ["tenant_id", "collection", "created_at"])
    op.create_index(
        "documents_swept_idx",
        "documents",
        ["updated_at"],
        postgresql_where=sa.text("status = any (array['receiving', 'deleted'])"),
    )
    op.create_table(
        "document_parts",
        sa.Column("tenant_id", sa.UUID(), nullable=False),
        sa.Column("document_id", sa.UUID(), nullable=False),
        sa.Column("kind", sa.SmallInteger(), nullable=False, comment="0: the content, 1: the text taken out of it"),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column(
            "start", sa.BigInteger(), nullable=False, comment="characters of text, or bytes of others, before it"
        ),
        sa.Column("content", sa.LargeBinary(), nullable=False, comment="compressed (zstd)"),
        sa.ForeignKeyConstraint(
            ["tenant_id", "document_id"],
            ["documents.tenant_id", "documents.document_id"],
            name="document_parts_tenant_id_fkey",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("tenant_id", "document_id", "kind", "number", name="document_parts_pkey"),
    )
    op.execute("alter table document_parts alter column content set storage external")
    secure("documents")
    secure("document_parts")
    op.execute(FORGET)
    op.execute(ANALYZE)
    op.execute("revoke all on function store_analyze from public")
    op.execute("grant execute on function store_analyze to agent_engine")
    op.execute(
        "create trigger documents_gone after delete on documents for each row"
        " execute function documents_forget_chunks()"
    )


def downgrade() -> None:
    """Take it all away, chunks too."""
    op.execute("delete from store_items where namespace collate \"C\" >= U&'\\+10FFFF'")
    op.drop_table("document_parts")
    op.drop_table("documents")
    op.execute("drop function documents_forget_chunks()")
    op.execute("drop function store_analyze")
