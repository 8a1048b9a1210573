"""Tools of servers that others publish, as agents use them: their answers, and pages and repositories of this test."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route

from app.agents.mcp.spec import McpServerSpec
from tests.long_form import FULL
from tests.mcp_tools.conftest import connected, serving_http
from tests.suites.npm import HOME

pytestmark = [
    pytest.mark.skipif(not FULL, reason="make suites runs it: it installs the servers"),
    pytest.mark.timeout(100),
]


def spec_of(program: str, *arguments: str) -> McpServerSpec:
    """Return the server ``program``, which ``make suites`` installs. Skips where it could not."""
    path = HOME / "bin" / program
    if not path.is_file():
        pytest.skip(f"NOT RUN: make suites could not install {program}")
    return McpServerSpec(command=[str(path), *arguments], env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"})


async def test_the_time_server_converts_times() -> None:
    async with connected(spec_of("mcp-server-time", "--local-timezone", "UTC")) as found:
        assert set(found.tools) == {"fix__get_current_time", "fix__convert_time"}, found.server.problem
        args: dict[str, Any] = {"source_timezone": "Europe/Berlin", "time": "12:00", "target_timezone": "Asia/Tokyo"}
        converted = await found.call("convert_time", **args)
        assert converted.status == "success"
        assert "Asia/Tokyo" in str(converted.content)
        wrong = await found.call("convert_time", **{**args, "target_timezone": "Asia/Nowhere"})
        assert (wrong.status, "Nowhere" in str(wrong.content)) == ("error", True)


@pytest.fixture
def repository(tmp_path: Path) -> str:
    """A repository with a commit, and a file that is in none."""
    for command in (
        ("init", "-q", "-b", "main"),
        ("-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-q", "--allow-empty", "-m", "first light"),
    ):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    (tmp_path / "new.txt").write_text("new")
    return str(tmp_path)


async def test_the_git_server_reads_a_repository(repository: str) -> None:
    async with connected(spec_of("mcp-server-git", "--repository", repository)) as found:
        assert "new.txt" in str((await found.call("git_status", repo_path=repository)).content), found.server.problem
        assert "first light" in str((await found.call("git_log", repo_path=repository)).content)
        outside = await found.call("git_status", repo_path="/")
        assert outside.status == "error"


async def test_the_fetch_server_reads_a_page() -> None:
    async def page(_: Request) -> HTMLResponse:
        return HTMLResponse(
            "<html><body><article><h1>Harbour</h1><p>The tide turns at six.</p></article></body></html>"
        )

    with serving_http(Starlette(routes=[Route("/page", page)])) as base:
        async with connected(spec_of("mcp-server-fetch", "--ignore-robots-txt", "--allow-private-ips")) as found:
            fetched = await found.call("fetch", url=f"{base}/page")
            assert "The tide turns at six." in str(fetched.content), found.server.problem
