"""An agent reads the memories of the user that the credential names, whatever the client claims."""

from pathlib import Path
from typing import Any

import asyncpg
import pytest

from app.security.access.structs import MEMBER
from tests.access.issuer import Issuer
from tests.access.test_tokens import good, settings
from tests.system.services import API, Service, serving

AGENT = '''
import json


async def memories(context):
    """Remember the last message on request, and report the memories and their owner."""
    said = str(context.messages[-1].content)
    if said.startswith("remember "):
        await context.tools.call("memory", action="remember", text=said)
    return json.dumps({
        "remembered": str(await context.tools.call("memory", action="recall")),
        "user": context.run.configurable.get("langgraph_auth_user_id"),
    })
'''


@pytest.fixture
def agents(tmp_path: Path) -> str:
    (tmp_path / "memories.py").write_text(AGENT)
    table = "[agents.memories]\nfunction = './memories.py:memories'\ntools = ['memory']\n"
    (tmp_path / "agents.toml").write_text(table)
    return str(tmp_path / "agents.toml")


async def say(service: Service, text: str, headers: dict[str, str], **configurable: Any) -> str:
    body = {
        "assistant_id": "memories",
        "input": {"messages": [{"role": "user", "content": text}]},
        "config": {"configurable": configurable},
    }
    answer = await service.client.post(f"{API}/runs/wait", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["messages"][-1]["content"])


async def key(service: Service, tenant: str, user_id: str = "") -> dict[str, str]:
    _, made = await service.services.auth.keys.create_key("k", tenant=tenant, scopes=MEMBER, user_id=user_id)
    return {"X-Api-Key": made.reveal()}


async def test_the_user_of_the_key_overrides_the_one_that_the_client_names(database_url: str, agents: str) -> None:
    async with serving(database_url, AGENT_AUTH="api_key", AGENT_CONFIG=agents) as service:
        ann, bob = await key(service, "owners", "ann"), await key(service, "owners", "bob")
        backend = await key(service, "owners")
        await say(service, "remember the secret of ann", ann)
        for forged in (
            {"user_id": "ann"},
            {"langgraph_auth_user_id": "ann"},
            {"user_id": "ann", "langgraph_auth_user": {"identity": "ann"}, "langgraph_auth_user_id": "ann"},
        ):
            found = await say(service, "hello", bob, **forged)
            assert "secret" not in found
            assert '"user": "bob"' in found
        await say(service, "remember that bob wrote this", bob, user_id="ann")
        assert "bob wrote" not in await say(service, "hello", ann)
        assert "secret of ann" in await say(service, "hello", ann, user_id="bob")
        shown = await say(service, "hello", backend, user_id="ann", langgraph_auth_user_id="bob")
        assert "secret of ann" in shown, "a key without a user acts for its tenant"
        assert '"user": null' in shown


async def test_the_subject_of_a_token_is_the_person_too(database_url: str, agents: str) -> None:
    async with Issuer() as issuer, serving(database_url, **settings(issuer, AGENT_CONFIG=agents)) as service:
        ann, bob = ({"Authorization": f"Bearer {good(issuer, sub=name)}"} for name in ("ann", "bob"))
        await say(service, "remember the secret of ann", ann)
        assert "secret" not in await say(service, "hello", bob, user_id="ann")
        assert "secret of ann" in await say(service, "hello", ann)


async def test_without_authentication_the_client_names_the_person(database_url: str, agents: str) -> None:
    async with serving(database_url, AGENT_AUTH="none", AGENT_CONFIG=agents) as service:
        await say(service, "remember the secret of dora", {}, user_id="dora")
        assert "secret of dora" in await say(service, "hello", {}, user_id="dora")
        assert "secret of dora" not in await say(service, "hello", {}, user_id="emil")


async def test_the_person_of_a_run_is_kept_by_crons_and_shown_by_no_route(fresh_database_url: str, agents: str) -> None:
    async with serving(fresh_database_url, AGENT_AUTH="api_key", AGENT_CONFIG=agents) as service:
        carol = await key(service, "owners of crons", "carol")
        thread = (await service.client.post(f"{API}/threads", json={}, headers=carol)).json()["thread_id"]
        asked = {"assistant_id": "memories", "input": {"messages": [{"role": "user", "content": "x"}]}}
        run = await service.client.post(f"{API}/runs", json=asked, headers=carol)
        assert (run.status_code, "langgraph_auth" in run.text) == (200, False)
        made = await service.client.post(
            f"{API}/threads/{thread}/runs/crons", json={**asked, "schedule": "0 0 1 1 *"}, headers=carol
        )
        assert (made.status_code, "langgraph_auth" in made.text) == (200, False)
        await due_now(fresh_database_url)
        state: dict[str, Any] = {}
        while '"user": "carol"' not in str(state.get("values")):
            await service.services.features.scheduler.fire_due()
            state = (await service.client.get(f"{API}/threads/{thread}/state", headers=carol)).json()


async def test_a_cron_acts_for_the_user_who_last_changed_its_request(fresh_database_url: str, agents: str) -> None:
    async with serving(fresh_database_url, AGENT_AUTH="api_key", AGENT_CONFIG=agents) as service:
        ann, bob = await key(service, "owners", "ann"), await key(service, "owners", "bob")
        await say(service, "remember the secret of ann", ann)
        thread = (await service.client.post(f"{API}/threads", json={}, headers=ann)).json()["thread_id"]
        asked = {"assistant_id": "memories", "input": {"messages": [{"role": "user", "content": "x"}]}}
        made = await service.client.post(
            f"{API}/threads/{thread}/runs/crons", json={**asked, "schedule": "0 0 1 1 *"}, headers=ann
        )
        cron = f"{API}/runs/crons/{made.json()['cron_id']}"
        taken = {"input": {"messages": [{"role": "user", "content": "what is remembered?"}]}}
        assert (await service.client.patch(cron, json=taken, headers=bob)).status_code == 200
        await due_now(fresh_database_url)
        state: dict[str, Any] = {}
        while '"user": ' not in str(state.get("values")):
            await service.services.features.scheduler.fire_due()
            state = (await service.client.get(f"{API}/threads/{thread}/state", headers=bob)).json()
        assert '"user": "bob"' in str(state["values"])
        assert "secret of ann" not in str(state["values"])


async def due_now(url: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("update crons set next_run_date = now() - interval '1 second'")
    finally:
        await connection.close()
