"""Rankings and their fusion: which items take part, and which must not displace others."""

import asyncio
from typing import Any

import asyncpg
import pytest

from app.base.ids import new_id
from app.features.store.search import hybrid_search, lexical_ranking, statistics
from app.features.store.search.hybrid_search import fuse_rankings, prefers_exact_scan
from app.features.store.search.statistics import VectorCount, WordSample, at_least
from app.security.access.structs import tenant_id_of
from tests.statements import sent_by
from tests.store.conftest import Store, Tenant, always_hnsw

EXPIRE = "update store_items set expires_at = now() where key like 'old%'"


def test_the_leader_of_every_ranking_scores_one_and_ties_are_newest_first() -> None:
    a, b, c, d = (new_id() for _ in range(4))
    scored = fuse_rankings([[a, b], [a, c]])
    assert [item for item, _ in scored] == [a, c, b]
    assert [score for _, score in scored] == [pytest.approx(1), *[pytest.approx(61 / 124)] * 2]
    assert [item for item, _ in fuse_rankings([[a, b, c], [d, c, b]])] == [c, b, d, a]
    assert fuse_rankings([[], []]) == []


def test_small_scopes_are_scanned_exactly_and_large_ones_by_hnsw_depending_on_their_share() -> None:
    assert prefers_exact_scan(VectorCount(own=900, total=900), 20)
    assert not prefers_exact_scan(VectorCount(own=5_000, total=5_000), 20)
    assert prefers_exact_scan(VectorCount(own=1_000, total=100_000), 20)
    assert not prefers_exact_scan(VectorCount(own=10_000, total=100_000), 20)
    assert prefers_exact_scan(VectorCount(own=10_000, total=1_000_000), 20)
    assert prefers_exact_scan(VectorCount(own=0, total=0), 20)


@pytest.mark.parametrize("how", [prefers_exact_scan, always_hnsw], ids=["exact", "hnsw"])
async def test_expired_items_displace_no_others(store: Store, ours: Tenant, monkeypatch: Any, how: Any) -> None:
    monkeypatch.setattr(hybrid_search, "prefers_exact_scan", how)
    await asyncio.gather(*(ours.put("a", f"old{number}", {"text": "climbing"}, ttl=5) for number in range(230)))
    await asyncio.gather(*(ours.put("a", f"live{number}", {"text": f"violin {number}"}) for number in range(5)))
    await store.do(EXPIRE)
    for limit in (3, 5, 10):
        found = await ours.keys("a", query="climbing", limit=limit)
        assert len(found) == min(limit, 5)
        assert all(key.startswith("live") for key in found)
    assert len(await ours.keys("a", query="climbing", filter={"text": {"$ne": "violin 1"}})) == 4


async def test_expired_items_make_no_page_shorter_or_worse(store: Store, ours: Tenant, monkeypatch: Any) -> None:
    monkeypatch.setattr(hybrid_search, "prefers_exact_scan", always_hnsw)
    await asyncio.gather(*(ours.put("a", f"old{number}", {"text": "climbing"}, ttl=5) for number in range(30)))
    await asyncio.gather(*(ours.put("a", f"near{number}", {"text": f"climbing {number}"}) for number in range(12)))
    await asyncio.gather(*(ours.put("a", f"far{number}", {"text": f"violin {number}"}) for number in range(60)))
    await store.do(EXPIRE)
    for limit, offset in ((10, 0), (5, 5), (12, 0)):
        found = await ours.keys("a", query="climbing", limit=limit, offset=offset)
        assert len(found) == limit
        assert all(key.startswith("near") for key in found)


@pytest.mark.parametrize("how", [prefers_exact_scan, always_hnsw], ids=["exact", "hnsw"])
async def test_an_item_with_many_texts_is_found_once(ours: Tenant, monkeypatch: Any, how: Any) -> None:
    monkeypatch.setattr(hybrid_search, "prefers_exact_scan", how)
    parts = [f"climbing {number}" for number in range(16)]
    await asyncio.gather(
        *(ours.put("a", str(number), {"parts": parts}, index=["parts[*]"]) for number in range(40)),
        ours.put("a", "other", {"parts": ["violin"]}, index=["parts[*]"]),
    )
    found = await ours.keys("a", query="climbing", limit=41)
    assert len(found) == len(set(found)) == 41
    assert found[-1] == "other"


async def test_very_common_words_rank_nothing_next_to_vectors(ours: Tenant, monkeypatch: Any) -> None:
    monkeypatch.setattr(lexical_ranking, "MAX_MATCHES", 3)
    for number in range(6):
        await ours.put("a", str(number), {"text": f"report {number}"})
    await ours.put("a", "rare", {"text": "report of violins"})
    alone = [item["score"] for item in await ours.items("a", query="report")]
    assert alone == [pytest.approx(0.5 * 61 / (60 + place)) for place in range(1, 8)]
    (first, second, *_) = await ours.items("a", query="report violins")
    assert (first["key"], first["score"]) == ("rare", pytest.approx(1))
    assert second["score"] == pytest.approx(0.5 * 61 / 62)
    assert (await ours.keys("a", query="report 3"))[0] == "3"


async def test_a_sample_finds_common_words_before_a_search(store: Store, ours: Tenant, monkeypatch: Any) -> None:
    monkeypatch.setattr(lexical_ranking, "MAX_MATCHES", 3)
    for number in range(14):
        await ours.put("a", str(number), {"text": f"report {number}"})
    await ours.put("a", "rare", {"text": "report of violins"})
    monkeypatch.setattr(statistics, "MIN_SAMPLED_VECTORS", 15)
    for times in (1, 2):
        async with sent_by(store.service.services.persistence.database) as sent:
            (first, second, *_) = await ours.items("a", query="report violins")
        assert (first["key"], first["score"]) == ("rare", pytest.approx(1))
        assert second["score"] == pytest.approx(0.5 * 61 / 62)
        assert len([one for one in sent if "store_matches" in one]) == 1
        assert len([one for one in sent if "tablesample" in one]) == (2 if times == 1 else 0)


@pytest.mark.parametrize(
    "counts, left",
    [
        ({}, ["a", "b", "c's"]),
        ({"a": 200}, ["a", "b", "c's"]),
        ({"a": 200, "b": 150}, ["c's"]),
        ({"a": 2000, "b": 180}, ["b", "c's"]),
        ({"a": 2000, "b": 400}, ["c's"]),
        ({"c": 2000, "s": 2000}, ["a", "b", "c's"]),
    ],
)
def test_common_words_are_dropped_by_sample(counts: Any, left: list[str]) -> None:
    assert lexical_ranking.drop_common(["a", "b", "c's"], WordSample(counts, dominant=False)) == left


def test_a_sample_gives_lower_bounds() -> None:
    assert at_least(100, deviations=2) == 80
    assert at_least(20, deviations=1) == pytest.approx(15.5, abs=0.1)


async def test_without_vectors_items_with_any_word_are_found(store: Store, ours: Tenant, monkeypatch: Any) -> None:
    monkeypatch.setattr(lexical_ranking, "MAX_MATCHES", 3)
    for number in range(6):
        await ours.put("a", str(number), {"text": f"report {number}"})
    await store.do("delete from store_vectors_384")
    store.service.services.features.store.indexing._versions.serving._spaces.clear()
    found = await ours.keys("a", query="report 3")
    assert found[0] == "3"
    assert len(found) == 4
    assert await ours.keys("a", query="5") == ["5"]
    assert await ours.keys("a", query="violin") == []


async def test_a_failed_search_leaves_no_transaction_and_no_tenant_in_the_session(store: Store) -> None:
    database = store.service.services.persistence.database
    for _ in range(12):  # more than there are connections
        with pytest.raises(asyncpg.DivisionByZeroError):
            async with database.tuned(tenant_id_of("ours"), "") as connection:
                await connection.fetch("select 1 / 0")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05), database.tuned(tenant_id_of("ours"), "") as connection:
                await connection.fetch("select pg_sleep(5)")
        async with database._requests.connect() as plain:
            raw = (await plain.get_raw_connection()).driver_connection
            assert raw is not None
            assert not raw.is_in_transaction()
            assert await raw.fetchval("select current_setting('app.tenant', true)") in {None, ""}
