"""Tables of threads and runs, and of what runs leave: steps, tool intents, questions, events, checkpoints.

See docs/decisions/0001.
"""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from app.infra.db.metadata import Timestamp, UUIDType, json_object, metadata, tenant, timestamp

runs = sa.Table(
    "runs",
    metadata,
    sa.Column("tenant_id", UUIDType, nullable=False),
    sa.Column("run_id", UUIDType, nullable=False),
    sa.Column("thread_id", UUIDType, nullable=False),
    sa.Column("assistant_id", UUIDType, nullable=False),
    sa.Column("parent_id", UUIDType, comment="the run whose question this one answers"),
    sa.Column("ordinal", sa.Integer, nullable=False, comment="counts the runs of the thread from 1"),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("request", sa.LargeBinary, nullable=False, comment="RunRequest as JSON"),
    json_object("metadata"),
    sa.Column("multitask_strategy", sa.Text, nullable=False),
    sa.Column(
        "temporary", sa.Boolean, nullable=False, server_default=sa.text("false"), comment="takes its thread along"
    ),
    sa.Column("epoch", sa.Integer, nullable=False, comment="raised by every claim"),
    sa.Column("attempts", sa.Integer, nullable=False, comment="claims that count against a poison run"),
    sa.Column("owner", UUIDType, comment="random token of the claim"),
    sa.Column("last_owner", UUIDType, comment="the owner that died with it, or lost it"),
    sa.Column("lease_until", Timestamp),
    sa.Column("cancel", sa.Text, comment="interrupt or rollback, once asked for"),
    sa.Column("available_at", Timestamp, nullable=False, server_default=sa.func.now()),
    sa.Column("webhook", sa.Text, comment="URL to call when the run has ended"),
    sa.Column("traceparent", sa.Text, comment="where in a trace it was asked for"),
    sa.Column("checkpoint_id", UUIDType, comment="the state it ended with"),
    sa.Column("error", JSONB),
    sa.Column("interrupts", JSONB, comment='[{"id", "value"}] that it ended with'),
    sa.Column("usage", JSONB),
    timestamp("created_at"),
    timestamp("updated_at"),
    sa.Column("started_at", Timestamp),
    sa.Column("ended_at", Timestamp),
    sa.PrimaryKeyConstraint("run_id", "tenant_id"),
    sa.CheckConstraint("status in ('pending', 'running', 'success', 'error', 'timeout', 'interrupted')", name="status"),
    sa.Index("runs_thread_idx", "tenant_id", "thread_id", "ordinal"),
    sa.Index("runs_live_key", "tenant_id", "thread_id", unique=True, postgresql_where=sa.text("status = 'running'")),
    sa.Index("runs_pending_idx", "tenant_id", "available_at", postgresql_where=sa.text("status = 'pending'")),
    sa.Index(
        "runs_suspect_idx",
        "attempts",
        "available_at",
        postgresql_where=sa.text("status = 'pending' and (reason = 'recovered' or reason = 'cut' and attempts > 1)"),
    ),
    postgresql_with={"fillfactor": "80"},
)

run_transitions = sa.Table(
    "run_transitions",
    metadata,
    tenant(),
    sa.Column("run_id", UUIDType, primary_key=True),
    sa.Column("number", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("thread_id", UUIDType, nullable=False),
    sa.Column("old_status", sa.Text, comment="none: the run was made"),
    sa.Column("new_status", sa.Text, comment="none: the run was removed"),
    sa.Column("reason", sa.Text),
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("at", Timestamp, nullable=False, server_default=sa.func.clock_timestamp()),
)

steps = sa.Table(
    "steps",
    metadata,
    tenant(),
    sa.Column("run_id", UUIDType, primary_key=True),
    sa.Column("step", sa.Integer, primary_key=True),
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("node", sa.Text, nullable=False),
    sa.Column("checkpoint_id", UUIDType, nullable=False),
    sa.Column("usage", JSONB),
    timestamp("created_at"),
)

tool_intents = sa.Table(
    "tool_intents",
    metadata,
    tenant(),
    sa.Column("run_id", UUIDType, primary_key=True),
    sa.Column("call_id", sa.Text, primary_key=True),
    sa.Column("step", sa.Integer, nullable=False, comment="the step that asked for the call"),
    sa.Column("tool", sa.Text, nullable=False),
    sa.Column("tool_class", sa.Text, nullable=False),
    sa.Column("key", sa.Text, nullable=False, comment="the idempotency key, the same for every attempt"),
    sa.Column("args", sa.LargeBinary, nullable=False),
    timestamp("created_at"),
    sa.Column("thread_id", UUIDType, comment="of a run that was removed: where its call must not be repeated"),
    sa.Index("tool_intents_thread_idx", "tenant_id", "thread_id", postgresql_where=sa.text("thread_id is not null")),
)

questions = sa.Table(
    "questions",
    metadata,
    tenant(),
    sa.Column("thread_id", UUIDType, primary_key=True),
    sa.Column("question_id", sa.Text, primary_key=True, comment="what clients answer by"),
    sa.Column("run_id", UUIDType, comment="the run that asked; none: asked by an older version"),
    sa.Column("key", sa.Text, nullable=False, comment="what is asked about: agents find the answer by it"),
    sa.Column("kind", sa.Text, comment="question, approval or review; none: asked by an older version"),
    sa.Column("call_id", sa.Text, comment="the tool call that waits for the answer"),
    sa.Column("expects", JSONB, comment="JSON Schema of the answer"),
    sa.Column("others_only", sa.Boolean, nullable=False, server_default=sa.text("false")),
    sa.Column("requested_by", sa.Text, comment="the person who began the work"),
    timestamp("asked_at"),
    sa.Column("closed_at", Timestamp, comment="none: open, while the thread lists it"),
    sa.Column("closed_by", UUIDType, comment="the run that brings the answer"),
    sa.ForeignKeyConstraint(
        ["thread_id", "tenant_id"],
        ["threads.thread_id", "threads.tenant_id"],
        name="questions_thread_id_fkey",
        ondelete="CASCADE",
    ),
)

events = sa.Table(
    "events",
    metadata,
    tenant(),
    sa.Column("run_id", UUIDType, primary_key=True),
    sa.Column("epoch", sa.Integer, primary_key=True),
    sa.Column("seq", sa.Integer, primary_key=True, comment="seq of the first frame"),
    sa.Column(
        "body",
        sa.LargeBinary,
        nullable=False,
        comment="list of Event as JSON, or zstd of it",
    ),
    timestamp("created_at"),
    sa.Index("events_created_at_idx", "created_at", postgresql_using="brin"),
)

retention_marks = sa.Table(
    "retention_marks",
    metadata,
    sa.Column("name", sa.Text, primary_key=True, comment="of the sweep"),
    sa.Column("place", sa.Text, nullable=False, server_default=sa.text("''"), comment="the last key it looked at"),
    sa.Column("done", sa.Boolean, nullable=False, server_default=sa.text("false"), comment="it came to the end"),
    sa.Column("started_at", Timestamp, nullable=False, server_default=sa.func.now()),
)
"""Progress of retention, server-wide."""


live_frames = sa.Table(
    "live_frames",
    metadata,
    tenant(),
    sa.Column("run_id", UUIDType, primary_key=True),
    sa.Column("epoch", sa.Integer, primary_key=True),
    sa.Column("seq", sa.Integer, primary_key=True, comment="seq of the first frame"),
    sa.Column("last_seq", sa.Integer, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False, comment="FrameBatch as MessagePack"),
    timestamp("created_at"),
    sa.Index("live_frames_created_at_idx", "created_at"),
    prefixes=["UNLOGGED"],
)
"""Unlogged: lost in a crash of the database, after which subscribers resume from the event log."""


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
    sa.Column("body", sa.LargeBinary, nullable=False, comment="JSON, or zstd of it"),
)


threads = sa.Table(
    "threads",
    metadata,
    sa.Column("tenant_id", UUIDType, nullable=False),
    sa.Column("thread_id", UUIDType, nullable=False),
    json_object("metadata"),
    json_object("config"),
    sa.Column("status", sa.Text, nullable=False, server_default=sa.text("'idle'")),
    sa.Column("error", JSONB, comment='{"error", "message"} of the last run, when it failed'),
    sa.Column("interrupts", JSONB, comment='task id → [{"id", "value"}] that wait for a person'),
    sa.Column("answered", JSONB, comment="interrupt id → answer, given to work that is not finished yet"),
    sa.Column("before", JSONB, comment="head, status, error, interrupts, answered before live_run: for a rollback"),
    sa.Column("live_run", UUIDType, comment="the run whose turn it is"),
    sa.Column("queued", sa.Integer, nullable=False, server_default=sa.text("0"), comment="runs waiting for their turn"),
    sa.Column("runs", sa.Integer, nullable=False, server_default=sa.text("0"), comment="ordinal of the newest run"),
    sa.Column("head", UUIDType, comment="the latest checkpoint"),
    sa.Column("last_number", sa.BigInteger, nullable=False, server_default=sa.text("0"), comment="highest log item"),
    sa.Column(
        "last_value_number",
        sa.BigInteger,
        nullable=False,
        server_default=sa.text("0"),
        comment="counts log items that are in no list, and amendments",
    ),
    sa.Column("temporary", sa.Boolean, nullable=False, server_default=sa.text("false"), comment="goes with its run"),
    sa.Column("ttl_minutes", sa.Double, comment="the thread goes when nothing happened on it for so long"),
    sa.Column(
        "keep_minutes",
        sa.Double,
        comment="when nothing happened on it for so long, only its newest checkpoint stays",
    ),
    sa.Column("lineage", UUIDType, comment="of a copy: the thread that it and the copies beside it began as"),
    timestamp("created_at"),
    timestamp("updated_at"),
    timestamp("state_updated_at"),
    sa.PrimaryKeyConstraint("thread_id", "tenant_id"),
    sa.CheckConstraint("status in ('idle', 'busy', 'interrupted', 'error')", name="status"),
    sa.CheckConstraint("(status = 'busy') = (live_run is not null)", name="busy"),
    sa.Index(None, "tenant_id", "created_at"),
    sa.Index("threads_ttl_idx", "updated_at", postgresql_where=sa.text("ttl_minutes is not null")),
    sa.Index("threads_keep_idx", "updated_at", postgresql_where=sa.text("keep_minutes is not null")),
    sa.Index("threads_lineage_idx", "tenant_id", "lineage", postgresql_where=sa.text("lineage is not null")),
    sa.Index("threads_temporary_idx", "created_at", postgresql_where=sa.text("temporary")),
    sa.Index(None, "metadata", postgresql_using="gin", postgresql_ops={"metadata": "jsonb_path_ops"}),
    postgresql_with={"fillfactor": "80"},
)
