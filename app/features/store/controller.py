"""HTTP routes of the store, the long-term memory across threads."""

from litestar import Controller, Response, delete, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromQuery, JSONBody

from app.features.access.guard import READS, WRITES, CurrentPrincipal
from app.features.store.service import StoreService
from app.features.store.structs import (
    FoundItems,
    FoundNamespaces,
    Item,
    ItemDelete,
    ItemPut,
    ItemSearch,
    NamespaceSearch,
)
from app.infra.http.query_params import NEXT_PAGE

Service = NamedDependency[StoreService]


class StoreController(Controller):
    """Items: JSON values by namespace and key, searched by field, by meaning and by words."""

    path = "/store"
    tags = ("store",)
    opt = WRITES

    @put("/items", status_code=204, summary="Store an item")
    async def put_item(self, data: JSONBody[ItemPut], principal: CurrentPrincipal, store: Service) -> None:
        """Replace the item with the same namespace and key."""
        await store.put(principal, data)

    @get("/items", opt=READS, summary="One item")
    async def get_item(
        self,
        principal: CurrentPrincipal,
        store: Service,
        namespace: FromQuery[str],
        key: FromQuery[str],
        refresh_ttl: FromQuery[bool | None] = None,
    ) -> Item | None:
        """``namespace``: labels joined by dots. Null if the item does not exist."""
        return await store.get(principal, namespace.split(".") if namespace else [], key, refresh_ttl)

    @delete("/items", summary="Remove an item")
    async def delete_item(self, data: JSONBody[ItemDelete], principal: CurrentPrincipal, store: Service) -> None:
        """Succeeds also if the item does not exist."""
        await store.delete(principal, data.namespace, data.key)

    @post("/items/search", status_code=200, opt=READS, summary="Search items")
    async def search(
        self, data: JSONBody[ItemSearch], principal: CurrentPrincipal, store: Service
    ) -> Response[FoundItems]:
        """The newest first; with a ``query``, the best first.

        A page cut because its items are large has the offset of the next one in ``X-Pagination-Next``.
        """
        found, following = await store.search(principal, data)
        return Response(FoundItems(items=found), headers={} if following is None else {NEXT_PAGE: str(following)})

    @post("/namespaces", status_code=200, opt=READS, summary="List namespaces")
    async def namespaces(
        self, data: JSONBody[NamespaceSearch], principal: CurrentPrincipal, store: Service
    ) -> FoundNamespaces:
        """Namespaces that hold items, in order."""
        return FoundNamespaces(namespaces=await store.namespaces(principal, data))
