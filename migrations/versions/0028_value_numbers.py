"""Number large values and amendments apart from elements of lists, whose ranges they would part.

Only adds. A process of the version before that has a thread's state in memory does not notice amendments of this one,
and a copy that it makes of a thread counts from zero: replace all processes before graphs wait for several people and
before threads are copied.

Revision ID: 0028
Revises: 0027
"""

from alembic import op

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None

FIRST_VALUE = -(1 << 40)


def upgrade() -> None:
    """Add the count; threads that have such items, by an upgrade before, go on from it."""
    op.execute("alter table threads add column if not exists last_value_number bigint not null default 0")
    op.execute("comment on column threads.last_value_number is 'counts log items that are in no list, and amendments'")
    with op.get_context().autocommit_block():  # it may take long: without the lock on the table
        op.execute("set role agent_engine")  # the owner's own eyes see no rows of tenants
        op.execute(
            f"""update threads t set last_value_number = i.number - ({FIRST_VALUE}) from threads x, lateral (
              select number from checkpoint_items i
              where i.tenant_id = x.tenant_id and i.thread_id = x.thread_id and i.number < 0
              order by number desc limit 1) i
            where t.tenant_id = x.tenant_id and t.thread_id = x.thread_id"""
        )
        op.execute("reset role")


def downgrade() -> None:
    """Drop it."""
    op.drop_column("threads", "last_value_number")
