"""The roles that the server and its commands work as. They belong to the PostgreSQL server, not to one database.

Migrations make them too. A dump of a database does not carry them, so a restore on another server makes them first.
"""

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine

from app.base.errors import StartError
from app.db.url import to_sqlalchemy

ROLES = ("agent_app", "agent_engine", "agent_eraser")

_CREATE = """
do $$ begin
  if not exists (select from pg_roles where rolname = '{role}') then create role {role} nologin; end if;
  if not (select rolsuper from pg_roles where rolname = current_user) and not pg_has_role(current_user, '{role}', 'SET')
  then execute format('grant {role} to %I with inherit false, set true', current_user); end if;
end $$
"""


async def ensure_roles(url: str) -> None:
    """Make the roles that are missing and let the owner at ``url`` take them. Raises ``StartError``."""
    address, arguments = to_sqlalchemy(url)
    engine = create_async_engine(address, connect_args={**arguments, "timeout": 5})
    try:
        async with engine.begin() as connection:
            for role in ROLES:
                await connection.execute(sa.text(_CREATE.format(role=role)))
    except (OSError, SQLAlchemyError) as error:
        reason = str(getattr(error, "orig", None) or error).split("\n", 1)[0].rpartition(">: ")[2]
        raise StartError(
            f"the roles {', '.join(ROLES)} could not be made or taken ({reason}): let the owner of the database create "
            f"roles (alter role … createrole), or, as a superuser, create them and grant them to it with set true"
        ) from error
    finally:
        await engine.dispose()
