"""Pagination, field selection, stream modes and event ids, in every form that clients send."""

from typing import Any

import msgspec
import pytest
from litestar import Request, get

from app.domain.event_id import START, EventId
from app.infra.http.query_params import Limit, Offset, last_event_id, page_headers, project, select_fields, stream_modes
from tests.web.serving import serving

MODES = ("values", "updates", "messages-tuple")


class Thing(msgspec.Struct):
    name: str
    size: int


@get("/modes")
async def modes(request: Request[Any, Any, Any]) -> list[str] | None:
    return stream_modes(request, MODES)


@get("/fields")
async def fields(request: Request[Any, Any, Any]) -> list[Any]:
    return project([Thing("a", 1)], select_fields(request, ("name", "size")))


@get("/place")
async def place(request: Request[Any, Any, Any]) -> EventId | None:
    return last_event_id(request)


@get("/page")
async def page(limit: Limit = 10, offset: Offset = 0) -> list[int]:
    return [limit, offset]


@pytest.mark.parametrize(
    "query, expected",
    [
        ("", None),
        ("stream_mode=values", ["values"]),
        ("stream_mode=values&stream_mode=updates", ["values", "updates"]),
        ("stream_modes=values&stream_mode=updates", ["updates", "values"]),
        ("stream_mode=values,updates", ["values", "updates"]),
        ('stream_mode=["values","messages-tuple"]', ["values", "messages-tuple"]),
        ("stream_mode=values&stream_mode=values", ["values"]),
        ("stream_mode=[]", None),
        ("stream_mode=", None),
    ],
)
async def test_stream_modes_come_repeated_with_commas_or_as_json(query: str, expected: list[str] | None) -> None:
    async with serving(modes) as client:
        response = await client.get(f"/modes?{query}")
    assert response.json() == expected


@pytest.mark.parametrize(
    "query, sentence",
    [
        ("stream_mode=bogus", "Invalid stream mode: bogus. Use one of messages-tuple, updates, values."),
        ("stream_mode=[1]", "A list in the address must be a JSON array of strings, not [1]."),
        ('stream_mode=["values"', 'A list in the address must be a JSON array of strings, not ["values".'),
    ],
)
async def test_a_wrong_stream_mode_is_422(query: str, sentence: str) -> None:
    async with serving(modes) as client:
        response = await client.get(f"/modes?{query}")
    assert (response.status_code, response.json()["detail"]) == (422, sentence)


async def test_select_gives_only_the_fields_asked_for() -> None:
    async with serving(fields) as client:
        every = (await client.get("/fields")).json()
        one = (await client.get("/fields?select=name")).json()
        wrong = await client.get("/fields?select=bogus")
    assert every == [{"name": "a", "size": 1}]
    assert one == [{"name": "a"}]
    assert (wrong.status_code, wrong.json()["detail"]) == (422, "Invalid select field: bogus. Use one of name, size.")


@pytest.mark.parametrize(
    "text, expected",
    [("1-1", EventId(1, 1)), ("12-345", EventId(12, 345)), ("-1", START), ("0-0", START), ("-", START), ("", None)],
)
async def test_a_stream_resumes_after_the_last_event_id(text: str, expected: EventId | None) -> None:
    async with serving(place) as client:
        response = await client.get("/place", headers={"Last-Event-ID": text})
    assert response.json() == (None if expected is None else list(expected))


@pytest.mark.parametrize("text", ["1", "a-b", "1-", "-2", "1-1-1", "1 - 1", "1-1x", "+1-1", "1" * 19 + "-1", "bad id"])
async def test_an_invalid_event_id_is_422(text: str) -> None:
    async with serving(place) as client:
        response = await client.get("/place", headers={"Last-Event-ID": text})
    assert response.status_code == 422
    assert "Invalid Last-Event-ID" in response.json()["detail"]


async def test_pages_have_bounds() -> None:
    async with serving(page) as client:
        assert (await client.get("/page")).json() == [10, 0]
        assert (await client.get("/page?limit=1000&offset=5")).json() == [1000, 5]
        for query in ("limit=0", "limit=1001", "offset=-1", "limit=1e9", "offset=99999999999"):
            assert (await client.get(f"/page?{query}")).status_code == 422


@pytest.mark.parametrize(
    "total, offset, count, expected",
    [
        (9, 0, 2, {"X-Pagination-Total": "9", "X-Pagination-Next": "2"}),
        (9, 7, 2, {"X-Pagination-Total": "9"}),
        (0, 0, 0, {"X-Pagination-Total": "0"}),
        (9, 20, 0, {"X-Pagination-Total": "9"}),
    ],
)
def test_a_page_names_the_next_only_if_more_follows(total: int, offset: int, count: int, expected: Any) -> None:
    assert page_headers(total, offset, count) == expected
