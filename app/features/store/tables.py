"""Tables of the store: items, vectors by width, and index versions."""

import sqlalchemy as sa
from pgvector.sqlalchemy import HALFVEC
from sqlalchemy.dialects.postgresql import JSONB, TSVECTOR

from app.infra.db.metadata import Timestamp, UUIDType, metadata, tenant, timestamp

WIDTHS = (384, 768, 1024, 1536, 3072)
"""Dimensions of the vector tables. Shorter vectors are padded with zeros, which does not change their cosine."""


store_items = sa.Table(
    "store_items",
    metadata,
    tenant(),
    sa.Column("namespace", sa.Text(collation="C"), primary_key=True, comment="labels, a dot after each"),
    sa.Column("key", sa.Text(collation="C"), primary_key=True),
    sa.Column("item_id", UUIDType, nullable=False, comment="new with every put: what its vectors belong to"),
    sa.Column("value", JSONB, nullable=False),
    sa.Column("index", JSONB, comment="as put: none for the file's fields, false for no index, or fields"),
    sa.Column("words", TSVECTOR, comment="what full text search looks at, with the tenant as a lexeme"),
    sa.Column("version", sa.Integer, nullable=False, comment="the newest version that it has its vectors of"),
    sa.Column("ttl_minutes", sa.Double),
    sa.Column("expires_at", Timestamp, comment="from then on it is not shown"),
    timestamp("created_at"),
    timestamp("updated_at"),
    sa.Index("store_items_id_idx", "item_id", "tenant_id", unique=True),
    sa.Index("store_items_words_idx", "words", postgresql_using="gin", postgresql_with={"fastupdate": "off"}),
    sa.Index("store_items_newest_idx", "tenant_id", "updated_at", "item_id"),
    sa.Index("store_items_version_idx", "version"),
    sa.Index("store_items_expiry_idx", "expires_at", postgresql_where=sa.text("expires_at is not null")),
)


def _vectors(width: int) -> sa.Table:
    name = f"store_vectors_{width}"
    return sa.Table(
        name,
        metadata,
        tenant(),
        sa.Column("item_id", UUIDType, primary_key=True),
        sa.Column("space", sa.Integer, primary_key=True, comment="version * 16 + the number of its embedder"),
        sa.Column("part", sa.SmallInteger, primary_key=True, comment="which text of the item"),
        sa.Column("namespace", sa.Text(collation="C"), nullable=False, comment="of the item"),
        sa.Column("embedding", HALFVEC(width), nullable=False),
        sa.Index(f"{name}_mine_idx", "tenant_id", "space", "namespace"),
        sa.Index(
            f"{name}_near_idx",
            "embedding",
            postgresql_using="hnsw",
            postgresql_ops={"embedding": "halfvec_cosine_ops"},
        ),
    )


store_vectors = {width: _vectors(width) for width in WIDTHS}

store_versions = sa.Table(
    "store_versions",
    metadata,
    sa.Column("version", sa.Integer, sa.Identity(always=True), primary_key=True),
    sa.Column("fingerprint", sa.Text, nullable=False, unique=True, comment="of indexes"),
    sa.Column("indexes", JSONB, nullable=False, comment="what is indexed, and by which embedders"),
    sa.Column("serving_since", Timestamp, comment="none: its vectors are being made"),
    timestamp("created_at"),
)
"""Per server, not per tenant: the index configurations of agents files."""
