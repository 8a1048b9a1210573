"""Tables of crons and of their slots: the times of a schedule and the runs started for them."""

import sqlalchemy as sa

from app.infra.db.metadata import Timestamp, UUIDType, json_object, metadata, tenant, timestamp

crons = sa.Table(
    "crons",
    metadata,
    sa.Column("tenant_id", UUIDType, nullable=False),
    sa.Column("cron_id", UUIDType, nullable=False),
    sa.Column("assistant_id", UUIDType, nullable=False),
    sa.Column("thread_id", UUIDType, comment="none: each run gets a thread of its own"),
    sa.Column("schedule", sa.Text, nullable=False, comment="five fields"),
    sa.Column("timezone", sa.Text, comment="IANA name; none: UTC"),
    sa.Column("end_time", Timestamp, comment="no later time counts"),
    sa.Column("enabled", sa.Boolean, nullable=False, server_default=sa.text("true")),
    sa.Column("on_run_completed", sa.Text, comment="delete or keep: what becomes of a run's own thread"),
    sa.Column("payload", sa.LargeBinary, nullable=False, comment="Payload as JSON"),
    json_object("metadata"),
    sa.Column("next_run_date", Timestamp, comment="none: disabled, or no time is left"),
    timestamp("created_at"),
    timestamp("updated_at"),
    sa.PrimaryKeyConstraint("cron_id", "tenant_id"),
    sa.ForeignKeyConstraint(
        ["tenant_id", "assistant_id"], ["assistants.tenant_id", "assistants.assistant_id"], ondelete="CASCADE"
    ),
    sa.ForeignKeyConstraint(["thread_id", "tenant_id"], ["threads.thread_id", "threads.tenant_id"], ondelete="CASCADE"),
    sa.CheckConstraint("enabled or next_run_date is null", name="enabled"),
    sa.Index("crons_due_idx", "next_run_date", postgresql_where=sa.text("next_run_date is not null")),
    sa.Index(None, "tenant_id", "created_at"),
    sa.Index(None, "tenant_id", "assistant_id"),
    sa.Index("crons_thread_idx", "thread_id", "tenant_id", postgresql_where=sa.text("thread_id is not null")),
)

cron_slots = sa.Table(
    "cron_slots",
    metadata,
    tenant(),
    sa.Column("cron_id", UUIDType, primary_key=True),
    sa.Column("slot", Timestamp, primary_key=True, comment="the time of the schedule"),
    sa.Column("run_id", UUIDType, comment="the run that was made for it"),
    sa.Column("problem", sa.Text, comment="why none was made"),
    timestamp("created_at"),
    sa.ForeignKeyConstraint(["cron_id", "tenant_id"], ["crons.cron_id", "crons.tenant_id"], ondelete="CASCADE"),
)
