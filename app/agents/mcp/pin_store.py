"""Accepted lists of tools in the database, one version after the other; every acceptance is in the audit log."""

from typing import NamedTuple

import msgspec

from app.agents.mcp import queries
from app.agents.mcp.pins import ToolList, pinned
from app.base.errors import Conflict
from app.infra.db.engine import Database
from app.security.access.structs import SERVICE, AuditEvent
from app.security.audit.service import AuditService

_decode = msgspec.json.Decoder(dict[str, dict[str, object]]).decode
_encode = msgspec.json.Encoder(order="sorted").encode


class AcceptedList(NamedTuple):
    """The newest accepted list; ``version`` 0 if there is none."""

    listed: ToolList
    version: int


class DatabasePins:
    """Accepted lists of tools (``app.agents.mcp.pins.PinStore``)."""

    def __init__(self, database: Database, audit: AuditService) -> None:
        self._database = database
        self._audit = audit

    async def newest(self, agent: str, server: str) -> AcceptedList:
        """Return the newest accepted list of ``server`` for ``agent``."""
        async with self._database.engine_connection() as connection:
            row = await connection.fetchrow(queries.NEWEST, agent, server)
        if row is None:
            return AcceptedList(ToolList(), 0)
        return AcceptedList(ToolList(_decode(row["tools"])), row["version"])

    async def known(self, agent: str, server: str) -> ToolList:
        """Return the accepted list; empty if there is none."""
        return (await self.newest(agent, server)).listed

    async def accepted(self, agent: str, server: str, listed: ToolList) -> ToolList:
        """Return the accepted list; the first list that a server ever gave to ``agent`` is accepted as it is."""
        newest = await self.newest(agent, server)
        if newest.version:
            return newest.listed
        if await self._add(agent, server, newest.version, listed, "service"):
            return listed
        return (await self.newest(agent, server)).listed

    async def accept(self, agent: str, server: str, listed: ToolList, seen: int) -> int:
        """Accept ``listed`` after the version ``seen``, for an operator; return its version. Raises ``Conflict``."""
        version = await self._add(agent, server, seen, listed, "operator")
        if not version:
            raise Conflict("Another list was accepted in the meantime. Look at the differences again.")
        return version

    async def _add(self, agent: str, server: str, seen: int, listed: ToolList, actor: str) -> int:
        tools = {name: pinned(tool) for name, tool in listed.tools.items()}
        values = (agent, server, seen, listed.digest, _encode(tools).decode(), actor)
        async with self._database.engine_connection() as connection:
            version = await connection.fetchval(queries.ACCEPT, *values)
        if version is None:
            return 0
        self._audit.record(AuditEvent(SERVICE, "mcp.accepted", actor, f"{agent}: {server} version {version}"))
        return int(version)
