"""``context.store`` and ``context.documents``: long-term memory, as far as the caller reaches.

What they gave is kept, as in a step.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from app.agents.functions.session import FunctionSession
from app.agents.functions.steps import run_step
from app.agents.tools.port import Fields, LongTerm, Passage, StoredItem
from app.domain.caller import Caller


class StoreAccess:
    """What the function stores and finds. A namespace is a list of labels.

    Each call is a step: a function that begins again gets what it got the first time. Raises ``Invalid`` for what the
    store does not take, ``Forbidden`` for what the person who asks may not do.
    """

    def __init__(self, session: FunctionSession, store: LongTerm | None) -> None:
        self._session = session
        self._store = store

    async def put(self, namespace: Sequence[str], key: str, value: Mapping[str, Any], *, index: Fields = None) -> None:
        """Store ``value``, in place of what is there; ``index`` as clients have it."""
        await self._step("store_put", self._there().put, list(namespace), key, dict(value), index)

    async def get(self, namespace: Sequence[str], key: str) -> dict[str, Any] | None:
        """The value that is there, or None."""
        kept: StoredItem | None = await self._step(
            "store_get", self._there().get, list(namespace), key, kind=StoredItem | None
        )
        return None if kept is None else kept.value

    async def delete(self, namespace: Sequence[str], key: str) -> None:
        """Remove what is there, if anything is."""
        await self._step("store_delete", self._there().delete, list(namespace), key)

    async def search(
        self,
        prefix: Sequence[str],
        query: str = "",
        *,
        filter: Mapping[str, Any] | None = None,  # noqa: A002  as clients call it
        limit: int = 10,
    ) -> list[StoredItem]:
        """Items at and below ``prefix``: the best first, or the newest without a ``query``."""
        found: list[StoredItem] = await self._step(
            "store_search", self._there().search, list(prefix), query, filter, limit, kind=list[StoredItem]
        )
        return found

    def _there(self) -> LongTerm:
        if self._store is None:
            raise RuntimeError("there is no store here")
        return self._store

    async def _step(self, name: str, work: Any, *args: Any, kind: Any = Any) -> Any:
        return await run_step(self._session, name, functools.partial(work, _caller(self._session), *args), kind)


class DocumentAccess:
    """What the function finds in documents. A search is a step. Raises ``Invalid`` for a question that cannot be."""

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
        """Passages that answer ``query``, the best first: of one collection, or of all; with what cites them."""
        if self._store is None:
            raise RuntimeError("there are no documents here")
        work = functools.partial(self._store.passages, _caller(self._session), query, collection, filter, limit)
        found: list[Passage] = await run_step(self._session, "documents_search", work, list[Passage])
        return found


def _caller(session: FunctionSession) -> Caller:
    return Caller.of(session.run.tenant_id, session.run.config.configurable)
