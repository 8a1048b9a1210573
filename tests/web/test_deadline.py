"""``AGENT_REQUEST_SECONDS``: a response begins in time, or the request gets 503."""

from pathlib import Path

import asyncpg
import pytest

from tests.system.services import API, serving

SLOW = '''
import asyncio


async def slow(context):
    """Work for longer than a request may take."""
    await asyncio.sleep(1.5)
    return "done"
'''


async def test_a_request_that_takes_too_long_gets_503_and_holds_nothing(fresh_database_url: str) -> None:
    async with serving(fresh_database_url, AGENT_AUTH="none", AGENT_REQUEST_SECONDS="1") as service:
        made = (await service.client.post(f"{API}/threads", json={})).json()
        blocker = await asyncpg.connect(fresh_database_url)
        try:
            transaction = blocker.transaction()
            await transaction.start()
            await blocker.execute("lock table threads in access exclusive mode")
            answer = await service.get(f"/threads/{made['thread_id']}")
            assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
            assert answer.json()["detail"] == "The request took longer than 1 seconds and was cancelled. Try again."
            assert int(answer.headers["retry-after"]) > 0
            await transaction.rollback()
        finally:
            await blocker.close()
        assert (await service.get(f"/threads/{made['thread_id']}")).status_code == 200


@pytest.mark.parametrize("path", ["/runs/wait", "/runs/stream"])
async def test_a_wait_and_a_stream_may_take_longer(database_url: str, tmp_path: Path, path: str) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    (tmp_path / "agents.toml").write_text("[agents.slow]\nfunction = './slow.py:slow'\n")
    settings = {"AGENT_REQUEST_SECONDS": "1", "AGENT_CONFIG": str(tmp_path / "agents.toml"), "AGENT_AUTH": "none"}
    async with serving(database_url, probe_timeout=10, **settings) as service:
        body = {"assistant_id": "slow", "input": {"messages": [{"role": "user", "content": "x"}]}}
        answer = await service.client.post(API + path, json=body)
    assert (answer.status_code, "done" in answer.text) == (200, True)
