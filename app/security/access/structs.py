"""Who asks, and what a key allows."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple, Protocol
from uuid import UUID, uuid5

import msgspec

from app.base.errors import Forbidden
from app.domain.caller import Caller
from app.security.limits.structs import TenantLimits

DEFAULT_TENANT = UUID("6b0f3a5e-8a54-4f0e-9d64-0d5a53c4b3c1")
"""The tenant of single-tenant mode. The code is the same with one tenant as with many."""

DEFAULT_TENANT_NAME = "default"

READ = "read"
"""See what belongs to the tenant."""

WRITE = "write"
"""Run agents, and change what belongs to the tenant."""

APPROVE = "approve"
"""Approve calls of tools, and say what became of calls whose outcome is not known."""

MONITOR = "monitor"
"""See the details of ``GET /health``."""

OPERATE = "operate"
"""See and repeat what the service does for the tenant: webhook deliveries, the audit log, budgets."""

ADMIN = "admin"
"""Read the secrets of the service anew."""

ROLES: dict[str, frozenset[str]] = {
    "read-only": frozenset({READ, MONITOR}),
    "runner": frozenset({READ, WRITE, MONITOR}),
    "member": frozenset({READ, WRITE, APPROVE, MONITOR}),
    "operator": frozenset({READ, WRITE, APPROVE, MONITOR, OPERATE}),
    "admin": frozenset({READ, WRITE, APPROVE, MONITOR, OPERATE, ADMIN}),
}
"""Scopes that people are given together."""

MEMBER = ROLES["member"]
SCOPES = ROLES["admin"]
"""Everything that a key can allow."""

_USE = "use"
"""What keys of older versions have in place of READ, WRITE and APPROVE."""


def granted(scopes: Iterable[str]) -> frozenset[str]:
    """The scopes of a key as they are stored."""
    given = frozenset(scopes)
    return given - {_USE} | {READ, WRITE, APPROVE} if _USE in given else given


def tenant_id_of(name: str) -> UUID:
    """The id of the tenant ``name``: derived from the name, so that none has to be looked up across tenants."""
    return DEFAULT_TENANT if name == DEFAULT_TENANT_NAME else uuid5(DEFAULT_TENANT, name)


MetadataFilter = str | None
"""JSON that the metadata of what somebody may reach contains; None: everything of the tenant."""


class AccessRules(Protocol):
    """What the operator's own code says a person may do (``app.security.access.custom_auth_handlers``)."""

    user: dict[str, Any]
    """The person, as agents see it: ``identity``, ``display_name``, ``is_authenticated``, ``permissions``, and more."""

    async def ask(self, resource: str, action: str, value: dict[str, Any]) -> MetadataFilter:
        """Whether the person may, and how far it reaches; ``value`` may be changed by whoever is asked.

        Raises ``Forbidden``, ``Refused``.
        """
        ...


class Principal(msgspec.Struct, frozen=True):
    """On whose behalf a request acts.

    ``key_id`` is the public part of its key (none: it came without one), ``user_id`` the person behind it, if that is
    known; ``limits`` are the tenant's own (``app.security.limits``); ``rules`` bound it further, where there are any.
    """

    tenant_id: UUID
    key_id: str | None = None
    scopes: frozenset[str] = frozenset()
    user_id: str = ""
    limits: TenantLimits = TenantLimits()
    rules: AccessRules | None = None

    async def permit(self, resource: str, action: str, /, **value: Any) -> MetadataFilter:
        """How far it may reach when it does ``action`` to a ``resource``. Raises ``Forbidden``, ``Refused``."""
        return None if self.rules is None else await self.rules.ask(resource, action, value)

    async def stamp(
        self, resource: str, action: str, metadata: dict[str, Any] | None, /, **value: Any
    ) -> tuple[MetadataFilter, dict[str, Any] | None]:
        """As ``permit`` for what comes with ``metadata``; the second part is what it is to be now.

        Raises also ``Forbidden`` for metadata that would put the thing out of the person's own reach.
        """
        if self.rules is None:
            return None, metadata
        value["metadata"] = dict(metadata or {})
        owned = await self.rules.ask(resource, action, value)
        return owned, value["metadata"]

    async def place(self, action: str, namespace: Sequence[str] | None, /, **value: Any) -> list[str] | None:
        """The namespace of the store where it may do ``action`` in place of ``namespace``. Raises as ``permit`` does.

        A label that the rules bring along may have dots, as addresses of people do; they are written ``%2E``.
        """
        if self.rules is None:
            return None if namespace is None else list(namespace)
        value["namespace"] = None if namespace is None else tuple(namespace)
        if await self.rules.ask("store", action, value) is not None:
            raise Forbidden("The store is bounded by namespaces, and its handler gave back a filter.")
        found = value["namespace"]
        return None if found is None else [_label(str(one), namespace or ()) for one in found]

    @property
    def holder(self) -> tuple[UUID, str | None]:
        """Whose share of what is bounded per key a request takes."""
        return self.tenant_id, self.key_id or self.user_id or None

    @property
    def actor(self) -> str:
        """How the audit log names it."""
        return self.user_id or self.key_id or "anonymous"


ActingUser = Callable[[Caller], Principal]
"""Finds the principal that an agent is to its caller: bounded as the requests of that person are."""


def tenant_itself(caller: Caller) -> Principal:
    """Where no handlers tell people apart (``ActingUser``)."""
    return Principal(caller.tenant_id)


def _label(label: str, given: Sequence[str]) -> str:
    return label if label in given else label.replace("%", "%25").replace(".", "%2E")


class KeyInfo(msgspec.Struct, frozen=True, kw_only=True):
    """An API key without its secret."""

    key_id: str
    name: str
    tenant_id: UUID
    scopes: list[str]
    user_id: str | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    previous_until: datetime | None
    last_used_at: datetime | None


class AuditEvent(NamedTuple):
    """Something that the audit log keeps: ``actor`` did ``action`` to ``subject``."""

    tenant_id: UUID
    action: str
    actor: str
    subject: str


SERVICE = UUID(int=0)
"""The tenant of notes about the service itself, and about requests of which nobody knows whose they are."""


class AuditSink(Protocol):
    """Takes what the audit log keeps; never waits."""

    def record(self, note: AuditEvent) -> None:
        """Something was done or refused."""
        ...

    def used(self, key_id: str) -> None:
        """A key has let somebody in."""
        ...


class NullAuditSink:
    """Keeps nothing."""

    def record(self, note: AuditEvent) -> None:
        """Forget it."""

    def used(self, key_id: str) -> None:
        """Forget it."""


class Reloaded(msgspec.Struct, frozen=True):
    """Variables that hold something else now, and those whose new value is not used, with the reason."""

    rotated: list[str]
    refused: dict[str, str]
