"""Searches by a question: by vectors and by words, fuse_rankings."""

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


async def test_a_question_finds_what_has_its_words_or_words_like_them(ours: Tenant) -> None:
    await fill(ours)
    for question, key in (
        ("what is Alice allergic to?", "food"),
        ("allergies", "food"),
        ("mountain climber", "sport"),
        ("violins and orchestras", "music"),
        ("taxes", "work"),
        ("LISBON", "travel"),
    ):
        assert (await ours.keys("notes", query=question))[0] == key, question


async def test_each_item_has_a_score_the_best_first(ours: Tenant) -> None:
    await fill(ours)
    found = await ours.items("notes", query="climbing mountains")
    scores = [item["score"] for item in found]
    assert len(found) == len(NOTES)
    assert scores == sorted(scores, reverse=True)
    assert 0 < scores[-1] < scores[0] <= 1
    assert found[0]["value"]["text"] == NOTES["sport"]


async def test_a_blank_question_is_none(ours: Tenant) -> None:
    await fill(ours)
    assert [item["score"] for item in await ours.items("notes", query="  ")] == [None] * 5


async def test_a_question_of_no_words_at_all_is_answered(ours: Tenant, monkeypatch: Any) -> None:
    await fill(ours)
    for prefers_exact_scan in (hybrid_search.prefers_exact_scan, always_hnsw):
        monkeypatch.setattr(hybrid_search, "prefers_exact_scan", prefers_exact_scan)
        every = await ours.items("notes", query="?!")
        assert [item["score"] for item in every] == [pytest.approx(0.5 * 61 / (60 + place)) for place in range(1, 6)]
    for question in ("?!", "'", "\\", "a & b | !c <-> (d:*", "the", "%s $1 :x", "🌍", "x" * 8000, "y " * 4000):
        assert len(await ours.items("notes", query=question)) == 5
    answer = await ours.http.post("/store/items/search", json={"query": "x" * 8001})
    assert answer.status_code == 422


async def test_a_question_stays_below_its_namespace_and_within_its_filter(ours: Tenant) -> None:
    await fill(ours, "notes.a")
    await fill(ours, "notes.ab")
    found = await ours.items("notes.a", query="climbing", limit=100)
    assert {tuple(item["namespace"]) for item in found} == {("notes", "a")}
    found = await ours.items("notes", query="climbing", filter={"length": {"$gt": 40}}, limit=100)
    assert len(found) == 2 * len([text for text in NOTES.values() if len(text) > 40])


async def test_a_tenant_finds_its_own_items_alone(ours: Tenant, theirs: Tenant) -> None:
    await fill(ours)
    assert await theirs.items(query="climbing in the mountains") == []
    await theirs.put("notes", "mine", {"text": "climbing"})
    assert await theirs.keys(query="climbing in the mountains") == ["mine"]
    assert "mine" not in await ours.keys(query="climbing in the mountains", limit=100)


async def test_an_item_put_without_an_index_is_not_found_by_a_question(store: Store, ours: Tenant) -> None:
    await ours.put("notes", "hidden", {"text": "climbing"}, index=False)
    await ours.put("notes", "shown", {"text": "climbing"})
    assert await ours.keys("notes", query="climbing") == ["shown"]
    assert await ours.keys("notes") == ["shown", "hidden"]
    assert await store.count("store_vectors_384") == 1
    await ours.put("notes", "shown", {"text": "climbing"}, index=False)
    assert await ours.keys("notes", query="climbing") == []


async def test_a_put_names_the_fields_that_are_looked_at(store: Store, ours: Tenant) -> None:
    value = {"title": "climbing", "body": "violin", "parts": [{"text": "tax report"}, {"text": "Lisbon trip"}]}
    await ours.put("notes", "other", {"title": "nothing of it"})
    await ours.put("notes", "k", value, index=["body", "parts[*].text"])
    assert await store.count("store_vectors_384") == 4
    for question in ("violin", "tax report", "Lisbon"):
        assert (await ours.keys("notes", query=question))[0] == "k"
    assert await store.count("store_items", "words @@ 'climbing'") == 0
    for field in ("", "a..b", "a[x]", "[0]"):
        answer = await ours.http.put(
            "/store/items", json={"namespace": ["a"], "key": "k", "value": {}, "index": [field]}
        )
        assert answer.status_code == 422


async def test_vectors_follow_their_item(store: Store, ours: Tenant) -> None:
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


async def test_pages_of_a_question_follow_one_another(ours: Tenant) -> None:
    for number in range(30):
        await ours.put("notes", str(number), {"text": f"note number {number}"})
    every = await ours.keys("notes", query="note number 7", limit=30)
    pages = [await ours.keys("notes", query="note number 7", limit=10, offset=offset) for offset in (0, 10, 20)]
    assert [key for page in pages for key in page] == every
    assert (len(set(every)), every[0]) == (30, "7")
    answer = await ours.http.post("/store/items/search", json={"query": "x", "limit": 10, "offset": 991})
    assert answer.status_code == 422


async def test_a_question_refreshes_what_it_finds(store: Store, ours: Tenant) -> None:
    await ours.put("notes", "k", {"text": "climbing"}, ttl=60)
    await store.do("update store_items set expires_at = now() + interval '30 seconds'")
    assert await ours.keys("notes", query="climbing", refresh_ttl=False) == ["k"]
    assert await store.count("store_items", "expires_at < now() + interval '31 seconds'") == 1
    assert await ours.keys("notes", query="climbing") == ["k"]
    assert await store.count("store_items", "expires_at < now() + interval '31 seconds'") == 0


async def test_a_question_takes_three_statements(store: Store, ours: Tenant, monkeypatch: Any) -> None:
    """One a ranking, and one for the page. Another one counts, where this process has not done so lately."""
    await fill(ours)
    assert (await ours.keys("notes", query="climbing"))[0] == "sport"
    async with sent_by(store.service.services.persistence.database) as sent:
        assert (await ours.keys("notes", query="climbing", limit=2))[0] == "sport"
    assert [name for one in sent for name in ("store_vectors_384", "store_matches", "i.namespace") if name in one] == [
        "store_vectors_384",
        "store_matches",
        "i.namespace",
    ]


async def test_where_many_items_are_the_same_is_found(ours: Tenant, monkeypatch: Any) -> None:
    await fill(ours)
    await ours.put("notes", "old", {"text": "climbing"}, ttl=1)
    exact = [await ours.items("notes", query=question, limit=3) for question in NOTES.values()]
    monkeypatch.setattr(hybrid_search, "prefers_exact_scan", always_hnsw)
    assert [await ours.items("notes", query=question, limit=3) for question in NOTES.values()] == exact
    only = {"length": len(NOTES["music"])}
    assert await ours.keys("notes", query="climbing", filter=only) == ["music"]


async def test_words_are_looked_up_for_the_tenant_of_the_session_alone(store: Store, ours: Tenant) -> None:
    """The functions that read past row level security, so that the index of words can be used."""
    await fill(ours)
    database = store.service.services.persistence.database
    look = sa.text(
        "select count(*) from store_matches(array[:asked], false, '', '~', :mostly, 100, 100, 100)"
        " where item_id is not null"
    )
    shares = sa.text("select count(*) from store_shares(array[:asked, 'nothing'], cast(:mostly as int) + 100)")
    mine = f"climbing '@{tenant_id_of('ours')}' @{tenant_id_of('ours')}"
    for asked, mostly in itertools.product(("climbing", "climbing nothing", mine), (False, True)):
        values = {"asked": asked, "mostly": mostly}
        async with database.reading(tenant_id_of("ours")) as session:
            assert await session.scalar(look, values) >= 1
        for statement in (look, shares):
            async with database.reading(tenant_id_of("theirs")) as session:
                assert await session.scalar(statement, values) == 0
            async with database._requests.connect() as connection:
                assert (await connection.execute(statement, values)).scalar() == 0
    async with database.reading(tenant_id_of("ours")) as session:
        assert await session.scalar(shares, {"asked": "climbing", "mostly": False}) == 2


async def test_what_most_items_of_others_have_is_found_of_the_tenant(
    store: Store, ours: Tenant, theirs: Tenant
) -> None:
    """Words are asked without the tenant as long as few items have them: here more have them than are looked at."""
    for number in range(9):
        await theirs.put("notes", str(number), {"text": "climbing"})
    await ours.put("notes", "mine", {"text": "climbing"})
    look = "select count(item_id) from store_matches(array['climbing'], false, '', '~', true, {}, {}, 100)"
    async with store.service.services.persistence.database.reading(tenant_id_of("ours")) as session:
        for hits, looked in ((100, 2), ("null", 2), (100, 5), (100, 6)):
            assert await session.scalar(sa.text(look.format(hits, looked))) == 1
