"""The OpenAPI document and its page: complete, and self-hosted."""

import re
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import msgspec
from litestar import post
from litestar.params import FromPath, JSONBody
from litestar.testing import AsyncTestClient

from app.infra.http.openapi import FILES
from app.infra.http.problems import KINDS
from tests.web.serving import application, serving

ERRORS_PAGE = Path(__file__).parents[2] / "docs" / "reference" / "errors.md"


class Order(msgspec.Struct):
    name: str
    note: str | None = None
    kind: Literal["a", "b"] | None = None
    many: list[int] | dict[str, int] | None = None


@post("/orders/{order_id:str}", status_code=200, summary="Order")
async def order(order_id: FromPath[UUID], data: JSONBody[Order]) -> Order:
    """Order something."""
    return data


async def document() -> dict[str, Any]:
    async with serving(order) as client:
        response = await client.get("/openapi.json", headers={"host": "example.test:81"})
    assert response.headers["content-type"] == "application/json"
    found: dict[str, Any] = response.json()
    return found


async def test_the_document_names_this_server_and_its_keys() -> None:
    schema = await document()
    assert schema["info"]["title"] == "agent-service"
    assert schema["info"]["version"] == "1.2.3"
    assert schema["servers"] == [{"url": "http://example.test:81"}]
    assert "curl -N http://example.test:81/api/v1/runs/stream" in schema["info"]["description"]
    assert "origin.invalid" not in str(schema)
    assert schema["security"] == [{"Bearer": []}, {"ApiKey": []}]
    assert schema["components"]["securitySchemes"]["ApiKey"]["name"] == "X-Api-Key"


async def test_every_operation_says_how_its_errors_look() -> None:
    schema = await document()
    responses = schema["paths"]["/orders/{order_id}"]["post"]["responses"]
    assert set(responses) == {"200", "default"}
    assert responses["default"]["content"] == {
        "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
    }
    assert set(schema["paths"]) == {"/orders/{order_id}"}


async def test_bodies_and_parameters_are_described_by_their_types() -> None:
    schema = await document()
    operation = schema["paths"]["/orders/{order_id}"]["post"]
    assert operation["parameters"][0]["schema"] == {"type": "string", "format": "uuid"}
    assert operation["requestBody"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Order"}
    fields = schema["components"]["schemas"]["Order"]["properties"]
    assert fields["note"]["type"] == ["string", "null"]
    assert (set(fields["kind"]["type"]), fields["kind"]["enum"]) == ({"string", "null"}, ["a", "b", None])
    assert len(fields["many"]["oneOf"]) == 3


async def test_the_page_loads_only_our_own_files() -> None:
    async with serving() as client:
        for path in ("/docs", "/docs/errors"):
            page = await client.get(path)
            assert page.status_code == 200
            assert "script-src 'self'" in page.headers["content-security-policy"]
            addresses = re.findall(r'(?:src|href|data-document)="([^"]*)"', page.text)
            assert addresses
            for address in addresses:
                assert address.startswith("/")
                assert (await client.get(address)).status_code == 200
            assert not re.search(r"<script(?![^>]* src=)|<style| on[a-z]+=", page.text)


async def test_below_a_prefix_the_page_stays_below_it() -> None:
    app = application(order, path="/prefix")
    async with AsyncTestClient(app) as client:
        page = (await client.get("/prefix/docs")).text
        schema = (await client.get("/prefix/openapi.json")).json()
        for address in re.findall(r'(?:src|href|data-document)="([^"]*)"', page):
            assert address.startswith("/prefix/")
            assert (await client.get(address)).status_code == 200
    assert schema["servers"] == [{"url": "http://testserver.local"}]
    assert "/prefix/orders/{order_id}" in schema["paths"]
    assert "http://testserver.local/prefix/api/v1" in schema["info"]["description"]


async def test_files_are_served_with_their_type_and_a_tag() -> None:
    async with serving() as client:
        for name, media_type in FILES.items():
            full = await client.get(f"/docs/assets/{name}")
            assert full.headers["content-type"].partition(";")[0] == media_type
            again = await client.get(f"/docs/assets/{name}", headers={"If-None-Match": full.headers["etag"]})
            assert (full.status_code, again.status_code, again.content) == (200, 304, b"")


async def test_nothing_else_is_served_below_docs() -> None:
    async with serving() as client:
        for path in ("/docs/assets/README.md", "/docs/assets/..%2Fopenapi.py", "/docs/x", "/schema", "/docs/assets/x"):
            response = await client.get(path)
            assert response.status_code == 404
            assert response.headers["content-type"] == "application/problem+json"


async def test_the_errors_page_and_its_document_list_every_kind() -> None:
    async with serving() as client:
        page = (await client.get("/docs/errors")).text
    text = ERRORS_PAGE.read_text()
    for status, kind in KINDS.items():
        assert f'<tr id="{kind.slug}"><td>{status}</td><td>{kind.title}</td>' in page
        assert f"| {status} | `{kind.slug}` | {kind.title} | {kind.remedy} |" in text
