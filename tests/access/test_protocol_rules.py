"""Handlers of custom auth bound the routes of other protocols as they do the service's own."""

import asyncio
from pathlib import Path
from typing import Any

import httpx

from tests.access.test_rules import ask
from tests.access.test_tenants import INPUT
from tests.system.services import API, serving

NO_READING = """
from langgraph_sdk import Auth

auth = Auth()

@auth.authenticate
def authenticate(request):
    return request.headers["x-api-key"]

@auth.on.threads.read
async def read(ctx, value):
    return "run_id" not in value
"""


WAITING = """
import asyncio
from app.agents.function import Context

async def run(context: Context) -> None:
    await asyncio.Event().wait()
"""


async def test_a_stream_is_resumed_only_by_who_may_read_its_run(database_url: str, tmp_path: Path) -> None:
    (tmp_path / "auth.py").write_text(NO_READING)
    (tmp_path / "waiting.py").write_text(WAITING)
    agents = '[agents.waiting]\nfunction = "./waiting.py:run"\n[auth]\npath = "./auth.py:auth"\n'
    (tmp_path / "agents.toml").write_text(agents)
    async with serving(database_url, AGENT_AUTH="none", AGENT_CONFIG=str(tmp_path / "agents.toml")) as service:
        thread = (await ask(service, "ann", "POST", "/threads", {})).json()["thread_id"]
        waiting = {"assistant_id": "waiting", "input": INPUT}
        run = (await ask(service, "ann", "POST", f"/threads/{thread}/runs", waiting)).json()["run_id"]
        async with asyncio.timeout(30):
            own = await ask(service, "ann", "GET", f"/threads/{thread}/runs/{run}/stream")
            resumed = await service.client.get(f"/ai-sdk/echo/chat/{thread}/stream", headers={"x-api-key": "ann"})
        assert (own.status_code, resumed.status_code) == (403, 403)
        cancelled = await ask(service, "ann", "POST", f"/threads/{thread}/runs/{run}/cancel?wait=1")
        assert cancelled.is_success


async def test_only_commands_that_start_runs_count_against_the_rate_of_runs(database_url: str) -> None:
    async with serving(database_url, AGENT_AUTH="none", AGENT_RATE_PER_MINUTE="1") as service:
        thread = (await service.client.post(f"{API}/threads", json={})).json()["thread_id"]

        async def command(method: str, **params: Any) -> httpx.Response:
            body = {"id": 1, "method": method, "params": params}
            return await service.client.post(f"{API}/threads/{thread}/commands", json=body)

        assert (await command("run.start", assistant_id="echo", input="hi")).json()["type"] == "success"
        for _ in range(3):
            assert (await command("state.get")).json()["type"] == "success"
        limited = await command("run.start", assistant_id="echo", input="hi")
        assert (limited.status_code, "retry-after" in limited.headers) == (429, True)
