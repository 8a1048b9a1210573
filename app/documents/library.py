"""Long-term memory as agents see it, with documents: the tools ``memory`` and ``knowledge``, and ``context``."""

from collections.abc import Mapping
from typing import Any

from app.access.structs import Acting
from app.documents.finding import Finding
from app.documents.structs import PassageSearch
from app.store.longterm import AgentStore
from app.store.service import StoreService
from app.tools.caller import Caller
from app.tools.port import Passage


class Library(AgentStore):
    """The items and the documents of all tenants for agents in this process (``app.tools.port.LongTerm``)."""

    def __init__(self, store: StoreService, finding: Finding, acting: Acting) -> None:
        super().__init__(store, acting)
        self._finding = finding

    async def passages(
        self,
        caller: Caller,
        query: str,
        collection: str = "",
        filter: Mapping[str, Any] | None = None,  # noqa: A002  as clients call it
        limit: int = 5,
    ) -> list[Passage]:
        """What documents say that answers ``query``. Raises ``Invalid``."""
        wanted = PassageSearch(
            query=query, collection=collection or None, filter=dict(filter) if filter else None, limit=limit
        )
        return await self._finding.passages(self._acting(caller), wanted)
