"""The API page: every field and parameter has a meaning, every route a description, and every example works."""

import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from app.server.api_reference.examples import BODIES, PARAMETERS
from app.server.api_reference.fields import FIELDS, OWN
from tests.journeys.conftest import Served, serving

API = "/api/v1"
THREAD, RUN = f"{API}/threads/{{thread_id}}", f"{API}/threads/{{thread_id}}/runs/{{run_id}}"
CHOSEN_HERE = {"run_id", "cron_id", "document_id", "checkpoint_id"}
OF_KIND = {"response": "response_id", "conversation": "conversation_id"}
"""Objects of OpenAI's API and the parameters that their ids are."""
"""Ids that the server chooses: the page has one to show its form."""
ENDLESS = {f"GET {THREAD}/stream", f"POST {THREAD}/stream", f"POST {THREAD}/stream/events"}
"""Streams that follow a thread until it is deleted: only their beginning is read."""
NEEDS_MORE = {
    f"GET {API}/assistants/{{assistant_id}}/subgraphs/{{namespace}}": "a hosted graph with a subgraph",
    f"POST {API}/webhooks/deliveries/{{run_id}}/retry": "a delivery that has failed",
    f"POST {API}/admin/secrets/reload": "a secret in a file",
    f"POST {RUN}/cancel": "a live run",
    "POST /a2a/{assistant}/tasks/{task_id}": "an action behind the id, such as ID:cancel",
    "POST /mcp/admin": "a server with AGENT_MCP_ADMIN on",
}
"""What works only where there is something of the kind."""
LAST = [f"POST {API}/threads/prune"]


@pytest.fixture(scope="module")
def server(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(server_url, tmp_path_factory.mktemp("reference")) as served:
        yield served.wait_until_ready()


@pytest.fixture
async def client(server: Served) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=30) as client:
        yield client


async def test_everything_has_a_meaning(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    fields = {
        (struct, name): field
        for struct, schema in document["components"]["schemas"].items()
        for name, field in schema.get("properties", {}).items()
    }
    operations = operations_of(document)
    parameters = [(where, one) for where, each in operations.items() for one in each.get("parameters", ())]
    assert [where for where, field in fields.items() if not field.get("description")] == []
    assert [where for where, each in operations.items() if not (each.get("summary") and each.get("description"))] == []
    assert [(where, one["name"]) for where, one in parameters if not one.get("description")] == []
    named = {name for _, name in fields} | {one["name"] for _, one in parameters}
    assert [name for name in FIELDS if name not in named] == []
    assert [where for where in OWN if where not in fields] == []


async def test_every_example_works_as_it_stands(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    operations = operations_of(document)
    bodies = [f"{method} {path}" for method, path in BODIES]
    assert [one for one in bodies if one not in operations] == []
    ids = dict(PARAMETERS)
    removals = [one for one in operations if one.startswith("DELETE ")]
    removals.sort(key=lambda one: "runs" not in one)
    reads = [one for one in operations if one not in {*bodies, *removals, *LAST}]
    stays = [one for one in bodies if one not in {*removals, *LAST}]
    failed = []
    for operation in [*stays, *reads, *LAST, *removals]:
        if operation in NEEDS_MORE:
            continue
        try:
            status, text = await attempt(client, operation, operations[operation], ids)
        except AssertionError as error:
            status, text = 0, str(error)
        if not 200 <= status < 300:
            failed.append((operation, status, text[:200]))
    assert failed == []


def operations_of(document: Any) -> dict[str, Any]:
    return {
        f"{method.upper()} {path}": operation
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }


async def attempt(client: httpx.AsyncClient, where: str, operation: Any, ids: dict[str, str]) -> tuple[int, str]:
    """Send the example of an operation; keep the ids that the response names."""
    method, path = where.split(" ")
    path = re.sub(r"\{(\w+)\}", lambda match: ids[match[1]], path)
    required = [one for one in operation.get("parameters", ()) if one["in"] == "query" and one.get("required")]
    sent: dict[str, Any] = {"params": {one["name"]: one["example"] for one in required}}
    if (body := operation.get("requestBody")) is not None:
        media_type, example = example_of(body["content"])
        sent |= (
            {"content": example, "headers": {"content-type": media_type}}
            if isinstance(example, str)
            else {"json": example}
        )
    if where in ENDLESS:
        async with client.stream(method, path, **sent) as stream:
            return stream.status_code, ""
    answer = await client.request(method, path, **sent)
    if answer.headers.get("content-type", "").startswith("application/json"):
        found = answer.json()
        if isinstance(found, dict) and found.get("object") in OF_KIND:
            ids[OF_KIND[found["object"]]] = found["id"]
        if isinstance(found, dict) and "task" in found:
            ids["task_id"] = found["task"]["id"]
        if isinstance(found, dict) and where.endswith("pushNotificationConfigs") and method == "POST":
            ids["config_id"] = found["id"]
        if (
            isinstance(found, dict)
            and where.endswith("/items")
            and isinstance(found.get("data"), list)
            and found["data"]
        ):
            ids["item_id"] = found["data"][0]["id"]
        for name in CHOSEN_HERE if isinstance(found, dict) else ():
            stateless = name == "run_id" and "{thread_id}" not in where
            if found.get(name) and f"{{{name}}}" not in where and not stateless:
                ids[name] = found[name]
    return answer.status_code, answer.text


def example_of(content: Any) -> tuple[str, Any]:
    for media_type, media in content.items():
        if "example" in media:
            return media_type, media["example"]
        for named in media.get("examples", {}).values():
            return media_type, named["value"]
    raise AssertionError(f"no example: {content}")
