"""Routes that are not implemented say so."""

import httpx
import pytest

from tests.journeys.conftest import Served

THREAD = "01a206d1-e7f2-7379-81bc-ab80d7f491cc"


@pytest.mark.parametrize(
    "method,path",
    [
        ("POST", f"/threads/{THREAD}/stream/events"),
        ("POST", f"/threads/{THREAD}/commands"),
    ],
)
def test_a_route_of_a_later_version_answers_501_with_an_explanation(served: Served, method: str, path: str) -> None:
    answer = httpx.request(method, served.base + path, json={} if method != "GET" else None, timeout=10)
    assert answer.status_code == 501
    assert answer.headers["content-type"].startswith("application/problem+json")
    assert "not built yet" in answer.json()["detail"]
