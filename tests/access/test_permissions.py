"""Permissions of every role on every route of the OpenAPI document."""

import re
from collections import Counter
from typing import Any
from uuid import UUID

from app.infra.http.openapi import needs_of
from app.security.access.structs import ADMIN, MONITOR, OPERATE, READ, ROLES, WRITE
from app.server.asgi import litestar
from tests.access.test_guard import OPEN_ROUTES
from tests.system.services import API, Service

WRITES_OF = {"PUT", "PATCH", "DELETE"}
READS_BY_POST = {
    f"POST {API}/assistants/search",
    f"POST {API}/assistants/count",
    f"POST {API}/assistants/{{assistant_id}}/versions",
    f"POST {API}/threads/search",
    f"POST {API}/threads/count",
    f"POST {API}/threads/{{thread_id}}/history",
    f"POST {API}/threads/{{thread_id}}/state/checkpoint",
    f"POST {API}/threads/{{thread_id}}/stream",
    f"POST {API}/threads/{{thread_id}}/stream/events",
    f"POST {API}/runs/crons/search",
    f"POST {API}/runs/search",
    f"POST {API}/runs/crons/count",
    f"POST {API}/store/items/search",
    f"POST {API}/store/namespaces",
    f"POST {API}/documents/search",
    "POST /copilotkit/agent/{agent}/connect",
    "POST /mcp",
    "POST /mcp/{assistant}",
    "POST /a2a/{assistant}",  # its methods that write need more, and check it themselves
    "POST /copilotkit",  # the same
    "POST /v1/responses/input_tokens",
}
"""Reading routes whose method is POST. Messages to ``/mcp`` that change something need more (``test_mcp_rules``)."""


async def operations(service: Service) -> dict[str, str]:
    """Return the scope of every documented operation, "" for open ones."""
    document = (await service.client.get("/openapi.json")).json()
    found = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            bearer: list[dict[str, Any]] = operation["security"]
            found[f"{method.upper()} {path}"] = bearer[0]["Bearer"][0] if bearer else ""
    return found


async def test_the_document_names_the_scope_of_every_operation(service: Service) -> None:
    scopes = await operations(service)
    assert len(scopes) > 50
    assert {route for route, scope in scopes.items() if not scope} == {
        re.sub(r":\w+", "", route)
        for route in OPEN_ROUTES
        if route.startswith((f"GET {API}", "GET /a2a/", "GET /.well-known/"))
    }
    assert set(scopes.values()) <= {"", READ, WRITE, OPERATE, ADMIN}


async def test_no_route_is_without_a_permission_and_changes_need_more_than_reading(service: Service) -> None:
    needs = needs_of(litestar(service.services))
    assert len(needs) > 50
    for route in litestar(service.services).routes:
        for handler in getattr(route, "route_handlers", ()):
            assert "permission" in handler.opt or handler.http_methods == {"OPTIONS"}, route.path
    for (path, method), scope in needs.items():
        if method in WRITES_OF:
            assert scope in {WRITE, ADMIN}, (path, method)
        elif method == "POST" and scope == READ:
            assert f"POST {path}" in READS_BY_POST


async def test_a_role_may_do_what_its_scopes_allow_and_nothing_else(service: Service, tenant: str) -> None:
    """Expect 403 exactly if the scope is missing; admitted requests may be 404 or 422."""
    for role in ROLES:
        key = await service.key(tenant, *ROLES[role])
        forbidden, expected = set(), set()
        for operation, scope in (await operations(service)).items():
            method, path = operation.split(" ", 1)
            target = re.sub(r"\{(\w+)\}", str(UUID(int=7)), path)
            answer = await service.client.request(method, target, headers={"x-api-key": key}, json={})
            assert answer.status_code < 500, f"{operation}: {answer.text}"
            if answer.status_code == 403:
                forbidden.add(operation)
            if scope and scope not in ROLES[role]:
                expected.add(operation)
        assert forbidden == expected


async def test_each_role_includes_the_one_before(service: Service) -> None:
    lesser: frozenset[str] = frozenset()
    for scopes in ROLES.values():
        assert lesser < scopes
        lesser = scopes
    assert all(MONITOR in scopes for scopes in ROLES.values())
    assert service.services.auth.authenticator is not None


async def test_a_read_only_key_cannot_cancel_a_run_by_disconnecting(service: Service, tenant: str) -> None:
    key = await service.key(tenant, READ)
    path = f"{API}/threads/{UUID(int=7)}/runs/{UUID(int=7)}/stream"
    answer = await service.client.get(path, params={"cancel_on_disconnect": True}, headers={"x-api-key": key})
    assert (answer.status_code, "needs the scope write" in answer.text) == (403, True)
    assert (await service.client.get(path, headers={"x-api-key": key})).status_code == 404


async def test_actions_and_refusals_are_in_the_audit_log_of_their_tenant(service: Service, tenant: str) -> None:
    reader, operator = await service.key(tenant, READ), await service.key(tenant, *ROLES["operator"])
    for _ in range(3):
        answer = await service.client.post(f"{API}/threads", json={}, headers={"x-api-key": reader})
        assert answer.status_code == 403
    audit = service.services.persistence.audit
    await audit.flush()
    entries = (await service.get("/audit", operator)).json()
    found: Counter[tuple[str, str, str]] = Counter()
    for entry in entries:  # equal ones are one entry, unless they were written in between
        found[entry["action"], entry["actor"], entry["subject"]] += entry["count"]
    assert found["request.forbidden", reader.split("_")[1], f"POST {API}/threads"] == 3
    assert found["key.created", "operator", reader.split("_")[1]] == 1
    assert (await service.get("/audit?limit=1", operator)).json() == entries[:1]
    older = (await service.get(f"/audit?before={entries[0]['entry_id']}", operator)).json()
    assert older == entries[1:]
    stranger = await service.key(f"other {tenant}", *ROLES["operator"])
    assert [one["action"] for one in (await service.get("/audit", stranger)).json()] in ([], ["key.created"])
    assert (await service.get("/audit", reader)).status_code == 403


async def test_a_key_shows_when_it_was_last_used(service: Service, tenant: str) -> None:
    key = await service.key(tenant)
    access = service.services.auth.keys
    [before] = await access.list_keys(tenant)
    await service.get("/assistants/unknown", key)
    await service.services.persistence.audit.flush()
    [after] = await access.list_keys(tenant)
    assert (before.last_used_at, after.last_used_at is not None) == (None, True)


async def test_a_method_of_json_rpc_that_writes_needs_more_than_reading(service: Service, tenant: str) -> None:
    key = await service.key(tenant, *ROLES["read-only"])
    sent = {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "hello"}]}
    for method, params, reason in (
        ("SendMessage", {"message": sent}, "PERMISSION_DENIED"),
        ("SendStreamingMessage", {"message": sent}, "PERMISSION_DENIED"),
        ("CancelTask", {"id": str(UUID(int=7))}, "PERMISSION_DENIED"),
        ("GetTask", {"id": str(UUID(int=7))}, "TASK_NOT_FOUND"),
    ):
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        answer = await service.client.post("/a2a/echo", headers={"x-api-key": key}, json=body)
        assert answer.json()["error"]["data"][0]["reason"] == reason, method
