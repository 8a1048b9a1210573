"""Searches with a query: rankings by vectors and by words, combined."""

import itertools
from typing import Any

import pytest
import sqlalchemy as sa

from app.features.store.search import hybrid_search
from app.security.access.structs import tenant_id_of
from tests.statements import sent_by
from tests.store.conftest import Store, Tenant, always_hnsw

NOTES = {
    "food": "Alice is allergic to peanuts and shellfish",
    "sport": "Bob goes climbing in the mountains every weekend",
    "work": "The quarterly tax report is due in March",
    "music": "Carol plays the violin in an orchestra",
    "travel": "A trip to Lisbon is planned for the spring",
}


async def fill(tenant: Tenant, namespace: str = "notes") -> None:
    for key, text in NOTES.items():
        await tenant.put(namespace, key, {"text": text, "length": len(text)})


async def test_a_query_finds_items_with_its_words_or_similar_ones(ours: Tenant) -> None:
    await fill(ours)
    for query, key in (
        ("what is Alice allergic to?", "food"),
        ("allergies", "food"),
        ("mountain climber", "sport"),
        ("violins and orchestras", "music"),
        ("taxes", "work"),
        ("LISBON", "travel"),
    ):
        assert (await ours.keys("notes", query=query))[0] == key, query


async def test_items_have_scores_the_best_first(ours: Tenant) -> None:
    await fill(ours)
    found = await ours.items("notes", query="climbing mountains")
    scores = [item["score"] for item in found]
    assert len(found) == len(NOTES)
    assert scores == sorted(scores, reverse=True)
    assert 0 < scores[-1] < scores[0] <= 1
    assert found[0]["value"]["text"] == NOTES["sport"]


async def test_a_blank_query_is_ignored(ours: Tenant) -> None:
    await fill(ours)
    assert [item["score"] for item in await ours.items("notes", query="  ")] == [None] * 5


async def test_a_query_without_words_is_answered(ours: Tenant, monkeypatch: Any) -> None:
    await fill(ours)
    for choice in (hybrid_search.prefers_exact_scan, always_hnsw):
        monkeypatch.setattr(hybrid_search, "prefers_exact_scan", choice)
        every = await ours.items("notes", query="?!")
        assert [item["score"] for item in every] == [pytest.approx(0.5 * 61 / (60 + place)) for place in range(1, 6)]
    for query in ("?!", "'", "\\", "a & b | !c <-> (d:*", "the", "%s $1 :x", "🌍", "x" * 8000, "y " * 4000):
        assert len(await ours.items("notes", query=query)) == 5
    answer = await ours.http.post("/store/items/search", json={"query": "x" * 8001})
    assert answer.status_code == 422


async def test_a_query_stays_within_its_namespace_and_filter(ours: Tenant) -> None:
    await fill(ours, "notes.a")
    await fill(ours, "notes.ab")
    found = await ours.items("notes.a", query="climbing", limit=100)
    assert {tuple(item["namespace"]) for item in found} == {("notes", "a")}
    found = await ours.items("notes", query="climbing", filter={"length": {"$gt": 40}}, limit=100)
    assert len(found) == 2 * len([text for text in NOTES.values() if len(text) > 40])


async def test_a_tenant_finds_only_its_own_items(ours: Tenant, theirs: Tenant) -> None:
    await fill(ours)
    assert await theirs.items(query="climbing in the mountains") == []
    await theirs.put("notes", "mine", {"text": "climbing"})
    assert await theirs.keys(query="climbing in the mountains") == ["mine"]
    assert "mine" not in await ours.keys(query="climbing in the mountains", limit=100)


async def test_an_item_put_without_an_index_is_not_found_by_a_query(store: Store, ours: Tenant) -> None:
    await ours.put("notes", "hidden", {"text": "climbing"}, index=False)
    await ours.put("notes", "shown", {"text": "climbing"})
    assert await ours.keys("notes", query="climbing") == ["shown"]
    assert await ours.keys("notes") == ["shown", "hidden"]
    assert await store.count("store_vectors_384") == 1
    await ours.put("notes", "shown", {"text": "climbing"}, index=False)
    assert await ours.keys("notes", query="climbing") == []


async def test_a_put_names_the_fields_to_index(store: Store, ours: Tenant) -> None:
    value = {"title": "climbing", "body": "violin", "parts": [{"text": "tax report"}, {"text": "Lisbon trip"}]}
    await ours.put("notes", "other", {"title": "unrelated"})
    await ours.put("notes", "k", value, index=["body", "parts[*].text"])
    assert await store.count("store_vectors_384") == 4
    for query in ("violin", "tax report", "Lisbon"):
        assert (await ours.keys("notes", query=query))[0] == "k"
    assert await store.count("store_items", "words @@ 'climbing'") == 0
    for field in ("", "a..b", "a[x]", "[0]"):
        answer = await ours.http.put(
            "/store/items", json={"namespace": ["a"], "key": "k", "value": {}, "index": [field]}
        )
        assert answer.status_code == 422


async def test_vectors_are_replaced_and_deleted_with_their_item(store: Store, ours: Tenant) -> None:
    await fill(ours)
    await ours.put("notes", "food", {"text": "Alice eats everything"})
    assert await store.count("store_vectors_384") == len(NOTES)
    assert (await ours.keys("notes", query="peanuts shellfish"))[0] != "food"
    await ours.sdk.delete_item(["notes"], "food")
    assert await store.count("store_vectors_384") == len(NOTES) - 1
    await store.do("update store_items set expires_at = now()")
    assert await ours.items("notes", query="climbing") == []
    await store.service.services.agents.memory.maintenance.sweep()
    assert await store.count("store_vectors_384") == await store.count("store_items") == 0


async def test_a_query_is_paginated(ours: Tenant) -> None:
    for number in range(30):
        await ours.put("notes", str(number), {"text": f"note number {number}"})
    every = await ours.keys("notes", query="note number 7", limit=30)
    pages = [await ours.keys("notes", query="note number 7", limit=10, offset=offset) for offset in (0, 10, 20)]
    assert [key for page in pages for key in page] == every
    assert (len(set(every)), every[0]) == (30, "7")
    answer = await ours.http.post("/store/items/search", json={"query": "x", "limit": 10, "offset": 991})
    assert answer.status_code == 422


async def test_a_query_restarts_the_ttl_of_the_items_it_finds(store: Store, ours: Tenant) -> None:
    await ours.put("notes", "k", {"text": "climbing"}, ttl=60)
    await store.do("update store_items set expires_at = now() + interval '30 seconds'")
    assert await ours.keys("notes", query="climbing", refresh_ttl=False) == ["k"]
    assert await store.count("store_items", "expires_at < now() + interval '31 seconds'") == 1
    assert await ours.keys("notes", query="climbing") == ["k"]
    assert await store.count("store_items", "expires_at < now() + interval '31 seconds'") == 0


async def test_a_query_takes_three_statements(store: Store, ours: Tenant, monkeypatch: Any) -> None:
    """One for each ranking and one for the page; a cached count takes none."""
    await fill(ours)
    assert (await ours.keys("notes", query="climbing"))[0] == "sport"
    async with sent_by(store.service.services.persistence.database) as sent:
        assert (await ours.keys("notes", query="climbing", limit=2))[0] == "sport"
    assert [name for one in sent for name in ("store_vectors_384", "store_matches", "i.namespace") if name in one] == [
        "store_vectors_384",
        "store_matches",
        "i.namespace",
    ]


async def test_both_scans_find_the_same_items(ours: Tenant, monkeypatch: Any) -> None:
    await fill(ours)
    await ours.put("notes", "old", {"text": "climbing"}, ttl=1)
    exact = [await ours.items("notes", query=query, limit=3) for query in NOTES.values()]
    monkeypatch.setattr(hybrid_search, "prefers_exact_scan", always_hnsw)
    assert [await ours.items("notes", query=query, limit=3) for query in NOTES.values()] == exact
    only = {"length": len(NOTES["music"])}
    assert await ours.keys("notes", query="climbing", filter=only) == ["music"]


async def test_words_are_searched_only_for_the_tenant_of_the_session(store: Store, ours: Tenant) -> None:
    """Of the functions that bypass row level security to use the index of words."""
    await fill(ours)
    database = store.service.services.persistence.database
    matches = sa.text(
        "select count(*) from store_matches(array[:asked], false, '', '~', :mostly, 100, 100, 100)"
        " where item_id is not null"
    )
    shares = sa.text("select count(*) from store_shares(array[:asked, 'nothing'], cast(:mostly as int) + 100)")
    mine = f"climbing '@{tenant_id_of('ours')}' @{tenant_id_of('ours')}"
    for asked, mostly in itertools.product(("climbing", "climbing nothing", mine), (False, True)):
        values = {"asked": asked, "mostly": mostly}
        async with database.reading(tenant_id_of("ours")) as session:
            assert await session.scalar(matches, values) >= 1
        for statement in (matches, shares):
            async with database.reading(tenant_id_of("theirs")) as session:
                assert await session.scalar(statement, values) == 0
            async with database._requests.connect() as connection:
                assert (await connection.execute(statement, values)).scalar() == 0
    async with database.reading(tenant_id_of("ours")) as session:
        assert await session.scalar(shares, {"asked": "climbing", "mostly": False}) == 2


async def test_a_word_that_most_items_of_other_tenants_have_is_found(
    store: Store, ours: Tenant, theirs: Tenant
) -> None:
    """Words are searched without the tenant while few items have them: here more have them than are read."""
    for number in range(9):
        await theirs.put("notes", str(number), {"text": "climbing"})
    await ours.put("notes", "mine", {"text": "climbing"})
    matches = "select count(item_id) from store_matches(array['climbing'], false, '', '~', true, {}, {}, 100)"
    async with store.service.services.persistence.database.reading(tenant_id_of("ours")) as session:
        for hits, looked in ((100, 2), ("null", 2), (100, 5), (100, 6)):
            assert await session.scalar(sa.text(matches.format(hits, looked))) == 1
