"""What several processes on one database need: fair claims, and frames on their way to readers elsewhere.

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

CURRENT_TENANT = "nullif(current_setting('app.tenant', true), '')::uuid"
PENDING = sa.text("status = 'pending'")


def upgrade() -> None:
    """Order waiting runs by tenant; make the table of frames."""
    op.drop_index("runs_pending_idx", "runs")
    op.create_index("runs_pending_idx", "runs", ["tenant_id", "available_at"], postgresql_where=PENDING)
    op.create_index("events_created_at_idx", "events", ["created_at"], postgresql_using="brin")
    op.create_table(
        "live_frames",
        sa.Column("tenant_id", sa.UUID(), nullable=False),
        sa.Column("run_id", sa.UUID(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False, comment="seq of the first frame"),
        sa.Column("last_seq", sa.Integer(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False, comment="app.bus.relay.FrameBatch as MessagePack"),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "run_id", "epoch", "seq", name="live_frames_pkey"),
        prefixes=["UNLOGGED"],
    )
    op.create_index("live_frames_created_at_idx", "live_frames", ["created_at"])
    op.execute("alter table live_frames enable row level security")
    op.execute("alter table live_frames force row level security")
    op.execute("grant select, insert, update, delete on live_frames to agent_app, agent_engine")
    op.execute(
        "create policy live_frames_tenant on live_frames to agent_app"
        f" using (tenant_id = {CURRENT_TENANT}) with check (tenant_id = {CURRENT_TENANT})"
    )
    op.execute("create policy live_frames_engine on live_frames to agent_engine using (true) with check (true)")


def downgrade() -> None:
    """Take it all away."""
    op.drop_table("live_frames")
    op.drop_index("events_created_at_idx", "events")
    op.drop_index("runs_pending_idx", "runs")
    op.create_index("runs_pending_idx", "runs", ["available_at"], postgresql_where=PENDING)
