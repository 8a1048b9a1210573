"""Use cases of assistants. Every agent has a system assistant, whose id derives from the agent's name."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import Row

from app.agents.port import Agent, Agents
from app.base.errors import Conflict, Invalid, NotFound
from app.base.ids import agent_id, new_id
from app.base.page_bounds import check_page
from app.engine.streams.signals import Signal
from app.features.assistants import queries
from app.features.assistants.structs import (
    Assistant,
    AssistantCreate,
    AssistantPatch,
    AssistantSearch,
    AssistantVersion,
    VersionSearch,
)
from app.infra.db.columns import from_row
from app.infra.db.engine import Database
from app.infra.db.session import Writer
from app.security.access.structs import MetadataFilter, Principal
from app.security.idempotency.queries import once
from app.security.idempotency.structs import IdempotencyKey


class AssistantService:
    """Assistants of all tenants."""

    def __init__(self, database: Database, agents: Agents, own: Sequence[str] = ()) -> None:
        """``own``: names of internal agents, which are not listed."""
        self._database = database
        self._agents = agents
        self._internal = {agent_id(name): name for name in own}
        self._system = {agent_id(name): name for name in agents.names()}
        self._seeded: set[UUID] = set()

    async def ensure_system(self, tenant_id: UUID) -> None:
        """Create the tenant's system assistants, once per process and tenant."""
        if tenant_id not in self._seeded:
            async with self._database.writing(tenant_id) as session:
                await queries.add_system(session, tenant_id, list(self._system.items()))
            self._seeded.add(tenant_id)

    async def add_own(self, session: Writer, tenant_id: UUID, name: str) -> None:
        """Create the assistant of an internal agent, before its first run."""
        await queries.add_system(session, tenant_id, [(agent_id(name), name)])

    def on_signal(self, signal: Signal) -> None:
        """Forget tenants whose data was erased, system assistants included; all of them after a reconnect."""
        if signal.is_empty:
            self._seeded.clear()
        self._seeded.difference_update(signal.erased)

    async def reach(self, principal: Principal, named: str) -> MetadataFilter:
        """Return the metadata filter for running the assistant ``named``; every principal may run system assistants.

        Raises ``Forbidden``, ``Refused``.
        """
        if principal.rules is None or self._agents.get(named) is not None:
            return None
        try:
            assistant_id = UUID(named)
        except ValueError:
            return None
        if assistant_id in self._system:
            return None
        return await principal.permit("assistants", "read", assistant_id=assistant_id)

    async def resolve(
        self, tenant_id: UUID, named: str, owned: MetadataFilter = None, *, internal: bool = False
    ) -> tuple[UUID, str]:
        """Return id and agent of an assistant in the scope ``owned``, given by UUID or agent's name.

        System assistants need no query. ``internal``: allow internal agents. Raises ``Invalid`` for an unknown name,
        ``NotFound`` for an unknown UUID.
        """
        await self.ensure_system(tenant_id)
        if not internal and named in self._internal.values():
            raise _unknown(named)
        if self._agents.get(named) is not None:
            return agent_id(named), named
        assistant_id = self.id_of(named)
        if assistant_id in self._system:
            return assistant_id, self._system[assistant_id]
        async with self._database.reading(tenant_id, owned) as session:
            row = await queries.get(session, tenant_id, assistant_id)
        if row is None or row.graph_id in self._internal.values():
            raise _unknown(assistant_id)
        return assistant_id, row.graph_id

    def agent_named(self, name: str) -> Agent | None:
        """Return the agent ``name``, if clients may run it."""
        return self._agents.get(name) if name in self._agents.names() else None

    def names(self) -> list[str]:
        """Return the names of the agents that clients may run."""
        return self._agents.names()

    def agents(self) -> list[Agent]:
        """Return the agents that clients may run, in the order of the agents file."""
        return [agent for name in self._agents.names() if (agent := self._agents.get(name)) is not None]

    def id_of(self, named: str) -> UUID:
        """Return the id of an assistant, given by UUID or agent's name. Raises ``Invalid`` if it is neither."""
        if self._agents.get(named) is not None:
            return agent_id(named)
        try:
            return UUID(named)
        except ValueError as error:
            raise Invalid(
                f"Invalid assistant: {named[:200]!r}. Must be either:\n- A valid assistant UUID, or\n"
                f"- One of the registered graphs: {', '.join(self._agents.names())}",
                (("/assistant_id", "unknown"),),
            ) from error

    async def create(
        self, principal: Principal, body: AssistantCreate, key: IdempotencyKey | None = None
    ) -> Assistant | msgspec.Raw:
        """Create an assistant, once per ``key``.

        Raises ``NotFound`` for an unknown agent, ``Conflict`` if the id is taken.
        """
        self._check_agent(body.graph_id)
        await self.ensure_system(principal.tenant_id)
        assistant_id = body.assistant_id or new_id()
        about = {name: getattr(body, name) for name in ("graph_id", "config", "context", "if_exists", "name")}
        owned, metadata = await principal.stamp(
            "assistants", "create", body.metadata, assistant_id=assistant_id, **about
        )
        values = {name: value for name in queries.VERSIONED if (value := getattr(body, name)) is not None}
        values |= {"assistant_id": assistant_id, "name": body.name or "Untitled", "metadata": metadata or {}}
        async with self._database.writing(principal.tenant_id, owned) as session:

            async def make() -> Assistant:
                row = await queries.add(session, principal.tenant_id, values)
                if row is None and body.if_exists == "do_nothing":
                    row = await queries.get(session, principal.tenant_id, assistant_id)
                if row is None:
                    raise Conflict(f"Assistant {assistant_id} already exists")
                return self._shown(row)

            return await once(session, principal.tenant_id, key, make)

    async def get(self, principal: Principal, assistant_id: UUID) -> Assistant:
        """Return an assistant. Raises ``NotFound``."""
        await self.ensure_system(principal.tenant_id)
        owned = await principal.permit("assistants", "read", assistant_id=assistant_id)
        async with self._database.reading(principal.tenant_id, owned) as session:
            row = await queries.get(session, principal.tenant_id, assistant_id)
        if row is None:
            raise _unknown(assistant_id)
        return self._shown(row)

    async def patch(self, principal: Principal, assistant_id: UUID, body: AssistantPatch) -> Assistant:
        """Change an assistant by creating a new latest version. Raises ``NotFound``."""
        if body.graph_id is not None:
            self._check_agent(body.graph_id)
        await self.ensure_system(principal.tenant_id)
        values = {name: value for name, value in msgspec.structs.asdict(body).items() if value is not None}
        given = values.pop("metadata", None)
        owned, metadata = await principal.stamp("assistants", "update", given, assistant_id=assistant_id, **values)
        async with self._database.writing(principal.tenant_id, owned) as session:
            old = await queries.get(session, principal.tenant_id, assistant_id)
            if old is None or old.graph_id in self._internal.values():
                raise _unknown(assistant_id)
            if metadata is not None:
                values["metadata"] = {**old.metadata, **metadata}
            row = await queries.change(session, principal.tenant_id, assistant_id, values)
            assert row is not None
            await queries.add_version(session, principal.tenant_id, row)
        return self._shown(row)

    async def delete(self, principal: Principal, assistant_id: UUID) -> None:
        """Delete an assistant. Raises ``Conflict`` for a system assistant, ``NotFound``."""
        owned = await principal.permit("assistants", "delete", assistant_id=assistant_id)
        if assistant_id in self._system or assistant_id in self._internal:
            name = self._system.get(assistant_id) or self._internal[assistant_id]
            raise Conflict(
                f"The system assistant of agent {name!r} cannot be deleted: remove the agent from the agents file."
            )
        async with self._database.writing(principal.tenant_id, owned) as session:
            if not await queries.delete(session, principal.tenant_id, assistant_id):
                raise _unknown(assistant_id)

    async def search(self, principal: Principal, wanted: AssistantSearch) -> tuple[list[Assistant], int]:
        """Return a page of assistants and the total count. Raises ``Invalid``."""
        check_page(wanted.limit, wanted.offset)
        await self.ensure_system(principal.tenant_id)
        owned, wanted = await _authorised_search(principal, wanted)
        async with self._database.reading(principal.tenant_id, owned) as session:
            rows = await queries.search(session, principal.tenant_id, wanted)
            total = await queries.count(session, principal.tenant_id, wanted)
        return [self._shown(row) for row in rows], total

    async def count(self, principal: Principal, wanted: AssistantSearch) -> int:
        """Count matching assistants."""
        await self.ensure_system(principal.tenant_id)
        owned, wanted = await _authorised_search(principal, wanted)
        async with self._database.reading(principal.tenant_id, owned) as session:
            return await queries.count(session, principal.tenant_id, wanted)

    async def versions(self, principal: Principal, assistant_id: UUID, wanted: VersionSearch) -> list[AssistantVersion]:
        """Return a page of versions, newest first. Raises ``NotFound`` for an unknown assistant, ``Invalid``."""
        check_page(wanted.limit, wanted.offset)
        await self.ensure_system(principal.tenant_id)
        owned = await principal.permit("assistants", "read", assistant_id=assistant_id)
        async with self._database.reading(principal.tenant_id, owned) as session:
            rows = await queries.versions(
                session,
                principal.tenant_id,
                assistant_id,
                metadata=wanted.metadata,
                limit=wanted.limit,
                offset=wanted.offset,
            )
            if not rows and await queries.get(session, principal.tenant_id, assistant_id) is None:
                raise _unknown(assistant_id)
        return [from_row(AssistantVersion, row, **self._description(row)) for row in rows]

    async def set_latest(self, principal: Principal, assistant_id: UUID, number: int) -> Assistant:
        """Make an older or newer version the latest. Raises ``NotFound``."""
        owned = await principal.permit("assistants", "update", assistant_id=assistant_id, version=number)
        async with self._database.writing(principal.tenant_id, owned) as session:
            version = await queries.version(session, principal.tenant_id, assistant_id, number)
            if version is None:
                raise NotFound(f"Version {number} not found for assistant {assistant_id}")
            values = {name: getattr(version, name) for name in queries.VERSIONED}
            row = await queries.change(session, principal.tenant_id, assistant_id, values, number)
        assert row is not None
        return self._shown(row)

    async def agent(self, principal: Principal, named: str) -> tuple[Agent, str]:
        """Return the agent of an assistant and its name. Raises ``NotFound`` if this server does not have it."""
        if principal.rules is not None:
            await self.get(principal, UUID(named))
        _, name = await self.resolve(principal.tenant_id, named)
        agent = self._agents.get(name)
        if agent is None:
            raise NotFound(f"Graph {name!r} not found. Expected one of: {self._agents.names()}")
        return agent, name

    async def runnable(self, principal: Principal, named: str) -> Agent:
        """Return the agent of an assistant that the principal may run.

        Raises ``Invalid`` for an unknown name, ``NotFound``, ``Forbidden``.
        """
        owned = await self.reach(principal, named)
        _, name = await self.resolve(principal.tenant_id, named, owned)
        agent = self._agents.get(name)
        if agent is None:
            raise NotFound(f"Graph {name!r} not found. Expected one of: {self._agents.names()}")
        return agent

    def _shown(self, row: Row[Any]) -> Assistant:
        return from_row(Assistant, row, **self._description(row))

    def _description(self, row: Row[Any]) -> dict[str, str]:
        """Return the description of the agent, for a system assistant that has none of its own."""
        name = self._system.get(row.assistant_id)
        agent = None if name is None or row.description is not None else self._agents.get(name)
        return {"description": agent.description} if agent is not None and agent.description else {}

    def _check_agent(self, name: str) -> None:
        if self._agents.get(name) is None or name in self._internal.values():
            raise NotFound(f"Graph {name!r} not found. Expected one of: {self._agents.names()}")


def _unknown(assistant_id: UUID | str) -> NotFound:
    return NotFound(f"Assistant with ID {assistant_id} not found")


async def _authorised_search(principal: Principal, wanted: AssistantSearch) -> tuple[MetadataFilter, AssistantSearch]:
    """Authorise a search; return the principal's metadata filter and the search with stamped metadata."""
    if principal.rules is None:
        return None, wanted
    about = {name: getattr(wanted, name) for name in ("graph_id", "limit", "offset")}
    owned, metadata = await principal.stamp("assistants", "search", wanted.metadata, **about)
    return owned, msgspec.structs.replace(wanted, metadata=metadata)
