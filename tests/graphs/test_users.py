"""Graphs that functions make for a user: the caller is known in runs, states and schemas."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.graphs.conftest import PROJECT
from tests.system.services import API, serving

FACTORIES = ("by_config", "by_runtime", "by_both")


def use(factory: str, access: str, user: str) -> str:
    """Return what ``factory`` notes when it is called for ``user``."""
    known = [user, user, True]
    match factory:
        case "by_config":
            return f"config {known}"
        case "by_runtime":
            return f"runtime {(access, user)}"
        case _:
            return f"both {(access, known, True)}"


async def test_factories_and_nodes_know_the_user_of_a_key(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uses = tmp_path / "uses"
    monkeypatch.setenv("EFFECTS", str(uses))
    config = tmp_path / "langgraph.json"
    graphs = {name: f"{PROJECT}/personal.py:{name}" for name in FACTORIES}
    config.write_text(json.dumps({"dependencies": ["."], "graphs": graphs}))
    async with serving(database_url, AGENT_AUTH="api_key", AGENT_CONFIG=str(config)) as service:

        async def ask(path: str, user: str, body: Any = None) -> tuple[Any, list[str]]:
            """Return an answer, and for which uses graphs were made meanwhile."""
            before = uses.read_text()
            method = "GET" if body is None else "POST"
            answer = await service.client.request(method, API + path, json=body, headers=keys[user])
            assert answer.status_code == 200, answer.text
            return answer.json(), uses.read_text().removeprefix(before).splitlines()

        keys: dict[str, dict[str, str]] = {}
        for user in ("ann", "bob"):
            _, key = await service.services.auth.keys.create_key("test", tenant="t", user_id=user)
            keys[user] = {"x-api-key": key.reveal()}
        forged = {"configurable": {"langgraph_auth_user": {"identity": "root"}, "langgraph_auth_user_id": "root"}}
        for user in ("ann", "bob"):
            for name in FACTORIES:
                assistant, _ = await ask("/assistants", user, {"graph_id": name, "config": forged})
                _, made = await ask(f"/assistants/{assistant['assistant_id']}/schemas", user)
                assert made == [use(name, "assistants.read", user)]
                thread, _ = await ask("/threads", user, {})
                at = f"/threads/{thread['thread_id']}"
                run = {"assistant_id": assistant["assistant_id"], "input": {}}
                values, made = await ask(f"{at}/runs/wait", user, run)
                assert (values["seen"], made) == ([[user, user, True]], [use(name, "threads.create_run", user)])
                state, made = await ask(f"{at}/state?subgraphs=true", user)
                assert (state["next"], set(made)) == (["child"], {use(name, "threads.read", user)})
                _, made = await ask(f"{at}/state", user, {"values": {"seen": []}, "as_node": "look"})
                assert made == [use(name, "threads.update", user)]
