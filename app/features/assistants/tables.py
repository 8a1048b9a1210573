"""Tables of assistants: configured, versioned agents. ``assistants`` holds the latest version of each."""

import sqlalchemy as sa

from app.infra.db.metadata import UUIDType, json_object, metadata, tenant, timestamp

assistants = sa.Table(
    "assistants",
    metadata,
    tenant(),
    sa.Column("assistant_id", UUIDType, primary_key=True),
    sa.Column("graph_id", sa.Text, nullable=False, comment="the agent's name in the agents file"),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("description", sa.Text),
    json_object("config"),
    json_object("context"),
    json_object("metadata"),
    sa.Column("version", sa.Integer, nullable=False, server_default=sa.text("1")),
    timestamp("created_at"),
    timestamp("updated_at"),
    sa.Index(None, "tenant_id", "graph_id"),
    sa.Index(None, "tenant_id", "created_at"),
)

assistant_versions = sa.Table(
    "assistant_versions",
    metadata,
    tenant(),
    sa.Column("assistant_id", UUIDType, primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Column("graph_id", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("description", sa.Text),
    json_object("config"),
    json_object("context"),
    json_object("metadata"),
    timestamp("created_at"),
    sa.ForeignKeyConstraint(
        ["tenant_id", "assistant_id"], ["assistants.tenant_id", "assistants.assistant_id"], ondelete="CASCADE"
    ),
)
