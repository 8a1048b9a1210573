"""Canary secrets and texts are planted everywhere and searched in all output of the server."""

import asyncio
import secrets
import socket
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from tests.cli.commands import run_command
from tests.journeys.conftest import Served
from tests.llm.fake_provider import FakeProvider
from tests.llm.faults import Fault, Replay

AGENTS = """
[agents.asking]
model = "openai:tiny-chat"

[agents.other]
model = "anthropic:large"

[agents.failing]
function = "./failing.py:run"
"""
FAILING = """
async def run(context):
    raise RuntimeError("The agent's own words may be shown to its caller.")
"""


class Canaries:
    """Unique values."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    def __call__(self, name: str, prefix: str = "") -> str:
        value = secrets.token_hex(16)
        self.values[name] = value
        return prefix + value

    def seen_in(self, text: str) -> list[str]:
        """Return the canaries in the text, whole or by their first or last eight characters."""
        return [name for name, value in self.values.items() if value[:8] in text or value[-8:] in text]


async def test_no_secret_and_no_prompt_is_seen_where_it_does_not_belong(
    fresh_database_url: str, tmp_path: Path, provider: FakeProvider
) -> None:
    (tmp_path / "agents.toml").write_text(AGENTS)
    (tmp_path / "failing.py").write_text(FAILING)
    plant = Canaries()
    password = plant("database password")
    environment = {
        "DATABASE_URL": fresh_database_url.replace("//postgres@", f"//postgres:{password}@"),
        "AGENT_AUTH": "api_key",
        "AGENT_KEY_PEPPER": plant("pepper"),
        "AGENT_WEBHOOK_SECRET": plant("webhook secret"),
        "OPENAI_API_KEY": plant("openai key", "sk-"),
        "OPENAI_API_KEY_SECONDARY": plant("openai spare key", "sk-"),
        "ANTHROPIC_API_KEY": plant("anthropic key", "sk-ant-"),
        "OPENAI_BASE_URL": f"{provider.url}/v1",
        "ANTHROPIC_BASE_URL": provider.url,
        "REDIS_URL": f"redis://:{plant('redis password')}@127.0.0.1:1/0",
        "AGENT_CONFIG": str(tmp_path / "agents.toml"),
        "AGENT_RATE_PER_MINUTE": "0",
        "LOG_LEVEL": "debug",
        "LOG_FORMAT": "json",
    }
    made = await asyncio.to_thread(
        run_command, tmp_path, "keys", "create", "--name", "canary", "--role", "admin", **environment
    )
    assert made.returncode == 0, made.stderr
    key = made.stdout.strip()
    plant.values["api key"] = key.split("_", 2)[2]
    server = Served("", tmp_path, **environment)
    said: list[str] = [made.stderr]
    prompt = plant("prompt")
    try:
        await asyncio.to_thread(server.wait_until_ready)
        async with httpx.AsyncClient(base_url=server.base, timeout=30) as http:
            said += await everything(http, key, (prompt, environment["OPENAI_API_KEY"]), provider)
            said += await hostile(http, key, server.port)
    finally:
        await asyncio.to_thread(server.stop)
    everywhere = "\n".join(said)
    log = server.log.read_text()
    assert "asking" in everywhere
    assert "request_failed" in log or "run_failed" in log, "no request failed, so nothing was tested"
    assert [line for line in log.splitlines() if plant.seen_in(line)] == []
    del plant.values["prompt"]  # it is part of the conversation, so it is in responses and tables
    assert [part[:2000] for part in said if plant.seen_in(part)] == []
    assert plant.seen_in(await rows(fresh_database_url)) == []
    for verb in (["agents", "check"], ["keys", "list"]):
        done = await asyncio.to_thread(run_command, tmp_path, *verb, **environment)
        assert plant.seen_in(done.stdout + done.stderr) == []


async def everything(http: httpx.AsyncClient, key: str, words: tuple[str, str], provider: FakeProvider) -> list[str]:
    """Return responses and streams of successful and failed conversations and of all status routes."""
    said = []
    headers = {"x-api-key": key}
    prompt, provider_key = words
    body: dict[str, Any] = {
        "input": {"messages": [{"role": "user", "content": prompt}]},
        "stream_mode": ["values", "debug"],
    }
    faults = (Fault.UNAUTHORIZED, Fault.BAD_REQUEST, Fault.HTML, Fault.CUT, Fault.BAD_JSON, Fault.ERROR_IN_STREAM)
    echo = Replay(
        data=f'{{"error": {{"message": "your key {provider_key} and prompt {prompt}"}}}}'.encode(), status=400
    )
    for agent in ("asking", "other", "failing"):
        for fault in (None, echo, *faults):
            if fault is echo and agent != "asking":
                continue
            if fault is not None:
                provider.plan(fault, fault)
            answer = await http.post("/runs/stream", json={**body, "assistant_id": agent}, headers=headers)
            said.append(answer.text + str(answer.headers))
            provider._plan.clear()
    for path in ("/info", "/health", "/assistants/asking/schemas", "/audit", "/webhooks/deliveries", "/ok"):
        answer = await http.get(path, headers=headers)
        said.append(answer.text + str(answer.headers))
    root = str(http.base_url).removesuffix("/api/v1/")
    said += [(await http.get(root + path)).text for path in ("/metrics", "/openapi.json", "/docs")]
    said.append((await http.post("/admin/secrets/reload", headers=headers)).text)
    return said


async def hostile(http: httpx.AsyncClient, key: str, port: int) -> list[str]:
    """Send failing requests with secrets in wrong places."""
    said = []
    for headers in (
        {"x-api-key": key + "x"},
        {"authorization": f"Basic {key}"},
        {"authorization": key},
        {"cookie": key},
    ):
        for path in ("/threads/x", f"/threads?key={key}", f"/{key}", "/runs/wait"):
            for method in ("GET", "POST"):
                answer = await http.request(method, path, headers=headers, content=b"{")
                # a problem may repeat the path that its client has sent
                said.append(answer.text.replace(f"/{key}", "").replace(f"key={key}", ""))
    nonsense = (f"GET / HTTP/1.1\r\nX-Api-Key: {key}\x00\r\n\r\n", f"NONSENSE {key}\r\n\r\n")
    return said + [await asyncio.to_thread(raw, port, text.encode()) for text in nonsense]


def raw(port: int, request: bytes) -> str:
    with socket.create_connection(("127.0.0.1", port), 5) as connection:
        connection.settimeout(5)
        connection.sendall(request)
        try:
            return connection.recv(65536).decode("latin-1")
        except OSError:
            return ""


async def rows(url: str) -> str:
    """Return every row of every table as text."""
    connection = await asyncpg.connect(url)
    try:
        tables = await connection.fetch(
            "select relname from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace"
        )
        found = []
        for table in tables:
            found += [row[0] for row in await connection.fetch(f'select t::text from "{table[0]}" t')]
        return "\n".join(found)
    finally:
        await connection.close()
