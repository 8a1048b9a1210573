"""``agent-service data`` with a running server: export and erasure of a person and a tenant."""

import asyncio
import json
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.security.access.structs import SERVICE, tenant_id_of
from tests import fork_server
from tests.database import clone, drop
from tests.journeys.conftest import AGENTS, PEPPER, Served
from tests.rights.rows import counts
from tests.waiting import until

ADA, BOB = {"user_id": "ada"}, {"user_id": "bob"}
SECRET = "my grandmother's maiden name"


@pytest.fixture
def guarded(server_url: str, tmp_path: Path) -> Iterator[Served]:
    url = asyncio.run(clone(server_url))
    settings = {"AGENT_AUTH": "api_key", "AGENT_KEY_PEPPER": PEPPER, "AGENT_CONFIG": str(AGENTS)}
    server = Served(url, tmp_path, **settings)
    try:
        yield server.wait_until_ready()
    finally:
        server.stop()
        asyncio.run(drop(server_url, url))


def command(server: Served, *words: str) -> subprocess.CompletedProcess[str]:
    return fork_server.run("app", *words, env=server.environment)


def entered(server: Served, tenant: str, *more: str) -> httpx.Client:
    """Return a client with a new key of the tenant."""
    key = command(server, "keys", "create", "--name", "app", "--tenant", tenant, *more).stdout.strip()
    return httpx.Client(base_url=server.base, headers={"Authorization": f"Bearer {key}"}, timeout=30)


def post(client: httpx.Client, path: str, body: Any, key: str = "") -> Any:
    answer = client.post(path, json=body, headers={"Idempotency-Key": key} if key else {})
    assert answer.status_code == 200, answer.text
    return answer.json()


def said(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


def live(client: httpx.Client, person: dict[str, str]) -> str:
    """Create a thread with a run inside its slow tool."""
    thread = post(client, "/threads", {"metadata": person})["thread_id"]
    post(client, f"/threads/{thread}/runs", {"assistant_id": "slow", "input": said("what time is it?")})
    until(lambda: client.get(f"/threads/{thread}").json()["status"] == "busy")
    return str(thread)


def lived(client: httpx.Client, person: dict[str, str]) -> str:
    """Create a thread with a run, a copy, a stateless run, a cron and an assistant of a person."""
    name = person["user_id"]
    thread = str(post(client, "/threads", {"metadata": person}, key=f"{name}-1")["thread_id"])
    post(client, f"/threads/{thread}/runs/wait", {"assistant_id": "echo", "input": said(SECRET)}, key=f"{name}-2")
    post(client, f"/threads/{thread}/copy", {}, key=f"{name}-3")
    stateless = {"assistant_id": "echo", "input": said(SECRET), "metadata": person}
    post(client, "/runs/wait", {**stateless, "on_completion": "keep"})
    post(client, "/runs/wait", stateless)
    assistant = post(client, "/assistants", {"graph_id": "echo", "name": name, "metadata": person}, key=f"{name}-4")
    cron = {"assistant_id": assistant["assistant_id"], "schedule": "0 5 1 1 *", "input": said(SECRET)}
    post(client, f"/threads/{thread}/runs/crons", {**cron, "metadata": person}, key=f"{name}-5")
    place = {"namespace": ["memories", "user", name], "key": "1", "value": {"text": SECRET}}
    assert client.put("/store/items", json=place).status_code == 204
    return thread


def exported(server: Served, out: Path, *words: str) -> list[dict[str, Any]]:
    done = command(server, "data", "export", "--tenant", "acme", "--out", str(out), *words)
    assert done.returncode == 0, done.stderr
    assert out.stat().st_mode & 0o777 == 0o600
    return [json.loads(line) for line in out.read_text().splitlines()]


def test_a_person_is_exported_and_deleted_while_a_run_is_live(guarded: Served, tmp_path: Path) -> None:
    with entered(guarded, "acme", "--user", "ada") as ada, entered(guarded, "acme") as bob:
        lived(ada, ADA)
        kept = lived(bob, BOB)
        busy = live(ada, ADA)
        lines = exported(guarded, tmp_path / "ada.jsonl", "--metadata", "user_id=ada")
        kinds = Counter(line["kind"] for line in lines)
        assert kinds["threads"] == 5
        assert {"checkpoints", "checkpoint_items", "runs", "events", "crons", "assistants", "store_items"} <= set(kinds)
        assert [line["kind"] for line in (lines[0], lines[-1])] == ["export", "end"]
        values = [line["row"]["values"] for line in lines if line["kind"] == "threads"]
        assert sum(SECRET in json.dumps(value) for value in values) == 4
        assert '"bob' not in json.dumps(lines)

        dry = command(guarded, "data", "delete", "--tenant", "acme", "--metadata", "user_id=ada")
        assert (dry.returncode, "nothing was deleted" in dry.stderr) == (2, True)
        assert ada.get(f"/threads/{busy}").json()["status"] == "busy"

        done = command(guarded, "data", "delete", "--tenant", "acme", "--metadata", "user_id=ada", "--yes")
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1].endswith("rows deleted")
        assert bob.get(f"/threads/{busy}").status_code == 404
        assert ada.get(f"/threads/{kept}").status_code == 401
        left = exported(guarded, tmp_path / "rest.jsonl")
        assert [line for line in left if '"ada' in json.dumps(line)] == []
        assert bob.get(f"/threads/{kept}").status_code == 200
        post(bob, f"/threads/{kept}/runs/wait", {"assistant_id": "echo", "input": said("still here")})
        assert exported(guarded, tmp_path / "gone.jsonl", "--metadata", "user_id=ada")[-1]["row"]["rows"] == {}


def test_a_tenant_is_deleted_completely_and_can_be_created_again(guarded: Served) -> None:
    with entered(guarded, "other") as other:
        lived(other, BOB)
        before = asyncio.run(counts(guarded.environment["DATABASE_URL"], tenant_id_of("other")))
        with entered(guarded, "acme") as client:
            lived(client, ADA)
            live(client, BOB)
        done = command(guarded, "data", "delete", "--tenant", "acme", "--yes")
        assert done.returncode == 0, done.stderr
        url = guarded.environment["DATABASE_URL"]
        assert {name: n for name, n in asyncio.run(counts(url, tenant_id_of("acme"))).items() if n} == {}
        after = asyncio.run(counts(url, tenant_id_of("other")))
        assert {name: n for name, n in after.items() if n < before[name] and name != "live_frames"} == {}
        assert asyncio.run(counts(url, SERVICE))["audit_log"] == 1
    with entered(guarded, "acme") as client:
        post(client, "/runs/wait", {"assistant_id": "echo", "input": said("again")})


def test_invalid_usage_is_reported_in_one_line(guarded: Served, tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    for words, line in (
        (("export", "--out", str(tmp_path / "there")), "cannot be created (File exists): name a new file"),
        (("export", "--out", "-", "--metadata", "ada"), "--metadata must be NAME=VALUE, like user_id=ada, not 'ada'"),
        (("delete", "--yes", "--metadata", "{}"), "--metadata has no fields: leave it out to select the whole tenant"),
        (("delete", "--yes", "--namespace", "users.ada"), "--namespace needs --metadata"),
    ):
        done = command(guarded, "data", *words, "--tenant", "acme")
        assert (done.returncode, line in done.stderr, done.stderr.count("\n")) == (2, True, 1), done.stderr
