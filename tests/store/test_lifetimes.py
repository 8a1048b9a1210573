"""Items with a time to live."""

from tests.store.conftest import Store, Tenant

EXPIRE = "update store_items set expires_at = now() - interval '1 second' where expires_at is not null"
SOON = "update store_items set expires_at = now() + interval '30 seconds' where expires_at is not null"
LEFT = "extract(epoch from expires_at - now()) > 31"


async def test_an_expired_item_is_hidden_before_it_is_swept(store: Store, ours: Tenant) -> None:
    await ours.put("a", "short", {"v": 1}, ttl=1)
    await ours.put("b", "long", {"v": 1})
    assert sorted(await ours.keys()) == ["long", "short"]
    await store.do(EXPIRE)
    assert await ours.get("a", "short") is None
    assert await ours.keys() == ["long"]
    assert await ours.sdk.list_namespaces() == {"namespaces": [["b"]]}
    assert await store.count("store_items") == 2
    assert await store.service.services.agents.memory.maintenance.sweep() == 1
    assert await store.count("store_items") == 1


async def test_an_item_put_in_place_of_an_expired_one_is_new(store: Store, ours: Tenant) -> None:
    await ours.put("a", "k", {"v": 1}, ttl=1)
    old = await ours.get("a", "k")
    await store.do(EXPIRE)
    await ours.put("a", "k", {"v": 2})
    new = await ours.get("a", "k")
    assert new["created_at"] > old["created_at"]
    await store.do(EXPIRE)
    assert await store.service.services.agents.memory.maintenance.sweep() == 0


async def test_a_read_restarts_the_ttl_unless_disabled(store: Store, ours: Tenant) -> None:
    await ours.put("a", "k", {}, ttl=60)
    await store.do(SOON)
    await ours.get("a", "k", refresh_ttl=False)
    await ours.items("a", refresh_ttl=False)
    assert await store.count("store_items", LEFT) == 0
    await ours.get("a", "k")
    assert await store.count("store_items", LEFT) == 1
    await store.do(SOON)
    await ours.items("a")
    assert await store.count("store_items", LEFT) == 1


async def test_a_put_sets_or_removes_the_ttl(store: Store, ours: Tenant) -> None:
    await ours.put("a", "k", {}, ttl=60)
    await store.do(SOON)
    await ours.put("a", "k", {}, ttl=1)
    assert await store.count("store_items", "extract(epoch from expires_at - now()) between 31 and 61") == 1
    await ours.put("a", "k", {})
    assert await store.count("store_items", "expires_at is null and ttl_minutes is null") == 1
