"""Let one statement look up several API keys.

The setting ``app.key_id`` may list ids with commas between them. A process of the version before, which runs while this
is applied, sets one id and is served as before.

Revision ID: 0013
Revises: 0012
"""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

ONE = "key_id = nullif(current_setting('app.key_id', true), '')"
SEVERAL = "key_id = any(string_to_array(nullif(current_setting('app.key_id', true), ''), ','))"


def upgrade() -> None:
    """Replace the conditions of both policies: no row is touched."""
    _alter(SEVERAL)


def downgrade() -> None:
    """See one key at a time again."""
    _alter(ONE)


def _alter(condition: str) -> None:
    op.execute(f"alter policy api_keys_lookup on api_keys using ({condition})")
    op.execute(
        "alter policy tenants_lookup on tenants using"
        f" (tenant_id in (select tenant_id from api_keys where {condition}))"
    )
