"""The table ``[auth]`` of the agents file: validation at start, and use as authentication."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient
from langgraph_sdk.errors import AuthenticationError, NotFoundError

from app.base.errors import StartError, UsageError
from app.infra.settings.environment import check_serving, load
from tests.access.test_handlers import FILE
from tests.docs.blocks import ROOT, blocks
from tests.journeys.conftest import Served
from tests.system.services import built


@pytest.mark.parametrize(
    "code, complaint",
    [
        ("auth = 1", "is not a langgraph_sdk.Auth object"),
        ("from langgraph_sdk import Auth\nauth = Auth()", "has no @auth.authenticate handler"),
        (
            "from langgraph_sdk import Auth\nauth = Auth()\n@auth.authenticate\nasync def a(cookie): ...",
            "declares 'cookie', which is not one of request, body",
        ),
        ("other = 1", "has no attribute 'auth'"),
    ],
)
def test_a_file_without_usable_handlers_does_not_start(tmp_path: Path, code: str, complaint: str) -> None:
    (tmp_path / "auth.py").write_text(code)
    (tmp_path / "agents.toml").write_text('[auth]\npath = "./auth.py:auth"\n')
    with pytest.raises(StartError, match=complaint) as raised:
        built("postgresql://unknown@/nothing?host=/nowhere", AGENT_CONFIG=str(tmp_path / "agents.toml"))
    assert str(tmp_path / "agents.toml") in str(raised.value)


def test_without_the_package_of_the_handlers_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "auth.py").write_text("from langgraph_sdk import Auth\nauth = Auth()\n")
    (tmp_path / "agents.toml").write_text('[auth]\npath = "./auth.py:auth"\n')
    monkeypatch.setattr(sys, "meta_path", [Without("langgraph_sdk"), *sys.meta_path])
    for name in [name for name in sys.modules if name.partition(".")[0] == "langgraph_sdk"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(StartError, match=r"imports langgraph_sdk, which is not installed: install the extra auth"):
        built("postgresql://unknown@/nothing?host=/nowhere", AGENT_CONFIG=str(tmp_path / "agents.toml"))


class Without:
    """An import hook that hides the package."""

    def __init__(self, package: str) -> None:
        self._package = package

    def find_spec(self, name: str, *_: object) -> None:
        if name.partition(".")[0] == self._package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_tokens_and_handlers_at_once_are_refused() -> None:
    jwt = {"AGENT_JWT_ISSUER": "https://login.example.com", "AGENT_JWT_AUDIENCE": "us"}
    with pytest.raises(UsageError, match="both authenticate users"):
        built("postgresql://unknown@/nothing?host=/nowhere", AGENT_AUTH="jwt", AGENT_CONFIG=FILE, **jwt)


def test_handlers_count_as_authentication_on_an_open_address() -> None:
    settings = load(
        {"DATABASE_URL": "postgresql://h/d", "AGENT_AUTH": "none", "HOST": "0.0.0.0"},
        dotenv=Path("/dev/null"),
    )
    with pytest.raises(UsageError):
        check_serving(settings)
    check_serving(settings, handled=True)


async def test_the_example_of_the_page_keeps_two_people_apart(database_url: str, tmp_path: Path) -> None:
    """The two documented blocks, served by the command and used by the real client over a socket."""
    files = {block.title: block.text for block in blocks(ROOT / "docs/how-to/authentication.md") if block.title}
    for name in ("auth.py", "agents.toml"):
        (tmp_path / name).write_text(files[name])
    server = Served(database_url, tmp_path, AGENT_CONFIG=str(tmp_path / "agents.toml"))
    try:
        await asyncio.to_thread(server.wait_until_ready)
        async with client(server, "ann") as ann, client(server, "bob") as bob, client(server, "eve") as eve:
            thread_id = (await ann.threads.create())["thread_id"]
            asked: Any = {"messages": [{"role": "user", "content": "hello"}]}
            parts = [part.event async for part in ann.runs.stream(thread_id, "echo", input=asked)]
            assert (parts[0], "values" in parts) == ("metadata", True)
            with pytest.raises(NotFoundError):
                await bob.threads.get_state(thread_id)
            with pytest.raises((NotFoundError, httpx.HTTPStatusError), match="404"):
                await bob.runs.wait(thread_id, "echo", input=asked)
            assert thread_id in {one["thread_id"] for one in await ann.threads.search(limit=1000)}
            assert thread_id not in {one["thread_id"] for one in await bob.threads.search(limit=1000)}
            with pytest.raises(AuthenticationError):
                await eve.threads.search()
    finally:
        assert await asyncio.to_thread(server.stop) == 0


def client(server: Served, name: str) -> LangGraphClient:
    return get_client(url=server.base, headers={"Authorization": f"Bearer token-of-{name}"})
