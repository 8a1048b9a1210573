"""Two tenants and every position of an id in every operation: ids of another tenant are unknown."""

import re
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import httpx
import sqlalchemy as sa

from app.security.access.structs import ROLES
from app.server.schema import metadata
from tests.system.services import API, Service

UNKNOWN = UUID("0123456789ab4def8123456789abcdef")
INPUT = {"messages": [{"role": "user", "content": "hello"}]}


async def furnished(service: Service, key: str) -> dict[str, str]:
    """One resource of each kind of a tenant: ids by path parameter."""

    async def post(path: str, body: Any) -> Any:
        answer = await service.client.post(API + path, json=body, headers={"x-api-key": key})
        assert answer.status_code == 200, answer.text
        return answer.json()

    assistant = await post("/assistants", {"graph_id": "echo", "name": "mine"})
    thread = await post("/threads", {})
    run = await post(f"/threads/{thread['thread_id']}/runs", {"assistant_id": "echo", "input": INPUT})
    joined = f"/threads/{thread['thread_id']}/runs/{run['run_id']}/join"
    assert (await service.get(joined, key)).status_code == 200
    state = (await service.get(f"/threads/{thread['thread_id']}/state", key)).json()
    cron = await post("/runs/crons", {"assistant_id": "echo", "schedule": "0 0 1 1 *", "input": INPUT})
    own = {"x-api-key": key, "content-type": "text/plain"}
    document = await service.client.post(f"{API}/documents", content=b"a document", headers=own)
    assert document.status_code == 202, document.text
    return {
        "document_id": document.json()["document_id"],
        "assistant_id": assistant["assistant_id"],
        "thread_id": thread["thread_id"],
        "chat_id": thread["thread_id"],
        "run_id": run["run_id"],
        "task_id": run["run_id"],
        "response_id": f"resp_{run['run_id'].replace('-', '')}",
        "conversation_id": f"conv_{thread['thread_id'].replace('-', '')}",
        "cron_id": cron["cron_id"],
        "checkpoint_id": state["checkpoint"]["checkpoint_id"],
    }


def seen(answer: httpx.Response, *ids: str) -> tuple[int, str]:
    """Return the response without the parts that always differ."""
    text = re.sub(r'"(request_id|instance|created_at|updated_at)":"[^"]*"', "", answer.text)
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "ID", text)
    for one in ids:
        text = text.replace(one, "ID")
    return answer.status_code, text


async def operations(service: Service) -> list[tuple[str, str, list[str]]]:
    """Return (method, path, ids in it) of every operation with ids in its path."""
    document = (await service.client.get("/openapi.json")).json()
    return [
        (method.upper(), path, names)
        for path, methods in document["paths"].items()
        for method in methods
        if (names := re.findall(r"\{(\w+_id)\}", path))
    ]


def nothing_done(path: str) -> set[int]:
    """Return the statuses that say so for an unknown id: some routes stop or resume only what there is."""
    if path.startswith("/copilotkit"):
        return {200}
    if "{config_id}" in path:
        return {404, 200}  # it is deleted as often as it is asked for
    return {204} if "{chat_id}" in path else {404, 422, 400}


def mixtures(names: list[str], mine: dict[str, str], theirs: dict[str, str]) -> Iterator[tuple[dict[str, str], ...]]:
    """For each position: their id and an unknown one there, own ids elsewhere."""
    for place in names:
        rest = {name: mine.get(name, str(UNKNOWN)) for name in names}
        yield {**rest, place: theirs.get(place, str(UNKNOWN))}, {**rest, place: str(UNKNOWN)}
    everywhere = {name: theirs.get(name, str(UNKNOWN)) for name in names}
    yield everywhere, dict.fromkeys(names, str(UNKNOWN))


async def test_an_id_of_another_tenant_in_a_path_is_unknown(service: Service, tenant: str) -> None:
    """Reading operations first, because those that delete would affect the others."""
    key, other = await service.key(tenant, *ROLES["admin"]), await service.key(f"other {tenant}", *ROLES["admin"])
    mine, theirs = await furnished(service, key), await furnished(service, other)
    tried = 0
    for method, path, names in sorted(await operations(service), key=lambda one: one[0] == "DELETE"):
        for foreign, unknown in mixtures(names, mine, theirs):
            answers = []
            for ids in (foreign, unknown):
                body = None if method in {"GET", "DELETE"} else {"assistant_id": "echo", "values": {}}
                target = path.format(**ids, namespace="inner", assistant="echo", agent="echo", config="one")
                answers.append(await service.client.request(method, target, json=body, headers={"x-api-key": key}))
            got, expected = (seen(answer, *foreign.values(), *unknown.values()) for answer in answers)
            assert got == expected, f"{method} {path} {foreign}"
            assert got[0] in nothing_done(path), f"{method} {path}: {got}"
            tried += 1
    assert tried > 60
    assert await furnished_still(service, other, theirs)


async def furnished_still(service: Service, key: str, ids: dict[str, str]) -> bool:
    """Check that no resource of the tenant was deleted or changed."""
    paths = (
        f"/assistants/{ids['assistant_id']}",
        f"/threads/{ids['thread_id']}",
        f"/threads/{ids['thread_id']}/runs/{ids['run_id']}",
        f"/runs/crons/{ids['cron_id']}",
        f"/documents/{ids['document_id']}/content",
    )
    return {(await service.get(path, key)).status_code for path in paths} == {200}


async def test_an_id_of_another_tenant_in_a_body_is_unknown(service: Service, tenant: str) -> None:
    key, other = await service.key(tenant), await service.key(f"other {tenant}")
    mine, theirs = await furnished(service, key), await furnished(service, other)
    cases: list[tuple[str, Any]] = [
        ("/runs/wait", {"assistant_id": "{assistant_id}", "input": INPUT}),
        ("/runs", {"assistant_id": "{assistant_id}", "input": INPUT}),
        ("/runs/batch", [{"assistant_id": "{assistant_id}", "input": INPUT}]),
        ("/runs/cancel", {"thread_id": "{thread_id}", "run_ids": ["{run_id}"]}),
        ("/runs/cancel", {"run_ids": ["{run_id}"]}),
        ("/runs/crons", {"assistant_id": "{assistant_id}", "schedule": "0 0 * * *", "input": INPUT}),
        ("/threads/prune", {"thread_ids": ["{thread_id}"]}),
        ("/threads/{mine}/state/checkpoint", {"checkpoint": {"checkpoint_id": "{checkpoint_id}"}}),
        ("/threads/{mine}/runs/wait", {"assistant_id": "echo", "input": INPUT, "checkpoint_id": "{checkpoint_id}"}),
        ("/threads/{mine}/runs/wait", {"assistant_id": "{assistant_id}", "input": INPUT}),
        ("/threads/{mine}/runs/crons", {"assistant_id": "{assistant_id}", "schedule": "0 0 * * *", "input": INPUT}),
        ("/threads/{mine}/state", {"values": {}, "checkpoint_id": "{checkpoint_id}"}),
    ]
    for path, body in cases:
        answers = []
        for ids in (theirs, dict.fromkeys(theirs, str(UNKNOWN))):
            target = API + path.replace("{mine}", mine["thread_id"])
            answer = await service.client.post(target, json=fill(body, ids), headers={"x-api-key": key})
            answers.append(seen(answer, *ids.values()))
        assert answers[0] == answers[1], path
        assert await furnished_still(service, other, theirs)


RPC = {"jsonrpc": "2.0", "id": 1}
SENT = {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "x"}]}
SAID = {"id": "u", "role": "user", "content": "x"}
ASKED = {"runId": "r", "messages": [SAID], "tools": [], "context": [], "state": {}, "forwardedProps": {}}
META = {
    "_meta": {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {"extensions": {"io.modelcontextprotocol/tasks": {}}},
    }
}


async def test_an_id_of_another_tenant_in_a_body_of_another_wire_is_unknown(service: Service, tenant: str) -> None:
    key, other = await service.key(tenant), await service.key(f"other {tenant}")
    theirs = await furnished(service, other)
    cases: list[tuple[str, Any]] = [
        ("/v1/responses", {"model": "echo", "input": "x", "previous_response_id": "{response_id}"}),
        ("/v1/responses", {"model": "echo", "input": "x", "conversation": "{conversation_id}"}),
        ("/v1/chat/completions", {"model": "{assistant_id}", "messages": [{"role": "user", "content": "x"}]}),
        ("/a2a/echo", {**RPC, "method": "GetTask", "params": {"id": "{task_id}"}}),
        ("/a2a/echo", {**RPC, "method": "CancelTask", "params": {"id": "{task_id}"}}),
        ("/a2a/echo", {**RPC, "method": "SubscribeToTask", "params": {"id": "{task_id}"}}),
        ("/a2a/echo", {**RPC, "method": "SendMessage", "params": {"message": {**SENT, "taskId": "{task_id}"}}}),
        ("/a2a/echo", {**RPC, "method": "ListTasks", "params": {"contextId": "{thread_id}"}}),
        (
            "/a2a/echo",
            {
                **RPC,
                "method": "CreateTaskPushNotificationConfig",
                "params": {"taskId": "{task_id}", "url": "https://hooks.example.com/"},
            },
        ),
        ("/copilotkit/agent/echo/connect", {**ASKED, "threadId": "{thread_id}"}),
        ("/copilotkit", {"method": "agent/stop", "params": {"agentId": "echo", "threadId": "{thread_id}"}}),
        ("/mcp", {**RPC, "method": "tasks/get", "params": {"taskId": "{task_id}", **META}}),
        ("/mcp", {**RPC, "method": "tasks/cancel", "params": {"taskId": "{task_id}", **META}}),
        ("/mcp", {**RPC, "method": "resources/read", "params": {"uri": "agent://threads/{thread_id}", **META}}),
    ]
    for path, body in cases:
        made_up = {name: str(uuid4()) for name in theirs}
        made_up |= {"response_id": f"resp_{uuid4().hex}", "conversation_id": f"conv_{uuid4().hex}"}
        answers = []
        for ids in (theirs, made_up):
            headers = {"x-api-key": key, "a2a-version": "1.0", "mcp-protocol-version": "2026-07-28"}
            if path == "/mcp":
                params = fill(body["params"], ids)
                headers["mcp-name"] = params["uri"] if "uri" in params else params["taskId"]
                headers |= {"accept": "application/json, text/event-stream", "mcp-method": body["method"]}
            answer = await service.client.post(path, json=fill(body, ids), headers=headers)
            answers.append(seen(answer, *ids.values()))
        foreign, unknown = answers
        assert foreign == unknown, path
        assert foreign[0] in {200, 400, 404}, foreign
        assert not re.search("header|capability", foreign[1]), foreign
        assert await furnished_still(service, other, theirs)


def fill(body: Any, ids: dict[str, str]) -> Any:
    if isinstance(body, dict):
        return {name: fill(part, ids) for name, part in body.items()}
    if isinstance(body, list):
        return [fill(part, ids) for part in body]
    return re.sub(r"\{(\w+)\}", lambda found: ids[found[1]], body) if isinstance(body, str) else body


async def test_searches_counts_and_lists_show_nothing_of_another_tenant(service: Service, tenant: str) -> None:
    other = await service.key(f"other {tenant}", *ROLES["admin"])
    theirs = await furnished(service, other)
    key = await service.key(tenant, *ROLES["admin"])
    for kind in ("threads", "assistants", "runs/crons", "store/items"):
        found = await service.client.post(f"{API}/{kind}/search", json={"limit": 1000}, headers={"x-api-key": key})
        assert not any(one in found.text for one in theirs.values()), kind
    for path in ("/webhooks/deliveries", "/audit"):
        text = (await service.get(path, key)).text
        assert not any(one in text for one in theirs.values())


async def test_a_thread_of_another_tenant_can_neither_be_taken_nor_noticed(service: Service, tenant: str) -> None:
    """Clients choose ids: the same id in two tenants means two threads."""
    key, other = await service.key(tenant), await service.key(f"other {tenant}")
    chosen = str(uuid4())
    for one in (other, key):
        made = await service.client.post(f"{API}/threads", json={"thread_id": chosen}, headers={"x-api-key": one})
        assert (made.status_code, made.json()["thread_id"]) == (200, chosen)


async def test_row_level_security_stands_on_every_table_with_a_tenant(service: Service) -> None:
    """Read from the catalogue, so that later migrations are covered."""
    async with service.services.persistence.database.engine_connection() as connection:
        rows = await connection.fetch("""
            select c.relname as name, c.relrowsecurity as bound, c.relforcerowsecurity as forced,
              (select count(*) from pg_policies p where p.tablename = c.relname and 'agent_app' = any(p.roles)
                 and p.qual like '%app.tenant%' and (p.with_check like '%app.tenant%' or p.cmd in ('SELECT', 'DELETE'))
              ) as policies,
              exists (select from pg_policies p where p.tablename = c.relname and 'agent_app' = any(p.roles)
                 and p.qual = 'true') as open
            from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attname = 'tenant_id' and not a.attisdropped
            where c.relkind in ('r', 'p') and c.relnamespace = 'public'::regnamespace
        """)
    assert {row["name"] for row in rows} == {name for name, table in metadata.tables.items() if "tenant_id" in table.c}
    unbound = [row["name"] for row in rows if not (row["bound"] and row["forced"] and row["policies"]) or row["open"]]
    assert unbound == []


async def test_a_request_of_one_tenant_reads_no_row_of_another_by_sql(service: Service, tenant: str) -> None:
    """Second line of defence: a statement without a tenant condition sees only its own rows."""
    other = await service.key(f"other {tenant}", *ROLES["admin"])
    await furnished(service, other)
    async with service.services.persistence.database.reading(uuid4()) as session:
        for name, table in metadata.tables.items():
            if "tenant_id" in table.c and name != "live_frames":
                assert await session.scalar(sa.select(sa.func.count()).select_from(table)) == 0, name
