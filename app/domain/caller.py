"""The caller on whose behalf an agent works."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import msgspec

AUTH_USER = "langgraph_auth_user"
AUTH_USER_ID = "langgraph_auth_user_id"
AUTH_NAMES = (AUTH_USER, AUTH_USER_ID, "langgraph_auth_permissions")
"""Entries of ``configurable`` that identify the caller to an agent. Values sent by clients are ignored."""


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """On whose behalf an agent accesses long-term memory: a user of the tenant, or (``user`` None) the tenant itself.

    ``user`` is what the operator's auth handlers returned for the user when the run was requested.
    """

    tenant_id: UUID
    user: dict[str, Any] | None = None

    @classmethod
    def of(cls, tenant_id: UUID, configurable: Mapping[str, Any]) -> "Caller":
        """Return the caller that a run's ``configurable`` names."""
        return cls(tenant_id=tenant_id, user=configurable.get(AUTH_USER))
