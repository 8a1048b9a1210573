"""The metadata of all tables, and columns that tables share."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB, UUID

metadata = sa.MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s_check",
    }
)

UUIDType = UUID(as_uuid=True)
Timestamp = sa.TIMESTAMP(timezone=True)


def tenant() -> sa.Column[object]:
    """The tenant that owns a row; part of every primary key."""
    return sa.Column("tenant_id", UUIDType, primary_key=True)


def timestamp(name: str) -> sa.Column[object]:
    """A required timestamp that defaults to the transaction's time."""
    return sa.Column(name, Timestamp, nullable=False, server_default=sa.func.now())


def json_object(name: str) -> sa.Column[object]:
    """A required JSON object, empty by default."""
    return sa.Column(name, JSONB, nullable=False, server_default=sa.text("'{}'::jsonb"))
