"""Responses conform to the OpenAPI document for any request, without 5xx other than 501 and 503."""

import re
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.core.result import Ok

from tests.journeys.conftest import Served
from tests.long_form import FULL

ALLOWED = {501, 503}
EXAMPLES = 50 if FULL else 2
"""Generated requests per operation."""


@pytest.fixture(scope="module")
def document(served: Served) -> dict[str, Any]:
    root = served.base.removesuffix("/api/v1")
    answer: dict[str, Any] = httpx.get(f"{root}/openapi.json", timeout=20).json()
    return answer


def operations(document: dict[str, Any]) -> list[tuple[str, str]]:
    verbs = {"get", "post", "put", "patch", "delete"}
    return [(verb.upper(), path) for path, item in document["paths"].items() for verb in item if verb in verbs]


def test_every_operation_documents_its_results_and_errors(document: dict[str, Any]) -> None:
    for path, item in document["paths"].items():
        for verb, operation in item.items():
            if verb in {"get", "post", "put", "patch", "delete"}:
                assert operation["summary"], (verb, path)
                assert "application/problem+json" in operation["responses"]["default"]["content"], (verb, path)


@pytest.mark.timeout(240)
def test_no_generated_request_makes_the_server_fail(served: Served, document: dict[str, Any]) -> None:
    schema = schemathesis.openapi.from_dict(document)
    strange: list[str] = []
    for found in schema.get_all_operations():
        assert isinstance(found, Ok)
        operation = found.ok()

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def send(case: Any) -> None:
            root = served.base.removesuffix("/api/v1")
            answer = case.call(base_url=root, timeout=20)
            if answer.status_code >= 500 and answer.status_code not in ALLOWED:
                strange.append(f"{case.method} {case.formatted_path}: {answer.status_code}")
            if answer.status_code >= 400:
                own = case.path.startswith(
                    ("/v1/", "/mcp", "/ag-ui/", "/copilotkit", "/a2a/")
                )  # the shape of another protocol
                shape = "application/json" if own else "application/problem+json"
                assert answer.headers["content-type"][0].startswith(shape)

        send()
    assert strange == []


def test_every_path_of_the_document_belongs_to_the_api(document: dict[str, Any]) -> None:
    assert all(
        re.match(r"/(api/v1|v1|ai-sdk|ag-ui|copilotkit|a2a|mcp|\.well-known)(/|$)", path) for path in document["paths"]
    )
    assert len(operations(document)) > 30
