"""Runs on a schedule, through ``langgraph_sdk`` and over HTTP."""

import json
import re
import subprocess
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import asyncpg
import httpx
import pytest
from langgraph_sdk.client import LangGraphClient
from langgraph_sdk.errors import NotFoundError, UnprocessableEntityError

from tests.journeys.conftest import Served

HELLO: Any = {"messages": [{"role": "user", "content": "hello"}]}


def mark() -> dict[str, str]:
    return {"mark": str(uuid.uuid4())}


async def make_due(served: Served, cron: Any) -> None:
    """Make ``cron`` due now."""
    connection = await asyncpg.connect(served.environment["DATABASE_URL"])
    try:
        statement = "update crons set next_run_date = date_trunc('minute', now()) where cron_id = $1"
        await connection.execute(statement, uuid.UUID(cron["cron_id"]))
    finally:
        await connection.close()


async def test_a_cron_on_a_thread_runs_there_when_its_time_comes(client: LangGraphClient, served: Served) -> None:
    thread_id = (await client.threads.create())["thread_id"]
    cron: Any = await client.crons.create_for_thread(
        thread_id, "echo", schedule="0 0 1 1 *", input=HELLO, metadata={"team": "a"}
    )
    assert (cron["thread_id"], cron["on_run_completed"], cron["enabled"]) == (thread_id, None, True)
    await make_due(served, cron)
    async for _ in await client.threads.join_stream(thread_id, last_event_id="-1"):
        break  # it has begun
    (begun,) = await client.runs.list(thread_id)
    await client.runs.join(thread_id, begun["run_id"])
    (run,) = await client.runs.list(thread_id)
    assert run["status"] == "success"
    assert (run["metadata"] or {})["cron_id"] == cron["cron_id"]
    assert (run["metadata"] or {})["team"] == "a"
    state: Any = await client.threads.get_state(thread_id)
    assert [message["content"] for message in state["values"]["messages"]] == ["hello", "echo: hello"]
    (shown,) = await client.crons.search(thread_id=thread_id)
    assert str(shown["next_run_date"]) == cron["next_run_date"]
    await client.threads.delete(thread_id)
    assert await client.crons.count(thread_id=thread_id) == 0


async def test_the_threads_of_a_stateless_cron_are_kept_on_request(client: LangGraphClient, served: Served) -> None:
    cron: Any = await client.crons.create("echo", schedule="0 0 1 1 *", input=HELLO, on_run_completed="keep")
    await make_due(served, cron)
    found: list[Any] = []
    while not found or found[0]["status"] != "idle":
        found = await client.threads.search(metadata={"cron_id": cron["cron_id"]})
    assert len(found[0]["values"]["messages"]) == 2
    await client.crons.delete(cron["cron_id"])
    assert (await client.threads.get(found[0]["thread_id"]))["status"] == "idle"


async def test_fields_of_a_cron_are_shown_changed_and_cleared(client: LangGraphClient) -> None:
    end = datetime.now(UTC) + timedelta(days=900)
    made: Any = await client.crons.create(
        "echo",
        schedule="30 9 * * MON-FRI",
        timezone=ZoneInfo("America/New_York"),
        end_time=end,
        enabled=False,
        input=HELLO,
        metadata=mark(),
        config={"recursion_limit": 5, "tags": ["t"]},
        interrupt_after="*",
        durability="exit",
        stream_mode=["values"],
        multitask_strategy="enqueue",
    )
    assert made["next_run_date"] is None
    assert (made["timezone"], made["user_id"], made["thread_id"]) == ("America/New_York", None, None)
    assert datetime.fromisoformat(made["end_time"]) == end
    assert made["payload"]["config"]["recursion_limit"] == 5
    changed: Any = await client.crons.update(
        made["cron_id"], enabled=True, end_time=None, schedule="0 12 * * *", timezone="Asia/Kolkata", input={"x": 1}
    )
    assert changed["end_time"] is None
    assert datetime.fromisoformat(changed["next_run_date"]).strftime("%H:%M%z") == "06:30+0000"
    assert changed["payload"]["input"] == {"x": 1}
    assert changed["payload"]["interrupt_after"] == "*"
    (some,) = await client.crons.search(metadata=made["metadata"], select=["cron_id", "now", "schedule"])
    assert set(some) == {"cron_id", "now", "schedule"}
    await client.crons.delete(made["cron_id"])
    for attempt in (client.crons.delete(made["cron_id"]), client.crons.update(made["cron_id"], enabled=False)):
        with pytest.raises(NotFoundError, match=f"Cron with ID {made['cron_id']} not found"):
            await attempt


async def test_invalid_crons_are_refused_with_a_message(client: LangGraphClient) -> None:
    for wrong, words in (
        ({"schedule": "every day"}, "use five fields"),
        ({"schedule": "0 9 * * *", "timezone": "Berlin"}, "Unknown time zone 'Berlin'"),
        ({"schedule": "0 9 * * *", "end_time": datetime(2020, 1, 1, tzinfo=UTC)}, "in the past"),
    ):
        arguments: Any = wrong
        with pytest.raises(UnprocessableEntityError, match=words):
            await client.crons.create("echo", **arguments)
    with pytest.raises(UnprocessableEntityError, match="Invalid assistant: 'unknown'"):
        await client.crons.create("unknown", schedule="0 9 * * *")
    with pytest.raises(NotFoundError, match="Thread with ID"):
        await client.crons.create_for_thread(str(uuid.uuid4()), "echo", schedule="0 9 * * *")
    with pytest.raises(NotFoundError):
        await client.crons.create(str(uuid.uuid4()), schedule="0 9 * * *")


def test_pages_keys_and_pointers(served: Served) -> None:
    metadata = mark()
    body = {"assistant_id": "echo", "schedule": "0 0 1 1 *", "metadata": metadata}
    with httpx.Client(base_url=served.base, timeout=20) as http:
        made = [http.post("/runs/crons", json=body).json()["cron_id"] for _ in range(3)]
        page = http.post("/runs/crons/search", json={"metadata": metadata, "limit": 2})
        assert [cron["cron_id"] for cron in page.json()] == made[:0:-1]
        assert (page.headers["x-pagination-total"], page.headers["x-pagination-next"]) == ("3", "2")
        assert http.post("/runs/crons/count", json={"metadata": metadata}).json() == 3
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        first, second = (http.post("/runs/crons", json=body, headers=headers).json() for _ in range(2))
        assert first == second == http.get(f"/runs/crons/{first['cron_id']}").json()
        wrong = http.post("/runs/crons", json={**body, "timezone": "Berlin"})
        assert wrong.status_code == 422
        assert wrong.json()["errors"][0]["pointer"] == "/timezone"
        assert http.post("/runs/crons", json={"assistant_id": "echo"}).json()["detail"] == "`schedule` is required."
        assert http.patch(f"/runs/crons/{first['cron_id']}", json={"schedule": None}).status_code == 422
        assert http.delete("/runs/crons/x").json()["detail"] == "Invalid cron ID: must be a UUID"
        patched = http.post("/runs/crons", json={**body, "webhook": "https://example.org"}).json()
        assert patched["payload"]["webhook"] == "https://example.org"
        refused = http.post("/runs/crons", json={**body, "webhook": "http://10.0.0.1/"})
        assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/webhook")
        for cron_id in (*made, first["cron_id"], patched["cron_id"]):
            assert http.delete(f"/runs/crons/{cron_id}").status_code == 204


def test_the_documented_cron_is_next_due_at_nine_in_berlin(served: Served) -> None:
    page = (
        (Path(__file__).parents[2] / "docs" / "how-to" / "crons.md")
        .read_text()
        .replace("http://127.0.0.1:8000/api/v1", served.base)
    )
    (command,) = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=30, check=True)
    cron = json.loads(done.stdout)
    assert datetime.fromisoformat(cron["next_run_date"]).astimezone(ZoneInfo("Europe/Berlin")).hour == 9
    assert httpx.delete(f"{served.base}/runs/crons/{cron['cron_id']}").status_code == 204
