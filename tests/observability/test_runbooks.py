"""What the runbooks say to type exists: settings, commands, routes, valid statements."""

import re
from pathlib import Path

import pytest

from app.infra.settings.environment import variables
from app.server.asgi import layers
from tests.cli.commands import run_command
from tests.database import execute
from tests.observability.asking import DEPLOY
from tests.system.services import API, NOWHERE, built, client_of

PAGES = sorted((DEPLOY.parent / "docs" / "runbooks").glob("*.md"))
TEXT = "\n".join(page.read_text() for page in PAGES) + (DEPLOY.parent / "docs/operations/alerts.md").read_text()
CODE = re.findall(r"`([^`\n]+)`", TEXT)
STATEMENTS = sorted({code for code in CODE if code.startswith("select ") and "PID" not in code})
VERBS = sorted(
    {
        " ".join(re.findall(r"[a-z]+", code.removeprefix("agent-service "))[:2])
        for code in CODE
        if code.startswith("agent-service ")
    }
)
ROUTES = sorted({code for code in CODE if re.match(r"(GET|POST|DELETE) /", code)})


def test_every_setting_that_they_name_is_one() -> None:
    named = {name for code in CODE for name in re.findall(r"\b(?:AGENT|OTEL|OPENAI|ANTHROPIC)_[A-Z_]+[A-Z]\b", code)}
    assert len(named) > 10
    assert named - {variable.name for variable in variables()} == set()


@pytest.mark.parametrize("statement", STATEMENTS)
async def test_every_statement_is_one_that_the_database_takes(database_url: str, statement: str) -> None:
    await execute(database_url, f"explain {statement}")


@pytest.mark.parametrize("verb", VERBS)
def test_every_command_is_one(verb: str, tmp_path: Path) -> None:
    first, *rest = verb.split()
    two = run_command(tmp_path, first, *rest, "--help")
    one = run_command(tmp_path, first, "--help")
    assert one.returncode == 0
    assert two.returncode == 0 or not re.search(r"^positional arguments:\n +\{", one.stdout, re.MULTILINE)


async def test_every_route_is_one() -> None:
    async with client_of(layers(built(NOWHERE, AGENT_AUTH="none"))) as client:
        document = (await client.get("/openapi.json")).json()
    known = {re.sub(r"\{[^}]*\}", "{}", path): methods for path, methods in document["paths"].items()}
    assert ROUTES
    for route in ROUTES:
        method, path = route.split()[:2]
        pattern = re.sub(r"\{[^}]*\}", "{}", path if path.startswith(API) else API + path)
        assert method.lower() in known[pattern]
