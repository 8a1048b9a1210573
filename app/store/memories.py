"""The store as the tool ``memory`` sees it."""

from uuid import UUID

import msgspec

from app.store.service import StoreService
from app.store.structs import ItemPut, ItemSearch


class StoredMemories:
    """Texts as items ``{"text": …}`` (``app.tools.port.Memories``)."""

    def __init__(self, store: StoreService) -> None:
        self._store = store

    async def remember(self, tenant_id: UUID, namespace: list[str], key: str, text: str) -> None:
        """Store a text, in place of the one at ``key``. Raises ``Invalid``."""
        value = msgspec.Raw(msgspec.json.encode({"text": text}))
        await self._store.put(tenant_id, ItemPut(namespace=namespace, key=key, value=value, index=["text"]))

    async def recall(self, tenant_id: UUID, namespace: list[str], text: str, limit: int) -> list[tuple[str, str]]:
        """Keys and texts. Raises ``Invalid``."""
        wanted = ItemSearch(namespace_prefix=namespace, query=text or None, limit=limit)
        found = await self._store.search(tenant_id, wanted)
        return [(item.key, _text(item.value)) for item in found]

    async def forget(self, tenant_id: UUID, namespace: list[str], key: str) -> None:
        """Remove a text. Raises ``Invalid``."""
        await self._store.delete(tenant_id, namespace, key)


def _text(value: msgspec.Raw) -> str:
    """The text of an item, which anybody with a key may have stored."""
    decoded = msgspec.json.decode(value)
    text = decoded.get("text")
    return text if isinstance(text, str) else bytes(value).decode()
