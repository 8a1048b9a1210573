"""Custom auth (``langgraph_sdk.Auth``): two users of one tenant, and ownership of resources."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from langgraph_sdk.client import LangGraphClient

from app.features.data_rights.export import export
from app.features.data_rights.structs import DataSubject
from app.security.access.structs import DEFAULT_TENANT
from tests.access.test_tenants import (
    INPUT,
    UNKNOWN,
    fill,
    furnished,
    furnished_still,
    mixtures,
    nothing_done,
    operations,
    seen,
)
from tests.system.services import API, Service, serving

FOLDER = Path(__file__).parent / "handlers"
FILE = str(FOLDER / "agents.toml")


@pytest.fixture
async def service(database_url: str) -> AsyncIterator[Service]:
    async with serving(database_url, AGENT_AUTH="none", AGENT_CONFIG=FILE) as service:
        yield service


@pytest.fixture
def ann() -> str:
    return f"ann-{uuid4().hex}"


@pytest.fixture
def bob() -> str:
    return f"bob-{uuid4().hex}"


def sdk(service: Service, token: str) -> LangGraphClient:
    """Return the real client, without a network."""
    client = httpx.AsyncClient(
        transport=httpx.ASGITransport(service.app),
        base_url=f"http://localhost{API}",
        headers={"authorization": f"Bearer {token}"},
    )
    return LangGraphClient(client)


async def ask(service: Service, token: str, method: str, path: str, body: Any = None) -> httpx.Response:
    return await service.client.request(method, API + path, json=body, headers={"x-api-key": token})


async def test_an_id_of_another_user_in_a_path_is_unknown(service: Service, ann: str, bob: str) -> None:
    """Every documented operation and every position of an id in it."""
    mine, theirs = await furnished(service, ann), await furnished(service, bob)
    tried = 0
    for method, path, names in sorted(await operations(service), key=lambda one: one[0] == "DELETE"):
        for foreign, unknown in mixtures(names, mine, theirs):
            answers = []
            for ids in (foreign, unknown):
                body = None if method in {"GET", "DELETE"} else {"assistant_id": "echo", "values": {}}
                target = path.format(**ids, namespace="inner", assistant="echo", agent="echo")
                answers.append(await service.client.request(method, target, json=body, headers={"x-api-key": ann}))
            got, expected = (seen(answer, *foreign.values(), *unknown.values()) for answer in answers)
            assert got == expected, f"{method} {path} {foreign}"
            assert got[0] in nothing_done(path) | {403}, f"{method} {path}: {got}"
            tried += 1
    assert tried > 60
    assert await furnished_still(service, bob, theirs)


async def test_an_id_of_another_user_in_a_body_is_unknown(service: Service, ann: str, bob: str) -> None:
    mine, theirs = await furnished(service, ann), await furnished(service, bob)
    cases: list[tuple[str, Any]] = [
        ("/runs/wait", {"assistant_id": "{assistant_id}", "input": INPUT}),
        ("/runs", {"assistant_id": "{assistant_id}", "input": INPUT}),
        ("/runs/batch", [{"assistant_id": "{assistant_id}", "input": INPUT}]),
        ("/runs/cancel", {"thread_id": "{thread_id}", "run_ids": ["{run_id}"]}),
        ("/runs/crons", {"assistant_id": "{assistant_id}", "schedule": "0 0 * * *", "input": INPUT}),
        ("/threads/prune", {"thread_ids": ["{thread_id}"]}),
        ("/threads/prune", {"thread_ids": ["{thread_id}"], "strategy": "keep_latest"}),
        ("/threads/{mine}/state/checkpoint", {"checkpoint": {"checkpoint_id": "{checkpoint_id}"}}),
        ("/threads/{mine}/runs/wait", {"assistant_id": "echo", "input": INPUT, "checkpoint_id": "{checkpoint_id}"}),
        ("/threads/{mine}/runs/wait", {"assistant_id": "{assistant_id}", "input": INPUT}),
        ("/threads/{mine}/runs/crons", {"assistant_id": "{assistant_id}", "schedule": "0 0 * * *", "input": INPUT}),
        ("/threads/{mine}/state", {"values": {}, "checkpoint_id": "{checkpoint_id}"}),
    ]
    for path, body in cases:
        answers = []
        for ids in (theirs, dict.fromkeys(theirs, str(UNKNOWN))):
            got = await ask(service, ann, "POST", path.replace("{mine}", mine["thread_id"]), fill(body, ids))
            answers.append(seen(got, *ids.values()))
        assert answers[0] == answers[1], path
        assert await furnished_still(service, bob, theirs)


async def test_a_run_that_takes_over_a_thread_does_not_cancel_another_users_run(
    service: Service, ann: str, bob: str
) -> None:
    thread = (await ask(service, bob, "POST", "/threads", {})).json()["thread_id"]
    waiting = {"assistant_id": "echo", "input": INPUT, "after_seconds": 3600}
    run = (await ask(service, bob, "POST", f"/threads/{thread}/runs", waiting)).json()["run_id"]
    for strategy in ("interrupt", "rollback"):
        taking = {"assistant_id": "echo", "input": INPUT, "multitask_strategy": strategy, "if_not_exists": "create"}
        assert (await ask(service, ann, "POST", f"/threads/{thread}/runs", taking)).status_code == 404
    assert (await ask(service, ann, "POST", "/runs/cancel", {"status": "pending"})).status_code == 404
    assert (await ask(service, bob, "GET", f"/threads/{thread}/runs/{run}")).json()["status"] == "pending"
    assert (await ask(service, bob, "POST", "/runs/cancel", {"status": "pending"})).status_code == 204


@pytest.mark.parametrize(
    "asked, status",
    [
        ({}, 200),
        ({"config": {"tags": ["a"]}}, 200),
        ({"config": {"configurable": {"costly": True}}}, 402),
        ({"context": {"costly": True}}, 402),
    ],
)
async def test_a_handler_reads_the_configuration_of_a_run_also_if_it_has_none(
    service: Service, ann: str, asked: Any, status: int
) -> None:
    body = {"assistant_id": "echo", "input": INPUT, **asked}
    assert (await ask(service, ann, "POST", "/runs/wait", body)).status_code == status


async def test_searches_counts_and_lists_show_only_the_users_own_resources(
    service: Service, ann: str, bob: str
) -> None:
    mine, theirs = await furnished(service, ann), await furnished(service, bob)
    as_ann = sdk(service, ann)
    assert [one["thread_id"] for one in await as_ann.threads.search(limit=100)] == [mine["thread_id"]]
    assert await as_ann.threads.count() == 1
    assert [one["assistant_id"] for one in await as_ann.assistants.search(limit=100)] == [mine["assistant_id"]]
    assert await as_ann.assistants.count() == 1
    crons = await as_ann.crons.search(limit=100)
    assert [one["cron_id"] for one in crons] == [mine["cron_id"]]
    assert await as_ann.crons.count() == 1
    assert await as_ann.threads.search(ids=[theirs["thread_id"]]) == []
    as_bob = await as_ann.threads.search(metadata={"owner": bob})
    assert theirs["thread_id"] not in {one["thread_id"] for one in as_bob}
    assert await as_ann.threads.search(values={"messages": []}, ids=[theirs["thread_id"]]) == []


async def test_created_resources_are_stamped_and_cannot_be_given_to_another_user(
    service: Service, ann: str, bob: str
) -> None:
    as_ann = sdk(service, ann)
    thread = await as_ann.threads.create(metadata={"owner": bob, "colour": "red"})
    assert thread["metadata"] == {"owner": ann, "colour": "red"}
    given: Any = await as_ann.threads.update(thread["thread_id"], metadata={"owner": bob})
    assert given["metadata"]["owner"] == ann
    copy = (await ask(service, ann, "POST", f"/threads/{thread['thread_id']}/copy")).json()
    assert copy["metadata"] == {"owner": ann, "colour": "red"}
    assert (await ask(service, bob, "POST", f"/threads/{thread['thread_id']}/copy")).status_code == 404


async def test_a_kept_stateless_run_belongs_to_its_creator_alone(service: Service, ann: str, bob: str) -> None:
    asked = {"assistant_id": "echo", "input": INPUT, "on_completion": "keep"}
    answer = await ask(service, ann, "POST", "/runs/wait", asked)
    thread = answer.headers["content-location"].split("/")[2]
    assert (await ask(service, ann, "GET", f"/threads/{thread}")).json()["metadata"]["owner"] == ann
    assert (await ask(service, bob, "GET", f"/threads/{thread}/state")).status_code == 404


async def test_an_idempotency_key_belongs_to_its_sender_alone(service: Service, ann: str, bob: str) -> None:
    made = []
    for token in (ann, ann, bob):
        headers = {"x-api-key": token, "idempotency-key": ann}
        made.append((await service.client.post(f"{API}/threads", json={}, headers=headers)).json())
    assert made[0] == made[1]
    assert made[2]["metadata"]["owner"] == bob
    assert made[2]["thread_id"] != made[0]["thread_id"]


async def test_the_store_uses_the_namespace_that_its_handler_returns(service: Service, ann: str, bob: str) -> None:
    as_ann, as_bob = sdk(service, ann), sdk(service, bob)
    await as_ann.store.put_item(["notes"], "a", {"text": "mine"})
    item = await as_ann.store.get_item(["notes"], "a")
    assert item is not None
    assert (item["namespace"], item["value"]) == ([ann, "notes"], {"text": "mine"})
    assert await as_bob.store.get_item([ann, "notes"], "a") is None
    assert (await as_bob.store.search_items([ann]))["items"] == []
    assert (await as_bob.store.list_namespaces())["namespaces"] == []
    assert (await as_ann.store.list_namespaces())["namespaces"] == [[ann, "notes"]]
    await as_bob.store.delete_item([ann, "notes"], "a")
    assert len((await as_ann.store.search_items([]))["items"]) == 1
    await as_ann.store.delete_item(["notes"], "a")
    assert (await as_ann.store.search_items([]))["items"] == []


async def test_an_agent_knows_the_user_and_clients_cannot_impersonate_another(service: Service, ann: str) -> None:
    forged = {"langgraph_auth_user": {"identity": "root"}, "langgraph_auth_user_id": "root", "langgraph_auth_x": 1}
    forged |= {"langgraph_auth_permissions": ["all"]}
    asked = {"assistant_id": "whoami", "input": INPUT, "config": {"configurable": forged}}
    values = (await ask(service, ann, "POST", "/runs/wait", asked)).json()
    known = json.loads(values["messages"][-1]["content"])
    assert known["langgraph_auth_user_id"] == ann
    assert known["langgraph_auth_permissions"] == ["POST:x"]
    user = known["langgraph_auth_user"]
    assert (user["identity"], user["display_name"], user["is_authenticated"]) == (ann, ann.capitalize(), True)
    assert user["provider_token"] == f"{ann}-PROVIDER-SECRET"
    assert "lock" not in user


async def test_without_handlers_clients_cannot_name_a_user_either(database_url: str, tmp_path: Path) -> None:
    file = tmp_path / "agents.toml"
    file.write_text(f'[agents.whoami]\nfunction = "{FOLDER / "agent.py"}:whoami"\n')
    async with serving(database_url, AGENT_AUTH="none", AGENT_CONFIG=str(file)) as service:
        forged = {"langgraph_auth_user": {"identity": "root"}, "langgraph_auth_user_id": "root"}
        asked = {"assistant_id": "whoami", "input": INPUT, "config": {"configurable": forged}}
        values = (await ask(service, "", "POST", "/runs/wait", asked)).json()
    assert json.loads(values["messages"][-1]["content"]) == {}


async def test_the_handlers_user_data_is_shown_to_no_client(service: Service, ann: str, bob: str) -> None:
    """Agents may need a token of the user; readers of the run do not."""
    thread = (await ask(service, ann, "POST", "/threads", {})).json()["thread_id"]
    asked = {"assistant_id": "echo", "input": INPUT}
    texts = []
    made = await ask(service, ann, "POST", f"/threads/{thread}/runs", asked)
    texts += [made.text, (await ask(service, ann, "GET", f"/threads/{thread}/runs")).text]
    run = f"/threads/{thread}/runs/{made.json()['run_id']}"
    texts += [(await ask(service, ann, "GET", run + part)).text for part in ("", "/join", "/stream")]
    searched = await ask(service, ann, "POST", "/runs/search", {})
    assert [one["run_id"] for one in searched.json()] == [made.json()["run_id"]]
    assert (await ask(service, bob, "POST", "/runs/search", {})).json() == []
    texts.append(searched.text)
    cron = await ask(service, ann, "POST", "/runs/crons", {**asked, "schedule": "0 0 1 1 *"})
    texts += [cron.text, (await ask(service, ann, "POST", "/runs/crons/search", {})).text]
    texts += [(await ask(service, ann, "GET", f"/threads/{thread}{part}")).text for part in ("", "/state", "/history")]
    data_subject = DataSubject(tenant_id=DEFAULT_TENANT, metadata={"owner": ann})
    await export(
        service.services.persistence.database, data_subject, "default", lambda line: texts.append(bytes(line).decode())
    )
    assert len([text for text in texts if ann in text]) > 10
    assert not [text for text in texts if "PROVIDER-SECRET" in text]


async def test_an_unknown_user_gets_the_response_of_the_handler(service: Service) -> None:
    none = await service.client.post(f"{API}/threads/search", json={})
    assert (none.status_code, none.headers["content-type"]) == (401, "application/problem+json")
    away = await ask(service, "away", "POST", "/threads/search", {})
    assert (away.status_code, away.json()["detail"]) == (401, "The token has expired.")
    tea = await ask(service, "teapot", "POST", "/threads/search", {})
    assert (tea.status_code, tea.json()["detail"], tea.headers["x-tea"]) == (418, "I am a teapot", "green")


async def test_an_unexpected_exception_of_a_handler_leaks_nothing(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    crash = await ask(service, "crash", "POST", "/threads/search", {})
    assert (crash.status_code, crash.headers["content-type"]) == (500, "application/problem+json")
    printed = capsys.readouterr()
    assert "SECRET" not in crash.text + printed.out + printed.err


async def test_open_routes_stay_open_and_people_are_members(service: Service, ann: str) -> None:
    for path in ("/ok", "/info", "/health/live"):
        assert (await service.client.get(API + path)).status_code == 200
    assert (await ask(service, ann, "POST", "/admin/secrets/reload")).status_code == 403
    assert (await ask(service, ann, "GET", "/audit")).status_code == 403


async def test_keys_of_operators_are_valid_in_addition_to_handlers(database_url: str, ann: str) -> None:
    async with serving(database_url, AGENT_AUTH="api_key", AGENT_CONFIG=FILE) as service:
        key = await service.key("default")
        thread = (await ask(service, ann, "POST", "/threads", {})).json()["thread_id"]
        assert (await ask(service, key, "GET", f"/threads/{thread}")).status_code == 200
        assert (await ask(service, key, "POST", "/admin/secrets/reload")).status_code == 200
        forged = f"{key[:-1]}{'0' if key[-1] != '0' else '1'}"
        assert (await ask(service, forged, "GET", f"/threads/{thread}")).status_code == 401


async def test_a_user_belongs_to_the_tenant_that_the_file_lets_it_name(
    database_url: str, tmp_path: Path, ann: str
) -> None:
    """Without the setting all users belong to one tenant, whatever they claim."""
    file = tmp_path / "agents.toml"
    file.write_text(f'[auth]\npath = "{FOLDER / "auth.py"}:auth"\ntenant = "org"\n')
    async with serving(database_url, AGENT_AUTH="api_key", AGENT_CONFIG=str(file)) as service:
        thread = (await ask(service, ann, "POST", "/threads", {})).json()["thread_id"]
        theirs, default = await service.key(f"org of {ann}"), await service.key("default")
        assert (await ask(service, theirs, "GET", f"/threads/{thread}")).status_code == 200
        assert (await ask(service, default, "GET", f"/threads/{thread}")).status_code == 404


async def test_a_cron_acts_for_the_user_who_created_it(service: Service, ann: str, bob: str) -> None:
    """Its runs and their kept threads belong to its creator."""
    asked = {"assistant_id": "whoami", "input": INPUT, "schedule": "* * * * *", "on_run_completed": "keep"}
    cron = (await ask(service, ann, "POST", "/runs/crons", asked)).json()
    async with service.services.persistence.database.engine_connection() as connection:
        await connection.execute(
            "update crons set next_run_date = now() - interval '1 second' where cron_id = $1", cron["cron_id"]
        )
    await service.services.features.scheduler.fire_due()
    found: list[Any] = []
    while not found or found[0]["status"] == "busy":
        found = (await ask(service, ann, "POST", "/threads/search", {"metadata": {"cron_id": cron["cron_id"]}})).json()
    assert found[0]["metadata"]["owner"] == ann
    assert ann in found[0]["values"]["messages"][-1]["content"]
    none = await ask(service, bob, "POST", "/threads/search", {"metadata": {"cron_id": cron["cron_id"]}})
    assert none.json() == []
