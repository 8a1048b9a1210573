"""``context.store`` and ``context.documents``: long-term memory, limited to the caller's permissions.

Each result is recorded, as a step's is.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from app.agents.functions.session import FunctionSession
from app.agents.functions.steps import run_step
from app.agents.tools.port import Fields, LongTerm, Passage, StoredItem
from app.domain.caller import Caller


class StoreAccess:
    """Read and write items of the store. A namespace is a list of labels.

    Each call is a step: a replayed function gets the recorded result. Raises ``Invalid`` if the store rejects the
    arguments, ``Forbidden`` if the caller lacks the permission.
    """

    def __init__(self, session: FunctionSession, store: LongTerm | None) -> None:
        self._session = session
        self._store = store

    async def put(self, namespace: Sequence[str], key: str, value: Mapping[str, Any], *, index: Fields = None) -> None:
        """Store ``value``, replacing an existing item; ``index`` as in the API."""
        await self._step("store_put", self._require_store().put, list(namespace), key, dict(value), index)

    async def get(self, namespace: Sequence[str], key: str) -> dict[str, Any] | None:
        """Return the stored value, or None."""
        item: StoredItem | None = await self._step(
            "store_get", self._require_store().get, list(namespace), key, kind=StoredItem | None
        )
        return None if item is None else item.value

    async def delete(self, namespace: Sequence[str], key: str) -> None:
        """Delete the item if it exists."""
        await self._step("store_delete", self._require_store().delete, list(namespace), key)

    async def search(
        self,
        prefix: Sequence[str],
        query: str = "",
        *,
        filter: Mapping[str, Any] | None = None,  # noqa: A002  as clients call it
        limit: int = 10,
    ) -> list[StoredItem]:
        """Return items at and below ``prefix``: best match first, or newest first without a ``query``."""
        found: list[StoredItem] = await self._step(
            "store_search", self._require_store().search, list(prefix), query, filter, limit, kind=list[StoredItem]
        )
        return found

    def _require_store(self) -> LongTerm:
        if self._store is None:
            raise RuntimeError("no store is available here")
        return self._store

    async def _step(self, name: str, work: Any, *args: Any, kind: Any = Any) -> Any:
        return await run_step(self._session, name, functools.partial(work, _caller(self._session), *args), kind)


class DocumentAccess:
    """Search the tenant's documents. A search is a step. Raises ``Invalid`` if the query is invalid."""

    def __init__(self, session: FunctionSession, store: LongTerm | None) -> None:
        self._session = session
        self._store = store

    async def search(
        self,
        query: str,
        *,
        collection: str = "",
        filter: Mapping[str, Any] | None = None,  # noqa: A002  as clients call it
        limit: int = 5,
    ) -> list[Passage]:
        """Return passages that match ``query``, best first, of one collection or all, with their citation data."""
        if self._store is None:
            raise RuntimeError("no documents are available here")
        work = functools.partial(self._store.passages, _caller(self._session), query, collection, filter, limit)
        found: list[Passage] = await run_step(self._session, "documents_search", work, list[Passage])
        return found


def _caller(session: FunctionSession) -> Caller:
    return Caller.of(session.run.tenant_id, session.run.config.configurable)
