"""Who asks, and what a key allows."""

from datetime import datetime
from uuid import UUID, uuid5

import msgspec

DEFAULT_TENANT = UUID("6b0f3a5e-8a54-4f0e-9d64-0d5a53c4b3c1")
"""The tenant of single-tenant mode. The code is the same with one tenant as with many."""

DEFAULT_TENANT_NAME = "default"

USE = "use"
"""The scope of every route that is not open: all that belongs to the key's tenant."""

MONITOR = "monitor"
"""The scope that shows the details of ``GET /health``."""

SCOPES = frozenset({USE, MONITOR})
"""Everything that a key can allow."""


def tenant_id_of(name: str) -> UUID:
    """The id of the tenant ``name``: derived from the name, so that none has to be looked up across tenants."""
    return DEFAULT_TENANT if name == DEFAULT_TENANT_NAME else uuid5(DEFAULT_TENANT, name)


class Principal(msgspec.Struct, frozen=True):
    """On whose behalf a request acts. ``key_id`` is the public part of its key (none: authentication is off)."""

    tenant_id: UUID
    key_id: str | None = None
    scopes: frozenset[str] = frozenset()

    @property
    def holder(self) -> tuple[UUID, str | None]:
        """Whose share of what is bounded per key a request takes."""
        return self.tenant_id, self.key_id


class KeyInfo(msgspec.Struct, frozen=True, kw_only=True):
    """An API key without its secret."""

    key_id: str
    name: str
    tenant_id: UUID
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
