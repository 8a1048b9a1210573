"""Every code block of the pages runs as it stands, against one server, and prints what its page shows."""

import asyncio
import contextlib
import io
import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.agents.config.agents_file import read
from app.cli.main import main
from app.security.limits.prices import Prices
from tests.database import clone, drop
from tests.docs.blocks import (
    FILES,
    FOREIGN,
    NOT_RUN,
    OUTPUT,
    PAGES,
    PROJECTS,
    ROOT,
    RUN,
    Block,
    blocks,
    commands,
    reason_not_to_run,
    shows,
)
from tests.documents.samples import pdf
from tests.journeys.conftest import PEPPER, Served

SHOWN_AT = "127.0.0.1:8000"
WITH_BLOCKS = {page: found for page in PAGES if (found := blocks(page)) and "examples" not in page.parts}
"""Pages of examples have servers of their own: tests/journeys/test_examples.py."""
pytestmark = pytest.mark.timeout(240)
WITH_KEYS = {"authentication.md"}
EVERY_PAGE = pytest.mark.parametrize("page", WITH_BLOCKS, ids=lambda page: str(page.relative_to(ROOT)))


def folder_of(page: Path, folder: Path) -> Path:
    return folder / page.relative_to(ROOT).with_suffix("").as_posix().replace("/", "-")


def write_files(page: Path, folder: Path) -> list[Block]:
    """Write the files of a page, and return its agents files, of which it may have several."""
    here = folder_of(page, folder)
    here.mkdir(exist_ok=True)
    agents_files = [block for block in WITH_BLOCKS[page] if block.title == "agents.toml" and page.name not in PROJECTS]
    for block in WITH_BLOCKS[page]:
        if block.title:
            file = here / block.title
            file.parent.mkdir(exist_ok=True)
            file.write_text(block.text)
    return agents_files


def agents_of(block: Block, here: Path) -> str:
    """Return the agents of a page's file, with absolute paths, for the one server of all pages."""
    tables = re.split(r"^(?=\[)", block.text, flags=re.MULTILINE)
    return "".join(table for table in tables if table.startswith("[agents.")).replace('"./', f'"{here}/')


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pages")


@pytest.fixture(scope="module")
def database(server_url: str) -> Iterator[str]:
    url = asyncio.run(clone(server_url))
    yield url
    asyncio.run(drop(server_url, url))


@pytest.fixture(scope="module")
def server(database: str, folder: Path) -> Iterator[Served]:
    """A server with the agents of all pages."""
    agents = [agents_of(block, folder_of(page, folder)) for page in WITH_BLOCKS for block in write_files(page, folder)]
    (folder / "agents.toml").write_text("\n".join(agents))
    served = Served(
        database,
        folder,
        AGENT_CONFIG=str(folder / "agents.toml"),
        AGENT_DEFAULT_MODEL="scripted:demo",
        OPENAI_API_KEY="unused",
        ANTHROPIC_API_KEY="unused",
    )
    try:
        yield served.wait_until_ready()
    finally:
        served.stop()


@pytest.fixture(scope="module")
def server_with_keys(database: str, folder: Path) -> Iterator[Served]:
    """A server that asks for a key."""
    (folder / "none.toml").touch()
    served = Served(
        database, folder, AGENT_CONFIG=str(folder / "none.toml"), AGENT_AUTH="api_key", AGENT_KEY_PEPPER=PEPPER
    )
    try:
        yield served.wait_until_ready()
    finally:
        served.stop()


def run_python(block: Block, base: str) -> str:
    printed = io.StringIO()
    code = compile(block.text.replace(SHOWN_AT, base), block.where, "exec")
    with contextlib.redirect_stdout(printed):
        exec(code, {"__name__": "__main__"})
    return printed.getvalue()


def run_commands(written: list[str], base: str) -> str:
    """Run the commands of a block: those of ours in this process, if there are no others, else all in one shell."""
    written = [re.sub("^agent-service (chat|runs watch)", rf"\g<0> --url http://{base}", one) for one in written]
    if all(one.startswith("agent-service ") and not re.search(r"[|<>$~\"']", one) for one in written):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            codes = [main(shlex.split(one, comments=True)[1:]) for one in written]
        assert not any(codes), (written, printed.getvalue())
        return printed.getvalue()
    command = "\n".join(written)
    script = (
        f'set -euo pipefail\nagent-service() {{ {sys.executable} -m app "$@"; }}\n{command.replace(SHOWN_AT, base)}'
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout


@EVERY_PAGE
def test_what_a_page_shows_is_what_happens(
    page: Path, request: pytest.FixtureRequest, database: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = folder_of(page, folder)
    here.mkdir(exist_ok=True)
    monkeypatch.chdir(here)
    monkeypatch.syspath_prepend(here)
    monkeypatch.setenv("DATABASE_URL", database)
    monkeypatch.setenv("AGENT_KEY_PEPPER", PEPPER)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("HOME", str(here))
    (here / "handbook.pdf").write_bytes(pdf(["The handbook."]))
    served: Served = request.getfixturevalue("server_with_keys" if page.name in WITH_KEYS else "server")
    base = served.base.removeprefix("http://").removesuffix("/api/v1")
    for block in WITH_BLOCKS[page]:
        if block.title:
            file = here / block.title
            file.parent.mkdir(exist_ok=True)
            file.write_text(block.text)
        if not block.is_run:
            continue
        if block.language == "python":
            printed = run_python(block, base)
        else:
            written = [one for one in commands(block.text) if not reason_not_to_run(one)]
            if not written:
                continue
            printed = run_commands(written, base)
        assert shows(block.output or "", printed), f"{block.where} prints\n{printed}"


@EVERY_PAGE
def test_the_files_of_a_page_load(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "unused")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "unused")
    for block in write_files(page, tmp_path):
        file = folder_of(page, tmp_path) / block.title
        file.write_text(block.text)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            code = main(["agents", "check", "--agents", str(file)])
        assert code == 0, (block.where, printed.getvalue())
    for block in WITH_BLOCKS[page]:
        if block.title == "agents.toml":
            read(str(folder_of(page, tmp_path) / block.title))
        if block.language == "python":
            compile(block.text, block.where, "exec")
        elif block.language == "toml":
            assert block.title in {"agents.toml", "prices.toml"}, f"{block.where}: name the file in its title"
            tomllib.loads(block.text)
            if block.title == "prices.toml":
                Prices(str(folder_of(page, tmp_path) / block.title))
        elif block.language == "json":
            json.loads(block.text.replace("{…}", "{}").replace("[…]", "[]"))


@EVERY_PAGE
def test_every_block_is_a_file_or_runs_or_is_a_text(page: Path) -> None:
    fences = re.findall(r"^ *```(.*)$", page.read_text(), re.MULTILINE)[::2]
    assert len(fences) == sum(1 + (block.output is not None) for block in WITH_BLOCKS[page])
    assert {fence.partition(" ")[0] for fence in fences} <= {*RUN, *FILES, *OUTPUT, *FOREIGN}
    assert [block.where for block in WITH_BLOCKS[page] if block.output and len(block.output) < 5] == []


def test_every_reason_not_to_run_a_command_is_needed() -> None:
    written = [
        one
        for found in WITH_BLOCKS.values()
        for block in found
        if block.language == "sh"
        for one in commands(block.text)
    ]
    reasons = {reason_not_to_run(one) for one in written}
    assert [start for start, why in NOT_RUN.items() if why not in reasons] == []


def test_what_differs_is_noticed() -> None:
    shown = '{"run_id": "01a2079b-187d-7493-be25-d449c5bc032b", "at": "2026-01-02T03:04:05Z", "x": "…", "n": 1}'
    printed = (
        '{"run_id":"ffffffff-187d-7493-be25-d449c5bc032b","at":"2027-01-02T03:04:05.123456+00:00","x":"y","n":1}\n'
    )
    assert shows(shown, printed)
    assert not shows(shown, printed.replace('"n":1', '"n":2'))
    assert not shows("", printed)
