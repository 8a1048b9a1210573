"""Questions to people are recorded, copies know what they are copies of, and approving is a scope of its own.

A process of the version before, which runs while this is applied, writes no questions: theirs are recorded by the
answer that closes them. Every key that could write could approve, so it keeps both.

Revision ID: 0015
Revises: 0014
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

CURRENT_TENANT = "nullif(current_setting('app.tenant', true), '')::uuid"

GRANT_APPROVE = """
update api_keys set scopes = array_append(scopes, 'approve')
where 'write' = any(scopes) and not 'approve' = any(scopes)
"""
TAKE_APPROVE = "update api_keys set scopes = array_remove(scopes, 'approve') where 'approve' = any(scopes)"


def change_keys(statement: str) -> None:
    """Change keys of all tenants: not even the owner of the table sees them while its policies hold for it."""
    op.execute("alter table api_keys no force row level security")
    op.execute(statement)
    op.execute("alter table api_keys force row level security")


def upgrade() -> None:
    """Add the table and the column, which has no default, so no row is rewritten."""
    op.create_table(
        "questions",
        sa.Column("tenant_id", sa.UUID(), nullable=False),
        sa.Column("thread_id", sa.UUID(), nullable=False),
        sa.Column("question_id", sa.Text(), nullable=False, comment="what clients answer by"),
        sa.Column("run_id", sa.UUID(), nullable=True, comment="the run that asked; none: asked by an older version"),
        sa.Column("key", sa.Text(), nullable=False, comment="what is asked about: agents find the answer by it"),
        sa.Column(
            "kind", sa.Text(), nullable=True, comment="question, approval or review; none: asked by an older version"
        ),
        sa.Column("call_id", sa.Text(), nullable=True, comment="the tool call that waits for the answer"),
        sa.Column("expects", JSONB(), nullable=True, comment="JSON Schema of the answer"),
        sa.Column("others_only", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("requested_by", sa.Text(), nullable=True, comment="the person who began the work"),
        sa.Column("asked_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column(
            "closed_at", sa.TIMESTAMP(timezone=True), nullable=True, comment="none: open, while the thread lists it"
        ),
        sa.Column("closed_by", sa.UUID(), nullable=True, comment="the run that brings the answer"),
        sa.ForeignKeyConstraint(
            ["thread_id", "tenant_id"],
            ["threads.thread_id", "threads.tenant_id"],
            name="questions_thread_id_fkey",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("tenant_id", "thread_id", "question_id", name="questions_pkey"),
    )
    op.execute("alter table questions enable row level security")
    op.execute("alter table questions force row level security")
    op.execute("grant select, insert, update, delete on questions to agent_app, agent_engine")
    op.execute(
        "create policy questions_tenant on questions to agent_app"
        f" using (tenant_id = {CURRENT_TENANT}) with check (tenant_id = {CURRENT_TENANT})"
    )
    op.execute("create policy questions_engine on questions to agent_engine using (true) with check (true)")
    meaning = "of a copy: the thread that it and the copies beside it began as"
    op.add_column("threads", sa.Column("lineage", sa.UUID(), nullable=True, comment=meaning))
    change_keys(GRANT_APPROVE)


def downgrade() -> None:
    """Take it all away; keys that may write may approve again."""
    change_keys(TAKE_APPROVE)
    op.drop_column("threads", "lineage")
    op.drop_table("questions")
