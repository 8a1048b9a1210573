"""What tenants have spent on models, a row a day."""

import sqlalchemy as sa

from app.db.base import metadata, tenant

spending = sa.Table(
    "spending",
    metadata,
    tenant(),
    sa.Column("day", sa.Date, primary_key=True, comment="in UTC"),
    sa.Column("reserved", sa.Numeric, nullable=False, server_default=sa.text("0"), comment="dollars, by live runs"),
    sa.Column("spent", sa.Numeric, nullable=False, server_default=sa.text("0"), comment="dollars"),
    sa.Column("tokens", sa.BigInteger, nullable=False, server_default=sa.text("0")),
)
