"""The search of runs over all threads of a tenant."""

from datetime import UTC, datetime, timedelta
from typing import Any

from tests.system.services import API, serving

INPUT = {"messages": [{"role": "user", "content": "hello"}]}


async def test_runs_of_all_threads_are_found_by_what_they_are(database_url: str) -> None:
    async with serving(database_url, AGENT_AUTH="api_key") as service:
        key, other = await service.key("one"), await service.key("two")

        async def post(path: str, body: Any, key: str = key) -> Any:
            return await service.client.post(API + path, json=body, headers={"x-api-key": key})

        async def run(agent: str, **fields: Any) -> Any:
            thread = (await post("/threads", {})).json()["thread_id"]
            made = (await post(f"/threads/{thread}/runs", {"assistant_id": agent, "input": INPUT, **fields})).json()
            await service.get(f"/threads/{thread}/runs/{made['run_id']}/join", key)
            return made["run_id"]

        async def found(key: str = key, **wanted: Any) -> Any:
            answer = await post("/runs/search", wanted, key)
            assert answer.status_code == 200, answer.text
            return [one["run_id"] for one in answer.json()]

        first = await run("echo", metadata={"order": 17})
        second = await run("assistant")
        third = await run("echo")
        runs = [third, second, first]
        assert await found() == runs
        assert await found(other) == []
        assert await found(assistant_id="assistant") == [second]
        assert await found(metadata={"order": 17}) == [first]
        assert await found(status="success") == runs
        assert await found(status=["pending", "running"]) == []
        assert await found(created_after=(datetime.now(UTC) - timedelta(minutes=5)).isoformat()) == runs
        assert await found(created_after=(datetime.now(UTC) + timedelta(minutes=5)).isoformat()) == []

        page = await post("/runs/search", {"limit": 2})
        assert [one["run_id"] for one in page.json()] == runs[:2]
        assert await found(limit=2, before=page.headers["x-pagination-next"]) == runs[2:]
        (shown,) = (await post("/runs/search", {"metadata": {"order": 17}})).json()
        assert (shown["status"], shown["attempts"], shown["metadata"]["order"]) == ("success", 1, 17)
        assert shown["created_at"] <= shown["started_at"] <= shown["ended_at"]
        (part,) = (await post("/runs/search", {"limit": 1, "select": ["run_id", "usage"]})).json()
        assert part.keys() == {"run_id", "usage"}
        for wrong in ({"limit": 0}, {"status": "lost"}, {"created_after": "2026-01-01T00:00:00"}, {"before": "x"}):
            assert (await post("/runs/search", wrong)).status_code == 422, wrong
        assert (await post("/runs/search", {"assistant_id": "unknown"})).status_code == 422
