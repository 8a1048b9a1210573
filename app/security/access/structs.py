"""Principals, scopes and audit events."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple, Protocol, TypeVar
from uuid import UUID, uuid5

import msgspec

from app.base.errors import Forbidden
from app.domain.caller import AUTH_NAMES, AUTH_USER_ID, Caller
from app.security.limits.structs import TenantLimits

T = TypeVar("T")

DEFAULT_TENANT = UUID("6b0f3a5e-8a54-4f0e-9d64-0d5a53c4b3c1")
"""The tenant of single-tenant mode; the code is the same with one tenant as with many."""

DEFAULT_TENANT_NAME = "default"

READ = "read"
"""Read data of the tenant."""

WRITE = "write"
"""Run agents and change data of the tenant."""

APPROVE = "approve"
"""Approve tool calls, and resolve calls with an unknown outcome."""

MONITOR = "monitor"
"""See the details of ``GET /health``."""

OPERATE = "operate"
"""Read and retry webhook deliveries; read the audit log and budgets of the tenant."""

ADMIN = "admin"
"""Reload the secrets of the service."""

ROLES: dict[str, frozenset[str]] = {
    "read-only": frozenset({READ, MONITOR}),
    "runner": frozenset({READ, WRITE, MONITOR}),
    "member": frozenset({READ, WRITE, APPROVE, MONITOR}),
    "operator": frozenset({READ, WRITE, APPROVE, MONITOR, OPERATE}),
    "admin": frozenset({READ, WRITE, APPROVE, MONITOR, OPERATE, ADMIN}),
}
"""Sets of scopes, by role."""

MEMBER = ROLES["member"]
SCOPES = ROLES["admin"]
"""All scopes."""

_USE = "use"
"""The scope of older versions that stands for READ, WRITE and APPROVE."""


def granted(scopes: Iterable[str]) -> frozenset[str]:
    """Return a key's scopes from the stored ones."""
    given = frozenset(scopes)
    return given - {_USE} | {READ, WRITE, APPROVE} if _USE in given else given


def tenant_id_of(name: str) -> UUID:
    """Return the id of the tenant ``name``, derived from the name so that it needs no lookup across tenants."""
    return DEFAULT_TENANT if name == DEFAULT_TENANT_NAME else uuid5(DEFAULT_TENANT, name)


MetadataFilter = str | None
"""JSON that the metadata of a resource must contain to be accessible; None: everything of the tenant."""


class AccessRules(Protocol):
    """Access rules of a user, as the operator's code defines them (``app.security.access.custom_auth_handlers``)."""

    user: dict[str, Any]
    """The user as agents see it: ``identity``, ``display_name``, ``is_authenticated``, ``permissions`` and more."""

    async def authorize(self, resource: str, action: str, value: dict[str, Any]) -> MetadataFilter:
        """Return the metadata filter for ``action`` on ``resource``. Handlers may change ``value``.

        Raises ``Forbidden``, ``Refused``.
        """
        ...


class Principal(msgspec.Struct, frozen=True):
    """The tenant, key and user on whose behalf a request acts.

    ``key_id`` is the public part of its key (None without a key), ``user_id`` the person behind it, if known;
    ``limits`` are the tenant's own (``app.security.limits``); ``rules`` restrict it further, if set.
    """

    tenant_id: UUID
    key_id: str | None = None
    scopes: frozenset[str] = frozenset()
    user_id: str = ""
    limits: TenantLimits = TenantLimits()
    rules: AccessRules | None = None

    def configurable(self) -> dict[str, Any]:
        """Return the entries of ``configurable`` that name the user to a graph outside of runs."""
        if self.rules is not None:
            user = self.rules.user
            return dict(zip(AUTH_NAMES, (user, user["identity"], user["permissions"]), strict=True))
        return {AUTH_USER_ID: self.user_id} if self.user_id else {}

    async def permit(self, resource: str, action: str, /, **value: Any) -> MetadataFilter:
        """Return the metadata filter for ``action`` on ``resource``. Raises ``Forbidden``, ``Refused``."""
        return None if self.rules is None else await self.rules.authorize(resource, action, value)

    async def permit_each(
        self, resource: str, action: str, name: str, values: Sequence[T]
    ) -> dict[MetadataFilter, list[T]]:
        """Authorize ``action`` for each of ``values`` of the field ``name``; return them by their metadata filters.

        Raises as ``permit`` does.
        """
        found: dict[MetadataFilter, list[T]] = {}
        for value in values:
            owned = await self.permit(resource, action, **{name: value})
            found.setdefault(owned, []).append(value)
        return found

    async def stamp(
        self, resource: str, action: str, metadata: dict[str, Any] | None, /, **value: Any
    ) -> tuple[MetadataFilter, dict[str, Any] | None]:
        """Authorize as ``permit`` does, for a resource with ``metadata``; also return the metadata to store.

        Raises ``Forbidden`` also for metadata that would make the resource inaccessible to the user.
        """
        if self.rules is None:
            return None, metadata
        value["metadata"] = dict(metadata or {})
        owned = await self.rules.authorize(resource, action, value)
        return owned, value["metadata"]

    async def resolve_namespace(
        self, action: str, namespace: Sequence[str] | None, /, **value: Any
    ) -> list[str] | None:
        """Return the store namespace to use in place of ``namespace`` for ``action``. Raises as ``permit`` does.

        Dots in a label that the rules add, as in e-mail addresses, are escaped as ``%2E``.
        """
        if self.rules is None:
            return None if namespace is None else list(namespace)
        value["namespace"] = None if namespace is None else tuple(namespace)
        if await self.rules.authorize("store", action, value) is not None:
            raise Forbidden(
                "The store is restricted by namespaces, but its handler returned a filter: set the namespace instead."
            )
        found = value["namespace"]
        return None if found is None else [_label(str(one), namespace or ()) for one in found]

    @property
    def holder(self) -> tuple[UUID, str | None]:
        """The owner of a share of resources that are limited per key."""
        return self.tenant_id, self.key_id or self.user_id or None

    @property
    def actor(self) -> str:
        """Name in the audit log."""
        return self.user_id or self.key_id or "anonymous"


ActingUser = Callable[[Caller], Principal]
"""Maps a run's caller to the principal that its agent acts as, with the same restrictions as the user's requests."""


def tenant_itself(caller: Caller) -> Principal:
    """Return the tenant itself as principal, for servers without custom auth (an ``ActingUser``)."""
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
    """An event of the audit log: ``actor`` did ``action`` to ``subject``."""

    tenant_id: UUID
    action: str
    actor: str
    subject: str


SERVICE = UUID(int=0)
"""Tenant of audit events of the service itself and of requests without a known tenant."""


class AuditSink(Protocol):
    """Receives audit events; never blocks."""

    def record(self, event: AuditEvent) -> None:
        """Record an action or a refusal."""
        ...

    def used(self, key_id: str) -> None:
        """Record that a key was used."""
        ...


class NullAuditSink:
    """Discards audit events."""

    def record(self, event: AuditEvent) -> None:
        """Discard the event."""

    def used(self, key_id: str) -> None:
        """Discard the event."""


class Reloaded(msgspec.Struct, frozen=True):
    """Variables with a new value, and those whose new value was refused, with the reason."""

    rotated: list[str]
    refused: dict[str, str]
