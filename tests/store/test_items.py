"""Items: put, get, replace, delete, list namespaces, and search by fields."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import pytest

from app.features.store import queries
from app.features.store.index import sql
from app.features.store.search import hybrid_search
from tests.statements import sent_by
from tests.store.conftest import Store, Tenant


async def test_an_item_is_read_as_it_was_stored(ours: Tenant) -> None:
    value = {"text": "Grüße, 世界 🌍", "n": 1.5, "big": 2**53, "list": [1, {"a": None}], "empty": {}}
    await ours.put("users.u1", "k", value)
    item = await ours.get("users.u1", "k")
    assert item["namespace"] == ["users", "u1"]
    assert (item["key"], item["value"]) == ("k", value)
    assert datetime.fromisoformat(item["created_at"]) == datetime.fromisoformat(item["updated_at"])
    assert set(item) == {"namespace", "key", "value", "created_at", "updated_at"}


async def test_a_missing_item_is_null(ours: Tenant) -> None:
    assert await ours.get("users.u1", "k") is None
    answer = await ours.http.get("/store/items", params={"namespace": "users.u1", "key": "k"})
    assert (answer.status_code, answer.text) == (200, "null")


async def test_a_second_put_replaces_the_first(ours: Tenant) -> None:
    await ours.put("a", "k", {"v": 1, "old": True})
    first = await ours.get("a", "k")
    await ours.put("a", "k", {"v": 2})
    second = await ours.get("a", "k")
    assert second["value"] == {"v": 2}
    assert second["created_at"] == first["created_at"]
    assert second["updated_at"] > first["updated_at"]
    assert await ours.keys("a") == ["k"]


async def test_deleting_an_item_is_idempotent(ours: Tenant) -> None:
    await ours.put("a", "k", {})
    await ours.put("a", "other", {})
    for _ in range(2):
        await ours.sdk.delete_item(["a"], "k")
    assert await ours.get("a", "k") is None
    assert await ours.keys("a") == ["other"]


async def test_puts_and_deletes_have_no_response_body(ours: Tenant) -> None:
    name = {"namespace": ["a"], "key": "k"}
    put = await ours.http.put("/store/items", json={**name, "value": {}, "unknown": 1})
    deleted = await ours.http.request("DELETE", "/store/items", json=name)
    assert [(answer.status_code, answer.content) for answer in (put, deleted)] == [(204, b"")] * 2


async def test_a_search_finds_items_at_and_below_a_namespace_the_newest_first(ours: Tenant) -> None:
    for place in ("users.u1", "users.u1.deep", "users.u10", "users", "other.users", "users-u1"):
        await ours.put(place, place, {})
    assert await ours.keys("users.u1") == ["users.u1.deep", "users.u1"]
    assert await ours.keys("users") == ["users", "users.u10", "users.u1.deep", "users.u1"]
    assert len(await ours.keys()) == 6
    assert await ours.keys("unused") == []
    (item,) = await ours.items("users-u1")
    assert item["score"] is None


async def test_a_search_is_paginated(ours: Tenant) -> None:
    for number in range(25):
        await ours.put("a", str(number), {})
    pages = [await ours.keys("a", limit=10, offset=offset) for offset in (0, 10, 20, 30)]
    assert [key for page in pages for key in page] == [str(number) for number in reversed(range(25))]
    assert len(await ours.keys("a")) == 10


FILTERS: list[tuple[dict[str, Any], str]] = [
    ({"kind": "a"}, "13"),
    ({"kind": "a", "n": 3}, "3"),
    ({"kind": {"$eq": "b"}}, "2"),
    ({"kind": {"$ne": "a"}}, "245"),
    ({"n": {"$gt": 2}}, "3"),
    ({"n": {"$gte": 2}}, "23"),
    ({"n": {"$lt": 2.5, "$gt": 1}}, "2"),
    ({"n": {"$lte": 10}}, "123"),
    ({"n": "3"}, "4"),
    ({"n": {"$gt": "2"}}, "4"),
    ({"at": {"$gte": "2026-01-01", "$lt": "2026-02-01"}}, "1"),
    ({"sub": {"x": [1, 2]}}, "1"),
    ({"sub": {"x": [2, 1]}}, ""),
    ({"sub": {}}, ""),
    ({"list": [1]}, "2"),
    ({"yes": True}, "3"),
    ({"kind": None}, "5"),
    ({"kind": {"$ne": None}}, "1234"),
    ({"missing": None}, "12345"),
    ({'it\'s "$1" :x %s': 1}, "5"),
    ({}, "12345"),
]


async def test_a_filter_compares_fields_of_the_value(ours: Tenant) -> None:
    values: list[dict[str, Any]] = [
        {"kind": "a", "n": 1, "at": "2026-01-15", "sub": {"x": [1, 2]}},
        {"kind": "b", "n": 2, "at": "2026-02-15", "list": [1]},
        {"kind": "a", "n": 3, "yes": True},
        {"kind": "c", "n": "3", "yes": "true"},
        {'it\'s "$1" :x %s': 1},
    ]
    for number, value in enumerate(values, 1):
        await ours.put("a", str(number), value)
    for wanted, keys in FILTERS:
        assert "".join(sorted(await ours.keys("a", filter=wanted))) == "".join(sorted(keys)), wanted


async def test_namespaces_are_listed_by_prefix_suffix_and_depth(ours: Tenant) -> None:
    for place in ("docs.u1.reports", "docs.u2.invoices", "docs.u2.reports", "docs.u2.reports.old", "mail", "zoo.a"):
        await ours.put(place, "1", {})
        await ours.put(place, "2", {})

    async def listed(**wanted: Any) -> list[str]:
        return [".".join(one) for one in (await ours.sdk.list_namespaces(**wanted))["namespaces"]]

    every = await listed()
    assert every == [
        "docs.u1.reports",
        "docs.u2.invoices",
        "docs.u2.reports",
        "docs.u2.reports.old",
        "mail",
        "zoo.a",
    ]
    assert await listed(prefix=["docs", "u2"]) == every[1:4]
    assert await listed(prefix=["doc"]) == []
    assert await listed(prefix=["docs", "*", "reports"]) == [
        "docs.u1.reports",
        "docs.u2.reports",
        "docs.u2.reports.old",
    ]
    assert await listed(suffix=["reports"]) == ["docs.u1.reports", "docs.u2.reports"]
    assert await listed(suffix=["*", "old"], prefix=["docs"]) == ["docs.u2.reports.old"]
    assert await listed(max_depth=1) == ["docs", "mail", "zoo"]
    assert await listed(prefix=["docs"], max_depth=2) == ["docs.u1", "docs.u2"]
    assert await listed(limit=2, offset=1) == every[1:3]
    await ours.sdk.delete_item(["mail"], "1")
    assert "mail" in await listed()
    await ours.sdk.delete_item(["mail"], "2")
    assert "mail" not in await listed()


async def test_a_tenant_cannot_reach_items_of_another(ours: Tenant, theirs: Tenant) -> None:
    await ours.put("shared.name", "k", {"owner": "ours"})
    assert await theirs.get("shared.name", "k") is None
    assert await theirs.items() == []
    assert await theirs.sdk.list_namespaces() == {"namespaces": []}
    await theirs.sdk.delete_item(["shared", "name"], "k")
    await theirs.put("shared.name", "k", {"owner": "theirs"})
    assert (await ours.get("shared.name", "k"))["value"] == {"owner": "ours"}
    assert [item["value"] for item in await theirs.items()] == [{"owner": "theirs"}]


BACKGROUND = {
    queries.DELETE_EXPIRED,
    sql.SETTLED_VERSION,
    sql.HAS_OLDER_VERSION,
    sql.OUTDATED_ITEMS,
    sql.SERVE_VERSION,
    sql.DELETE_OLDER_VERSIONS,
    sql.REGISTERED_VERSIONS,
}
"""Statements of the store's background tasks."""


async def test_a_put_a_read_and_a_search_take_one_statement_each(store: Store, ours: Tenant) -> None:
    """In addition to the one that sets the tenant of the session for row level security."""
    works: dict[str, Callable[[], Awaitable[Any]]] = {
        "put": lambda: ours.put("a", "k", {"v": 1}),
        "get": lambda: ours.get("a", "k"),
        "search": lambda: ours.items("a", filter={"v": 1}),
        "namespaces": ours.sdk.list_namespaces,
        "delete": lambda: ours.sdk.delete_item(["a"], "k"),
    }
    costs: dict[str, int] = {}
    async with sent_by(store.service.services.persistence.database) as sent:
        for name, work in works.items():
            sent.clear()
            await work()
            costs[name] = len([one for one in sent if "store_" in one and one not in BACKGROUND])
    assert costs == dict.fromkeys(works, 1)


async def test_a_read_only_key_reads_and_changes_nothing(store: Store, ours: Tenant) -> None:
    await ours.put("a", "k", {"v": 1})
    key = {"x-api-key": await store.service.key("ours", "read")}
    name = {"namespace": ["a"], "key": "k"}
    for method, path, body, status in (
        ("PUT", "/items", {**name, "value": {}}, 403),
        ("DELETE", "/items", name, 403),
        ("POST", "/items/search", {}, 200),
        ("POST", "/namespaces", {}, 200),
    ):
        answer = await ours.http.request(method, f"/store{path}", json=body, headers=key)
        assert answer.status_code == status, answer.text
    assert (await ours.get("a", "k"))["value"] == {"v": 1}


@pytest.mark.parametrize("query", [{}, {"query": "violin"}])
async def test_a_page_of_large_items_is_cut_and_names_the_next_offset(
    ours: Tenant, monkeypatch: pytest.MonkeyPatch, query: dict[str, str]
) -> None:
    monkeypatch.setattr(hybrid_search, "MAX_ANSWER_BYTES", 1_000_000)
    monkeypatch.setattr(hybrid_search, "FETCH_SIZE", 4)
    for n in range(7):
        await ours.put("large", f"k{n}", {"text": "violin", "ballast": "x" * 300_000})
    found: list[str] = []
    sizes = []
    offset = "0"
    while offset:
        body = {"namespace_prefix": ["large"], "limit": 1000, "offset": int(offset), **query}
        if query:
            body["limit"] = 1000 - int(offset)
        answer = await ours.http.post("/store/items/search", json=body)
        page = answer.json()["items"]
        found += [one["key"] for one in page]
        sizes.append(len(page))
        offset = answer.headers.get("x-pagination-next", "")
    assert sizes == [3, 3, 1]
    assert sorted(found) == [f"k{n}" for n in range(7)]


async def test_a_page_has_at_least_one_item(ours: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hybrid_search, "MAX_ANSWER_BYTES", 10)
    await ours.put("large", "k", {"ballast": "x" * 100})
    assert await ours.keys("large") == ["k"]
