"""The subject of an export or erasure."""

from typing import Any
from uuid import UUID

import msgspec

from app.agents.tools.builtin.memory import OWNER_FIELD, namespace_of


class DataSubject(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant, or with ``metadata`` the person in it whom these metadata fields identify.

    ``namespaces``: store namespaces (as labels) that belong to the person too; those of the tool ``memory`` are found
    by ``user_id``.
    """

    tenant_id: UUID
    metadata: dict[str, Any] = {}
    namespaces: tuple[tuple[str, ...], ...] = ()

    @property
    def whole(self) -> bool:
        """Return whether the subject is the whole tenant."""
        return not self.metadata

    def parameters(self) -> tuple[UUID, str, list[str], list[str]]:
        """Return ``$1`` to ``$4`` of the statements in ``queries``: tenant, metadata, its fields, namespaces."""
        namespaces = [list(labels) for labels in self.namespaces]
        if user_id := str(self.metadata.get(OWNER_FIELD) or ""):
            namespaces.append(namespace_of({OWNER_FIELD: user_id}))
        metadata = msgspec.json.encode(self.metadata).decode()
        prefixes = ["".join(f"{label}." for label in labels) for labels in namespaces]
        return self.tenant_id, metadata, list(self.metadata), prefixes
