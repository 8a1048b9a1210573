"""Frames on their way to readers in other processes, where no Redis carries them."""

import sqlalchemy as sa

from app.db.base import UUIDType, metadata, tenant, timestamp

live_frames = sa.Table(
    "live_frames",
    metadata,
    tenant(),
    sa.Column("run_id", UUIDType, primary_key=True),
    sa.Column("epoch", sa.Integer, primary_key=True),
    sa.Column("seq", sa.Integer, primary_key=True, comment="seq of the first frame"),
    sa.Column("last_seq", sa.Integer, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False, comment="app.bus.relay.Chunk as MessagePack"),
    timestamp("created_at"),
    sa.Index("live_frames_created_at_idx", "created_at"),
    prefixes=["UNLOGGED"],
)
"""Gone after a crash of the database, as they may be: what counts is in the event log."""
