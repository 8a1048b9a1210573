"""Tables of documents and their parts. Their chunks are items of the store."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from app.infra.db.metadata import UUIDType, json_object, metadata, tenant, timestamp

documents = sa.Table(
    "documents",
    metadata,
    tenant(),
    sa.Column("document_id", UUIDType, primary_key=True),
    sa.Column("collection", sa.Text(collation="C"), nullable=False),
    sa.Column("namespace", sa.Text(collation="C"), nullable=False, comment="of the store: where its chunks lie"),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("title", sa.Text, comment="as given, or as the document says itself"),
    sa.Column("filename", sa.Text),
    sa.Column("content_type", sa.Text, nullable=False),
    sa.Column("charset", sa.Text, comment="of HTML, as the upload said"),
    sa.Column("size", sa.BigInteger, nullable=False, server_default=sa.text("0"), comment="bytes"),
    sa.Column("sha256", sa.LargeBinary, comment="of the content"),
    sa.Column("fingerprint", sa.LargeBinary, comment="of content, type and metadata: what makes it the same document"),
    json_object("metadata"),
    sa.Column("run_id", UUIDType, comment="the run that ingests it"),
    sa.Column("thread_id", UUIDType, comment="the thread of that run"),
    sa.Column("characters", sa.BigInteger, comment="of its text; none: not extracted yet"),
    sa.Column("pages", JSONB, comment="where in the text each page begins"),
    sa.Column("position", sa.BigInteger, nullable=False, server_default=sa.text("0"), comment="cut up to here"),
    sa.Column("chunks", sa.Integer, nullable=False, server_default=sa.text("0"), comment="made so far"),
    sa.Column("error", sa.Text, comment="why it could not be ingested"),
    timestamp("created_at"),
    timestamp("updated_at"),
    sa.CheckConstraint("status in ('receiving', 'accepted', 'ready', 'failed', 'deleted')", name="status"),
    sa.Index("documents_namespace_key", "tenant_id", "namespace", unique=True),
    sa.Index(
        "documents_same_key",
        "tenant_id",
        "collection",
        "fingerprint",
        unique=True,
        postgresql_where=sa.text("fingerprint is not null"),
    ),
    sa.Index("documents_newest_idx", "tenant_id", "collection", "created_at"),
    sa.Index(
        "documents_swept_idx", "updated_at", postgresql_where=sa.text("status = any (array['receiving', 'deleted'])")
    ),
)

document_parts = sa.Table(
    "document_parts",
    metadata,
    tenant(),
    sa.Column("document_id", UUIDType, primary_key=True),
    sa.Column("kind", sa.SmallInteger, primary_key=True, comment="0: the content, 1: the text taken out of it"),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("start", sa.BigInteger, nullable=False, comment="characters of text, or bytes of others, before it"),
    sa.Column("content", sa.LargeBinary, nullable=False, comment="compressed (zstd)"),
    sa.ForeignKeyConstraint(
        ["tenant_id", "document_id"], ["documents.tenant_id", "documents.document_id"], ondelete="CASCADE"
    ),
)
