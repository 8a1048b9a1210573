"""A server with API keys: only valid keys are accepted, and each sees only its tenant."""

import asyncio
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests import fork_server
from tests.database import clone, drop
from tests.journeys.conftest import PEPPER, Served


@pytest.fixture(scope="module")
def guarded(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    url = asyncio.run(clone(server_url))
    server = Served(url, tmp_path_factory.mktemp("guarded"), AGENT_AUTH="api_key", AGENT_KEY_PEPPER=PEPPER)
    try:
        yield server.wait_until_ready()
    finally:
        server.stop()
        asyncio.run(drop(server_url, url))


def keys(server: Served, *words: str) -> str:
    done = fork_server.run("app", "keys", *words, env=server.environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def http(server: Served, key: str = "") -> httpx.Client:
    return httpx.Client(base_url=server.base, headers={"Authorization": f"Bearer {key}"} if key else {}, timeout=20)


def test_without_a_valid_key_everything_but_the_open_routes_is_refused(guarded: Served) -> None:
    key = keys(guarded, "create", "--name", "real")
    forged = f"{key[:-1]}{'A' if key[-1] != 'A' else 'B'}"
    for bad in ("", "x", "as_", "as_x_y", f"as_{'a' * 16}_{'b' * 43}", forged, "as_" + "a" * 5000):
        with http(guarded, bad) as client:
            answer = client.post("/threads", json={})
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"].startswith("Bearer")
            assert answer.json()["title"] == "Not authenticated"
            assert len(bad) < 20 or bad not in answer.text
    with http(guarded) as client:
        for path in ("/ok", "/info", "/health/live", "/health/ready"):
            assert client.get(path).status_code == 200
        assert set(client.get("/health").json()) == {"status"}
    assert guarded.get("/metrics") == guarded.get("/docs") == guarded.get("/openapi.json") == 200


def test_a_key_works_in_both_headers_and_shows_more_of_the_health(guarded: Served) -> None:
    key = keys(guarded, "create", "--name", "both")
    with http(guarded, key) as client:
        assert client.post("/threads", json={}).status_code == 200
        assert client.get("/health").json()["checks"]["checkpoint_db"]["migration"] == "head"
    with httpx.Client(base_url=guarded.base, headers={"X-Api-Key": key}) as client:
        assert client.post("/assistants/search", json={}).status_code == 200


def test_another_tenants_thread_is_answered_exactly_as_an_unknown_one(guarded: Served) -> None:
    ours = keys(guarded, "create", "--name", "a", "--tenant", "ours")
    theirs = keys(guarded, "create", "--name", "b", "--tenant", "theirs")
    with http(guarded, ours) as client:
        thread_id = client.post("/threads", json={}).json()["thread_id"]
        made = client.post(f"/threads/{thread_id}/runs", json={"assistant_id": "echo", "input": "x"}).json()
        run_id = made["run_id"]
        assert client.get(f"/threads/{thread_id}/runs/{run_id}/join").status_code == 200
    unknown = str(uuid.uuid4())
    with http(guarded, theirs) as client:
        of_run = [f"/runs/{run_id}{part}" for part in ("", "/join", "/stream", "/transitions")]
        for path in ("", "/state", "/runs", *of_run):
            stranger = client.get(f"/threads/{thread_id}{path}")
            missing = client.get(f"/threads/{unknown}{path}")
            assert stranger.status_code == missing.status_code == 404
            assert stranger.json()["detail"].replace(thread_id, unknown) == missing.json()["detail"]
        body = {"assistant_id": "echo", "input": "x"}
        for verb in ("runs", "runs/wait", "runs/stream"):
            assert client.post(f"/threads/{thread_id}/{verb}", json=body).status_code == 404
        assert client.post(f"/threads/{thread_id}/runs/{run_id}/cancel").status_code == 404
        assert client.delete(f"/threads/{thread_id}").status_code == 404
        assert client.post("/threads/search", json={}).json() == []
    with http(guarded, ours) as client:
        assert client.get(f"/threads/{thread_id}").status_code == 200


def test_another_tenants_cron_is_answered_exactly_as_an_unknown_one(guarded: Served) -> None:
    ours = keys(guarded, "create", "--name", "c", "--tenant", "ours")
    theirs = keys(guarded, "create", "--name", "d", "--tenant", "theirs")
    body = {"assistant_id": "echo", "schedule": "0 0 1 1 *", "input": "x"}
    with http(guarded, ours) as client:
        cron = client.post("/runs/crons", json=body).json()
        thread_id = client.post("/threads", json={}).json()["thread_id"]
    unknown = str(uuid.uuid4())
    with http(guarded, theirs) as client:
        for verb in ("GET", "PATCH", "DELETE"):
            stranger, missing = (
                client.request(verb, f"/runs/crons/{one}", json={"enabled": False} if verb == "PATCH" else None)
                for one in (cron["cron_id"], unknown)
            )
            assert stranger.status_code == missing.status_code == 404
            assert stranger.json()["detail"].replace(cron["cron_id"], unknown) == missing.json()["detail"]
        assert client.post(f"/threads/{thread_id}/runs/crons", json=body).status_code == 404
        assert client.post("/runs/crons/search", json={}).json() == []
        assert client.post("/runs/crons/count", json={}).json() == 0
    with http(guarded, ours) as client:
        assert client.get(f"/runs/crons/{cron['cron_id']}").json() == cron


def test_a_revoked_or_expired_key_is_refused(guarded: Served) -> None:
    key = keys(guarded, "create", "--name", "gone", "--tenant", "leavers")
    key_id = key.split("_")[1]
    keys(guarded, "revoke", key_id, "--tenant", "leavers")
    with http(guarded, key) as client:
        assert client.post("/threads", json={}).status_code == 401
    listed = keys(guarded, "list", "--tenant", "leavers")
    assert key_id in listed
    assert "revoked" in listed
    assert key.split("_", 2)[2] not in listed


def test_no_key_is_in_the_log(guarded: Served) -> None:
    key = keys(guarded, "create", "--name", "canary")
    with http(guarded, key) as client:
        client.post("/threads", json={})
        client.post("/runs/wait", json={"assistant_id": "nope"})
    log = Path(guarded.log).read_text()
    assert key not in log
    assert key.split("_", 2)[2] not in log
    assert PEPPER not in log
