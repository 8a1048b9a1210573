"""Long-term memory: items, their vectors, and the versions of what is indexed.

Revision ID: 0007
Revises: 0006
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB, TSVECTOR
from sqlalchemy.types import UserDefinedType

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

CURRENT_TENANT = "nullif(current_setting('app.tenant', true), '')::uuid"

WIDTHS = (384, 768, 1024, 1536, 3072)

EXTENSION = """
do $$
begin
  if not exists (select from pg_extension where extname = 'vector') then
    create extension vector;
  end if;
exception when insufficient_privilege or undefined_file or feature_not_supported then
  raise exception 'the store needs pgvector 0.8 or later: install it, and run CREATE EXTENSION vector in this database as a superuser'
    using errcode = 'insufficient_privilege';
end $$
"""

ENOUGH = """
do $$
begin
  if (select string_to_array(extversion, '.')::int[] < '{0,8}' from pg_extension where extname = 'vector') then
    raise exception 'the store needs pgvector 0.8 or later: run ALTER EXTENSION vector UPDATE' using errcode = 'feature_not_supported';
  end if;
end $$
"""

FORGET = f"""
create function store_forget_vectors() returns trigger language plpgsql as $$
begin
{chr(10).join(f"  delete from store_vectors_{width} where tenant_id = old.tenant_id and item_id = old.item_id;" for width in WIDTHS)}
  return null;
end $$
"""

WORDS = f"""
create function store_words(asked_all tsquery, asked_any tsquery, first text, last text, most integer, enough integer)
returns table (item_id uuid, rank real)
language sql stable security definer set search_path = public, pg_temp set enable_seqscan = off
as $$
  with strict as (
    select i.item_id, i.words from store_items i
    where numnode(asked_all) > 0
      and i.tenant_id = {CURRENT_TENANT} and i.namespace >= first and i.namespace < last
      and i.words @@ (('''@' || current_setting('app.tenant', true) || '''')::tsquery && asked_all)
    limit most
  ), loose as (
    select i.item_id, i.words from store_items i
    where (select count(*) from strict) < enough and numnode(asked_any) > 0
      and i.tenant_id = {CURRENT_TENANT} and i.namespace >= first and i.namespace < last
      and i.words @@ (('''@' || current_setting('app.tenant', true) || '''')::tsquery && asked_any)
    limit most
  )
  select found.item_id, ts_rank(found.words, asked_any, 1)
  from (select * from strict union all select * from loose l where l.item_id not in (select s.item_id from strict s)) found
  order by 2 desc limit enough
$$
"""
"""Row level security keeps the index of words from being used: what compares words could, as far as PostgreSQL knows,
tell of rows that are then not shown. This reads past it, as agent_engine, and applies the same rule itself. Should a
restore have given it to another role, that role sees the same (store_items_others), only slower."""

OWN_WORDS = (
    "grant create on schema public to agent_engine",
    "alter function store_words owner to agent_engine",
    "revoke create on schema public from agent_engine",
    "revoke all on function store_words from public",
    "grant execute on function store_words to agent_app",
)


class HalfVector(UserDefinedType):
    cache_ok = True

    def __init__(self, dimensions):
        self.dimensions = dimensions

    def get_col_spec(self, **_):
        return f"halfvec({self.dimensions})"


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
    op.execute(EXTENSION)
    op.execute(ENOUGH)
    op.create_table(
        "store_items",
        sa.Column("tenant_id", sa.UUID(), nullable=False),
        sa.Column("namespace", sa.Text(collation="C"), nullable=False, comment="labels, a dot after each"),
        sa.Column("key", sa.Text(collation="C"), nullable=False),
        sa.Column("item_id", sa.UUID(), nullable=False, comment="new with every put: what its vectors belong to"),
        sa.Column("value", JSONB(), nullable=False),
        sa.Column(
            "index",
            JSONB(),
            nullable=True,
            comment="as put: none for the file's fields, false for no index, or fields",
        ),
        sa.Column(
            "words", TSVECTOR(), nullable=True, comment="what full text search looks at, with the tenant as a lexeme"
        ),
        sa.Column("version", sa.Integer(), nullable=False, comment="the newest version that it has its vectors of"),
        sa.Column("ttl_minutes", sa.Double(), nullable=True),
        sa.Column("expires_at", sa.TIMESTAMP(timezone=True), nullable=True, comment="from then on it is not shown"),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "namespace", "key", name="store_items_pkey"),
    )
    op.create_index("store_items_id_idx", "store_items", ["item_id", "tenant_id"], unique=True)
    op.create_index("store_items_words_idx", "store_items", ["words"], postgresql_using="gin")
    op.create_index("store_items_version_idx", "store_items", ["version"])
    op.create_index(
        "store_items_expiry_idx", "store_items", ["expires_at"], postgresql_where=sa.text("expires_at is not null")
    )
    secure("store_items")
    op.execute(f"create policy store_items_others on store_items for select using (tenant_id = {CURRENT_TENANT})")
    for width in WIDTHS:
        name = f"store_vectors_{width}"
        op.create_table(
            name,
            sa.Column("tenant_id", sa.UUID(), nullable=False),
            sa.Column("item_id", sa.UUID(), nullable=False),
            sa.Column("space", sa.Integer(), nullable=False, comment="version * 16 + the number of its embedder"),
            sa.Column("part", sa.SmallInteger(), nullable=False, comment="which text of the item"),
            sa.Column("namespace", sa.Text(collation="C"), nullable=False, comment="of the item"),
            sa.Column("embedding", HalfVector(width), nullable=False),
            sa.PrimaryKeyConstraint("tenant_id", "item_id", "space", "part", name=f"{name}_pkey"),
        )
        op.create_index(f"{name}_mine_idx", name, ["tenant_id", "space", "namespace"])
        op.create_index(
            f"{name}_near_idx",
            name,
            ["embedding"],
            postgresql_using="hnsw",
            postgresql_ops={"embedding": "halfvec_cosine_ops"},
        )
        secure(name)
    op.execute(FORGET)
    op.execute(WORDS)
    for statement in OWN_WORDS:
        op.execute(statement)
    op.execute(
        "create trigger store_items_put after update of item_id on store_items for each row"
        " when (old.item_id is distinct from new.item_id) execute function store_forget_vectors()"
    )
    op.execute(
        "create trigger store_items_gone after delete on store_items for each row"
        " execute function store_forget_vectors()"
    )
    op.create_table(
        "store_versions",
        sa.Column("version", sa.Integer(), sa.Identity(always=True), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False, comment="of indexes"),
        sa.Column("indexes", JSONB(), nullable=False, comment="what is indexed, and by which embedders"),
        sa.Column(
            "serving_since", sa.TIMESTAMP(timezone=True), nullable=True, comment="none: its vectors are being made"
        ),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("version", name="store_versions_pkey"),
        sa.UniqueConstraint("fingerprint", name="store_versions_fingerprint_key"),
    )
    op.execute("grant select on store_versions to agent_app")
    op.execute("grant select, insert, update, delete on store_versions to agent_engine")


def downgrade() -> None:
    """Take it all away, but for the extension, which may have been there before."""
    op.drop_table("store_versions")
    op.execute("drop function store_words")
    op.drop_table("store_items")
    op.execute("drop function store_forget_vectors()")
    for width in WIDTHS:
        op.drop_table(f"store_vectors_{width}")
