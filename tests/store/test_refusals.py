"""Invalid requests are refused with a reason, and nothing is stored."""

import asyncio
import random
from typing import Any

from app.features.store.validation import MAX_VALUE_BYTES
from tests.store.conftest import Store, Tenant

GOOD: dict[str, Any] = {"namespace": ["a"], "key": "k", "value": {"v": 1}}

PUTS: list[tuple[dict[str, Any], str, str]] = [
    ({"namespace": []}, "/namespace", "needs a label"),
    ({"namespace": ["a.b"]}, "/namespace/0", "must not contain a dot"),
    ({"namespace": ["a", ""]}, "/namespace/1", "empty label"),
    ({"namespace": ["x" * 1000]}, "/namespace", "longer than"),
    ({"namespace": ["é" * 500]}, "/namespace", "longer than"),
    ({"namespace": ["x"] * 33}, "/namespace", "more than 32 labels"),
    ({"namespace": "a"}, "/namespace", "must be an array"),
    ({"namespace": [1]}, "/namespace/0", "must be a string"),
    ({"namespace": None}, "/namespace", "must be an array"),
    ({"key": ""}, "/key", "must not be empty"),
    ({"key": "x" * 1001}, "/key", "longer than"),
    ({"key": 7}, "/key", "must be a string"),
    ({"value": [1]}, "/value", "must be an object"),
    ({"value": "text"}, "/value", "must be an object"),
    ({"value": None}, "/value", "must be an object"),
    ({"value": {"text": "x" * MAX_VALUE_BYTES}}, "/value", "larger than"),
    ({"index": "text"}, "/index", "must be"),
    ({"index": [1]}, "/index/0", "must be a string"),
    ({"index": True}, "/index", "false"),
    ({"ttl": 0}, "/ttl", "above 0"),
    ({"ttl": -1}, "/ttl", "above 0"),
    ({"ttl": 1e300}, "/ttl", "at most"),
    ({"ttl": "1"}, "/ttl", "must be a number"),
]


async def test_an_invalid_put_is_refused_and_stores_nothing(store: Store, ours: Tenant) -> None:
    for wrong, pointer, words in PUTS:
        answer = await ours.http.put("/store/items", json={**GOOD, **wrong})
        assert answer.status_code == 422, answer.text
        assert words in answer.json()["detail"]
        assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    assert await store.count("store_items") == 0


async def test_a_put_needs_namespace_key_and_value(ours: Tenant) -> None:
    for missing in GOOD:
        rest = {name: part for name, part in GOOD.items() if name != missing}
        answer = await ours.http.put("/store/items", json=rest)
        assert (answer.status_code, answer.json()["detail"]) == (422, f"`{missing}` is required.")


BYTES = [
    (b'{"namespace": ["a"], "key": "k", "value": {"v": "\\u0000"}}', 400),
    (b'{"namespace": ["a"], "key": "\\u0000", "value": {}}', 400),
    (b'{"namespace": ["a"], "key": "k", "value": {"v": "\\ud800"}}', 400),
    (b'{"namespace": ["a"], "key": "k", "value": {"v": 1e400}}', 422),
    (b'{"namespace": ["a"], "key": "k", "value": {"v": nan}}', 422),
    (b'{"namespace": ["a"], "key": "k", "value": {"v": ' + b"[" * 70 + b"]" * 70 + b"}}", 400),
    (b'{"namespace": ["a"], "key": "k", "value": {"v": ' + b"9" * 140_000 + b"}}", 422),
    (b'{"namespace": ["a"], "key": "k", "value": {"v": "' + b"x" * 1_100_000 + b'"}}', 413),
    (b"[]", 422),
]


async def test_bytes_that_cannot_be_stored_are_refused(store: Store, ours: Tenant) -> None:
    for body, status in BYTES:
        answer = await ours.http.put("/store/items", content=body, headers={"content-type": "application/json"})
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"].startswith("application/problem+json")
    assert await store.count("store_items") == 0


ADDRESSES = [
    "namespace=a",
    "key=k",
    "namespace=&key=k",
    "namespace=a..b&key=k",
    "namespace=.&key=k",
    "namespace=a&key=",
    "namespace=a&key=%00",
    "namespace=%00&key=k",
    "namespace=a&key=k&refresh_ttl=maybe",
    f"namespace=a&key={'x' * 1001}",
]


async def test_a_get_with_an_invalid_name_is_refused(ours: Tenant) -> None:
    for address in ADDRESSES:
        answer = await ours.http.get(f"/store/items?{address}")
        assert answer.status_code == (400 if "%00" in address else 422), answer.text
        assert answer.json()["detail"]


async def test_a_name_that_is_not_utf8_finds_nothing(ours: Tenant) -> None:
    answer = await ours.http.get("/store/items?namespace=a&key=%ff%ed%a0%80")
    assert answer.status_code in {200, 422}


SEARCHES: list[dict[str, Any]] = [
    {"namespace_prefix": ["a.b"]},
    {"namespace_prefix": [""]},
    {"namespace_prefix": "a"},
    {"limit": 0},
    {"limit": 1001},
    {"limit": "1"},
    {"offset": -1},
    {"offset": 2**40},
    {"filter": [1]},
    {"filter": {"n": {"$regex": "x"}}},
    {"filter": {"n": {"$gt": 1, "x": 2}}},
    {"filter": {"n": {"$gt": None}}},
    {"filter": {"n": {"$lt": [1]}}},
    {"filter": {"n": {"$gte": True}}},
    {"filter": {str(number): 1 for number in range(33)}},
    {"filter": {"n": "x" * 100_000}},
    {"query": 1},
    {"refresh_ttl": "no"},
]


async def test_an_invalid_search_is_refused(ours: Tenant) -> None:
    for wrong in SEARCHES:
        answer = await ours.http.post("/store/items/search", json={"namespace_prefix": [], **wrong})
        assert answer.status_code == 422, (wrong, answer.text)
        assert len(answer.json()["detail"]) < 500


LISTS: list[dict[str, Any]] = [
    {"prefix": ["a.b"]},
    {"suffix": [""]},
    {"max_depth": 0},
    {"max_depth": 2**40},
    {"limit": 0},
    {"offset": -1},
]


async def test_an_invalid_list_of_namespaces_is_refused(ours: Tenant) -> None:
    for wrong in LISTS:
        assert (await ours.http.post("/store/namespaces", json=wrong)).status_code == 422


async def test_an_api_key_is_required(store: Store) -> None:
    for method, path in (
        ("PUT", "/items"),
        ("GET", "/items"),
        ("DELETE", "/items"),
        ("POST", "/items/search"),
        ("POST", "/namespaces"),
    ):
        answer = await store.service.client.request(method, f"/api/v1/store{path}")
        assert answer.status_code == 401


async def test_names_of_maximum_length_are_stored(ours: Tenant) -> None:
    namespace = ["é" * 200, "世" * 190, "x" * 27]
    await ours.sdk.put_item(namespace, "🌍" * 250, {"v": 1})
    (item,) = await ours.items()
    assert (item["namespace"], item["key"]) == (namespace, "🌍" * 250)


async def test_texts_of_any_script_and_length_are_stored_together(ours: Tenant) -> None:
    """Full text search has its own limits; a text beyond them must not fail, nor others in the same commit."""
    dice = random.Random(1)
    letters = "".join(chr(number) for number in (*range(97, 123), *range(0x4E00, 0x4E40), *range(0x1F600, 0x1F640)))
    texts = [
        "x" * 400_000,
        "xy " * 130_000,
        " ".join("".join(dice.choices(letters, k=dice.randrange(1, 12))) for _ in range(10_000)),
        " ".join(chr(0x20000 + number) for number in range(30_000)),
        " ".join(f"{number}@example.org/{number}.html?a=b&c='d'" for number in range(8_000)),
        "\t\n\r\x01\x7f\u2028\ufeff\U0010ffff '\\:*&|!()<->",
    ]
    puts = (ours.put("a", str(number), {"text": text}) for number, text in enumerate(texts))
    await asyncio.gather(*puts, ours.put("a", "small", {"text": "small"}))
    assert len(await ours.keys("a", query="small")) == len(texts) + 1


async def test_extreme_numbers_are_stored_as_parsed(ours: Tenant) -> None:
    for number, read in [
        ("1e-20000", 0.0),
        ("-1e-20000", 0.0),
        ("0." + "0" * 20_000 + "1", 0.0),
        ("1E-0020000", 0.0),
        ("-0", 0),
        ("-0.0", 0.0),
        ("1e308", 1e308),
        ("123456789012345678901234567890", 123456789012345678901234567890),
        ("5e-324", 5e-324),
    ]:
        body = f'{{"namespace": ["edges"], "key": "k", "value": {{"n": {number}, "text": "1e-20000"}}}}'
        answer = await ours.http.put("/store/items", content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 204, answer.text
        found = await ours.http.get("/store/items", params={"namespace": "edges", "key": "k"})
        value = found.json()["value"]
        assert (float(value["n"]), value["text"]) == (float(read), "1e-20000")


async def test_numbers_out_of_range_are_422_on_every_route(ours: Tenant) -> None:
    for number in ["1e400", "-1e400", "1e99999", "1" + "0" * 200_000, "NaN", "Infinity", "-", "01", "1e"]:
        thread_id = (await ours.http.post("/threads", json={})).json()["thread_id"]
        for method, path, body in (
            ("PUT", "/store/items", '{"namespace": ["edges"], "key": "k", "value": {"n": N}}'),
            ("POST", "/store/items/search", '{"namespace_prefix": ["edges"], "filter": {"n": N}}'),
            ("POST", "/threads", '{"metadata": {"n": N}}'),
            ("POST", "/threads/search", '{"values": {"n": N}}'),
            ("POST", f"/threads/{thread_id}/state", '{"values": {"messages": [], "n": N}, "as_node": "model"}'),
            ("POST", f"/threads/{thread_id}/runs", '{"assistant_id": "echo", "input": {"n": N}}'),
        ):
            content = body.replace("N", number)
            answer = await ours.http.request(
                method, path, content=content, headers={"content-type": "application/json"}
            )
            assert (answer.status_code, path) == (422, path), answer.text
