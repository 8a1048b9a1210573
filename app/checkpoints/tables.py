"""Checkpoints: small heads over a thread's append-only log of items (docs/decisions/0002)."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from app.db.base import UUIDType, metadata, tenant, timestamp

checkpoints = sa.Table(
    "checkpoints",
    metadata,
    tenant(),
    sa.Column("thread_id", UUIDType, primary_key=True),
    sa.Column("checkpoint_id", UUIDType, primary_key=True),
    sa.Column("parent_id", UUIDType),
    sa.Column("run_id", UUIDType, comment="none: written by a client"),
    sa.Column("source", sa.Text, nullable=False, comment="input, loop, update or fork"),
    sa.Column("step", sa.Integer, nullable=False, comment="-1 is the first of a thread"),
    sa.Column("next", ARRAY(sa.Text), nullable=False),
    sa.Column("head", sa.LargeBinary, nullable=False, comment="app.domain.state.Head as JSON"),
    sa.Column("first_items", ARRAY(sa.BigInteger), nullable=False, comment="starts of the item ranges it names"),
    sa.Column("last_items", ARRAY(sa.BigInteger), nullable=False, comment="their ends, inclusive"),
    sa.Column("metadata", JSONB, comment="what the writer added"),
    timestamp("created_at"),
)

checkpoint_items = sa.Table(
    "checkpoint_items",
    metadata,
    tenant(),
    sa.Column("thread_id", UUIDType, primary_key=True),
    sa.Column("number", sa.BigInteger, primary_key=True),
    sa.Column("body", sa.LargeBinary, nullable=False, comment="JSON, or zstd of it (app.checkpoints.codec)"),
)
