"""For whom an agent works: what a run knows of the person who began it."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import msgspec

AUTH_USER = "langgraph_auth_user"
AUTH_USER_ID = "langgraph_auth_user_id"
AUTH_NAMES = (AUTH_USER, AUTH_USER_ID, "langgraph_auth_permissions")
"""The entries of ``configurable`` that tell an agent who asked. What a client writes there counts for nothing."""


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """For whom an agent reaches into long-term memory: a person of the tenant, or (``user`` None) the tenant itself.

    ``user`` is what the operator's handlers said of the person when the run was asked for.
    """

    tenant_id: UUID
    user: dict[str, Any] | None = None

    @classmethod
    def of(cls, tenant_id: UUID, configurable: Mapping[str, Any]) -> "Caller":
        """The one whom the ``configurable`` of a run names."""
        return cls(tenant_id=tenant_id, user=configurable.get(AUTH_USER))
