"""Keys and passwords are rotated under load: not one request fails, and the old ones are no longer used."""

import asyncio
import os
import secrets
import signal
from pathlib import Path
from typing import Any

import httpx

from app.infra.db import migrations
from app.security.access.structs import ROLES
from tests.database import execute
from tests.journeys.conftest import Served
from tests.llm.fake_provider import FakeProvider
from tests.outages import Server
from tests.system.services import API, serving

AGENTS = '[agents.asking]\nmodel = "openai:tiny-chat"\n'


def write(path: Path, text: str) -> None:
    """Atomically, as a careful operator does."""
    path.with_suffix(".new").write_text(text)
    path.with_suffix(".new").rename(path)


class Load:
    """Runs without a pause, a few at once; every failed response is kept."""

    def __init__(self, base: str, agent: str) -> None:
        self._base = base
        self._body = {"assistant_id": agent, "input": {"messages": [{"role": "user", "content": "hello"}]}}
        self._stop = False
        self.done = 0
        self.failed: list[str] = []

    async def run(self, clients: int = 4) -> None:
        async with httpx.AsyncClient(timeout=30) as http:
            await asyncio.gather(*(self._client(http) for _ in range(clients)))

    async def _client(self, http: httpx.AsyncClient) -> None:
        while not self._stop:
            answer = await http.post(f"{self._base}/runs/wait", json=self._body)
            self.done += 1
            if answer.status_code != 200 or "__error__" in answer.text:
                self.failed.append(answer.text)

    async def more(self, count: int = 20) -> None:
        """Wait for ``count`` more."""
        enough = self.done + count
        while self.done < enough:  # noqa: ASYNC110  what clients have seen
            await asyncio.sleep(0.01)

    def stop(self) -> None:
        self._stop = True


def used_keys(provider: FakeProvider) -> set[str]:
    return {asked.headers["Authorization"].removeprefix("Bearer ") for asked in provider.requests if asked.body}


async def test_a_providers_key_is_rotated_by_its_file_a_signal_and_the_spare_one(
    fresh_database_url: str, tmp_path: Path, provider: FakeProvider
) -> None:
    """The provider accepts the old key and the new one for a while, then the new one alone."""
    (tmp_path / "agents.toml").write_text(AGENTS)
    key, spare = tmp_path / "key", tmp_path / "spare"
    write(key, "sk-one")
    write(spare, "sk-two")
    environment = {
        "AGENT_CONFIG": str(tmp_path / "agents.toml"),
        "OPENAI_BASE_URL": f"{provider.url}/v1",
        "OPENAI_API_KEY_FILE": str(key),
        "OPENAI_API_KEY_SECONDARY_FILE": str(spare),
        "WORKERS": "2",
    }
    server = Served(fresh_database_url, tmp_path, **environment)
    load = Load(server.base, "asking")
    try:
        await asyncio.to_thread(server.wait_until_ready)
        working = asyncio.ensure_future(load.run())
        await load.more()
        provider.refused_keys.add("sk-one")  # void before we know: the spare key is used
        await load.more(40)
        write(key, "sk-three")
        os.kill(server.process.pid, signal.SIGHUP)
        while "sk-three" not in used_keys(provider):
            await load.more(1)
        provider.refused_keys.add("sk-two")
        write(spare, "sk-four")  # read within five seconds, or when sk-three is refused
        await load.more(40)
        write(key, "sk-five")
        provider.refused_keys.update({"sk-three", "sk-four"})  # both at once: read again at once
        await load.more(40)
        load.stop()
        await working
        assert load.failed == []
        assert load.done >= 140
        assert used_keys(provider) >= {"sk-one", "sk-two", "sk-three", "sk-five"}
        assert "sk-" not in server.log.read_text()
    finally:
        assert await asyncio.to_thread(server.stop) == 0


async def test_the_databases_password_is_rotated_under_load(tmp_path: Path) -> None:
    """The new one is written first, then the database is changed: open connections stay, new ones use it."""
    first, second = secrets.token_hex(8), secrets.token_hex(8)
    database = Server(tmp_path / "database", {"fsync": "off"})
    await asyncio.to_thread(database.begin)
    try:
        await asyncio.to_thread(migrations.upgrade, database.url)
        database.ask_for_passwords("rotating")
        await execute(
            database.url,
            f"create role rotating login password '{first}'",
            "grant agent_app, agent_engine to rotating with inherit false, set true",
            "select pg_reload_conf()",
        )
        url = tmp_path / "url"

        def address(password: str) -> str:
            return database.url.replace("//postgres@", f"//rotating:{password}@")

        write(url, address(first))
        server = Served("", tmp_path, DATABASE_URL_FILE=str(url))
        try:
            await asyncio.to_thread(server.wait_until_ready)
            load = Load(server.base, "echo")
            working = asyncio.ensure_future(load.run())
            await load.more(40)
            write(url, address(second))
            os.kill(server.process.pid, signal.SIGHUP)
            await load.more(40)
            await execute(database.url, f"alter role rotating password '{second}'")
            await load.more(40)
            load.stop()
            await working
            await execute(database.url, TERMINATE)
            again = Load(server.base, "echo")
            working = asyncio.ensure_future(again.run())
            await again.more(40)
            again.stop()
            await working
            assert load.failed + again.failed == []
            assert first not in server.log.read_text() + second
        finally:
            assert await asyncio.to_thread(server.stop) == 0
    finally:
        await asyncio.to_thread(database.stop)


TERMINATE = """
do $$ begin
  perform pg_terminate_backend(pid) from pg_stat_activity where usename = 'rotating';
  while exists (select from pg_stat_activity where usename = 'rotating' and state = 'idle') loop
    perform pg_sleep(0.01); perform pg_stat_clear_snapshot();
  end loop;
end $$
"""


async def test_an_admin_can_reload_the_secrets_and_sees_errors(database_url: str, tmp_path: Path) -> None:
    key = tmp_path / "key"
    write(key, "sk-one")
    settings: dict[str, Any] = {"AGENT_AUTH": "api_key", "OPENAI_API_KEY_FILE": str(key), "AGENT_RATE_PER_MINUTE": "0"}
    async with serving(database_url, **settings) as service:
        admin = await service.key("default", *ROLES["admin"])
        operator = await service.key("default", *ROLES["operator"])

        async def reload(who: str) -> httpx.Response:
            return await service.client.post(f"{API}/admin/secrets/reload", headers={"x-api-key": who})

        assert (await reload(operator)).status_code == 403
        assert (await reload(admin)).json() == {"rotated": [], "refused": {}}
        write(key, "sk-two")
        assert (await reload(admin)).json() == {"rotated": ["OPENAI_API_KEY"], "refused": {}}
        write(key, "")
        reloaded = (await reload(admin)).json()
        assert reloaded["rotated"] == []
        assert "is empty" in reloaded["refused"]["OPENAI_API_KEY"]
        metrics = (await service.client.get("/metrics")).text
        assert 'agent_secret_rotations_total{name="OPENAI_API_KEY",outcome="refused"} 1' in metrics
        assert "sk-" not in metrics + str(reloaded)
