"""Whose data: those of a tenant, or of one person inside it."""

from typing import Any
from uuid import UUID

import msgspec

from app.agents.tools.builtin.memory import OWNER_FIELD, namespace_of


class DataSubject(msgspec.Struct, frozen=True, kw_only=True):
    """All data of the tenant; with ``metadata``, those of the person whom these fields of metadata name.

    ``namespaces`` are places of the store that are the person's too, as labels; what the tool ``memory`` keeps for a
    ``user_id`` is found without being named.
    """

    tenant_id: UUID
    metadata: dict[str, Any] = {}
    namespaces: tuple[tuple[str, ...], ...] = ()

    @property
    def whole(self) -> bool:
        """Whether it is everything of the tenant."""
        return not self.metadata

    def parameters(self) -> tuple[UUID, str, list[str], list[str]]:
        """``$1`` to ``$4`` of the statements in ``queries``: tenant, metadata, its fields, places of the store."""
        places = [list(labels) for labels in self.namespaces]
        if person := str(self.metadata.get(OWNER_FIELD) or ""):
            places.append(namespace_of({OWNER_FIELD: person}))
        metadata = msgspec.json.encode(self.metadata).decode()
        return self.tenant_id, metadata, list(self.metadata), ["".join(f"{one}." for one in place) for place in places]
