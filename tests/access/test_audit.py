"""Audit events of users: answers to questions, and refusals by a handler."""

from pathlib import Path
from typing import Any

from app.security.access.structs import ROLES
from tests.access.test_handlers import FILE
from tests.system.services import API, Service, serving

AGENTS = '[agents.careful]\nmodel = "scripted:demo"\ntools = ["clock"]\napprove = { tools = ["clock"] }\n'


async def actions(service: Service, key: str) -> list[tuple[str, str, str]]:
    """Return the audit events of the key's tenant as (action, actor, subject)."""
    await service.services.persistence.audit.flush()
    found = (await service.get("/audit", key)).json()
    return [(one["action"], one["actor"], one["subject"]) for one in found]


async def test_the_person_who_answers_a_question_is_audited(database_url: str, tmp_path: Path, tenant: str) -> None:
    (tmp_path / "agents.toml").write_text(AGENTS)
    config = str(tmp_path / "agents.toml")
    async with serving(database_url, AGENT_AUTH="api_key", AGENT_CONFIG=config, AGENT_DEFAULT_MODEL="") as service:
        key = await service.key(tenant, *ROLES["operator"])
        thread = (await post(service, key, "/threads", {}))["thread_id"]
        asked = {"messages": [{"role": "user", "content": "What time is it?"}]}
        first = await post(service, key, f"/threads/{thread}/runs/wait", {"assistant_id": "careful", "input": asked})
        assert first["__interrupt__"]
        answer = {"assistant_id": "careful", "command": {"resume": {"action": "approve"}}}
        assert "__interrupt__" not in await post(service, key, f"/threads/{thread}/runs/wait", answer)
        (run,) = [one["run_id"] for one in (await service.get(f"/threads/{thread}/runs", key)).json()][1:]
        noted = await actions(service, key)
    assert ("review.answered", key.split("_")[1], f"run {run} approve") in noted


async def test_refusals_by_a_handler_are_audited_under_the_users_name(database_url: str, tmp_path: Path) -> None:
    (tmp_path / "auth.py").write_text((Path(FILE).parent / "auth.py").read_text() + REFUSES)
    (tmp_path / "agents.toml").write_text('[auth]\npath = "./auth.py:auth"\ntenant = "org"\n')
    async with serving(database_url, AGENT_AUTH="api_key", AGENT_CONFIG=str(tmp_path / "agents.toml")) as service:
        operator = await service.key("org of ann", *ROLES["operator"])
        refused = await service.client.post(f"{API}/assistants/search", json={}, headers={"x-api-key": "ann"})
        assert refused.status_code == 403
        assert ("request.forbidden", "ann", "assistants.search") in await actions(service, operator)


REFUSES = """

@auth.on.assistants
async def refuse(ctx, value):
    return False
"""


async def post(service: Service, key: str, path: str, body: Any) -> Any:
    answer = await service.client.post(API + path, json=body, headers={"x-api-key": key})
    assert answer.status_code == 200, answer.text
    return answer.json()
