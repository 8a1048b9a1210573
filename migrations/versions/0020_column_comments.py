"""Comments of columns without the paths of modules, which move.

Revision ID: 0020
Revises: 0019
"""

from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

COMMENTS = {
    "checkpoint_items.body": ("JSON, or zstd of it (app.checkpoints.codec)", "JSON, or zstd of it"),
    "crons.payload": ("app.crons.structs.Payload as JSON", "Payload as JSON"),
    "events.body": ("list of app.domain.events.Event as JSON (app.checkpoints.codec)", "list of Event as JSON, or zstd of it"),
    "live_frames.body": ("app.bus.relay.FrameBatch as MessagePack", "FrameBatch as MessagePack"),
    "retention_marks.name": ("which walk (app.runs.sweeps)", "of the sweep"),
    "runs.request": ("app.runs.structs.RunRequest as JSON", "RunRequest as JSON"),
    "runs.webhook": ("told when the run has ended", "URL to call when the run has ended"),
}
"""The comment before and after, by column."""


def upgrade() -> None:
    """Set the new comments."""
    for column, (_, after) in COMMENTS.items():
        op.execute(f"comment on column {column} is '{after}'")


def downgrade() -> None:
    """Set the former comments."""
    for column, (before, _) in COMMENTS.items():
        op.execute(f"comment on column {column} is '{before}'")
