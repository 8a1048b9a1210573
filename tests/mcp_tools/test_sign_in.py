"""People sign in at a server for an agent (OAuth 2.1): a question with an address, and tokens that are theirs alone."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest
from mcp.server import MCPServer

from app.agents.mcp.account_store import DatabaseAccounts
from app.agents.mcp.pins import FirstSeen
from app.agents.mcp.spec import McpServerSpec, OAuthSpec
from app.agents.port import RunConfig
from app.agents.testing import FakeRunContext
from app.agents.tool_loop.calls import CallResults, Toolbox
from app.agents.tool_loop.conversation import PendingCalls
from app.domain.caller import AUTH_USER_ID
from app.domain.messages import ToolCall
from app.infra.db.engine import Database
from app.infra.secrets.secret import Secret
from app.security.access.structs import tenant_id_of
from tests.cli.commands import run_command
from tests.mcp_tools.conftest import Connected, connected, serving_http
from tests.mcp_tools.oauth_server import OAuthServer

PEPPER = "0123456789abcdef0123456789abcdef"
AGENTS = """
[mcp.fix]
url = "{url}"
scope = "user"
[mcp.fix.oauth]

[agents.agent]
tools = ["mcp:fix/*"]
"""


def add(a: int, b: int) -> int:
    return a + b


@pytest.fixture
def issuer() -> Iterator[OAuthServer]:
    mcp = MCPServer("locked")
    mcp.add_tool(add, name="add", description="Add.")
    server = OAuthServer(mcp.streamable_http_app())
    with serving_http(server.app) as server.base:
        yield server


class Process:
    """What one server process has: connections to the server, and a database with the others'."""

    def __init__(self, found: Connected) -> None:
        self.servers = found.servers
        self.tools = found.tools
        self._toolbox = Toolbox([], lambda *_: None, sources=found.server.sources)
        self._found = found

    async def call(self, context: FakeRunContext, name: str, **args: Any) -> CallResults:
        call = ToolCall(name=f"fix__{name}", args=args, id="call_1")
        return await self._toolbox.run(PendingCalls("m", [call]), context)

    async def follow(self, url: str) -> None:
        """Do what a browser does with the address of a sign-in, up to the consent on our own page."""
        async with httpx.AsyncClient() as browser:
            sent = dict(parse_qsl(urlsplit((await browser.get(url)).headers["Location"]).query))
        account = await self.servers.pending(sent["state"])
        assert account is not None
        await self.servers.finish_sign_in(account, sent["code"], sent["iss"])
        assert await self.servers.pending(sent["state"]) is None


def run_of(user: str) -> FakeRunContext:
    context = FakeRunContext(config=RunConfig(configurable={AUTH_USER_ID: user}))
    context.tenant_id = tenant_id_of("default")
    return context


@pytest.fixture
async def database(fresh_database_url: str) -> AsyncIterator[Database]:
    database = Database(fresh_database_url, requests=1, engine=2)
    yield database
    await database.aclose()


@contextlib.asynccontextmanager
async def process(issuer: OAuthServer, database: Database, pins: FirstSeen) -> AsyncIterator[Process]:
    spec = McpServerSpec(url=f"{issuer.base}/mcp", scope="user", oauth=OAuthSpec())
    accounts = DatabaseAccounts(database, lambda: [Secret(PEPPER)])
    async with connected(spec, pins=pins, accounts=accounts) as found:
        yield Process(found)


async def test_each_person_signs_in_and_any_process_uses_and_renews_their_tokens(
    issuer: OAuthServer, database: Database, fresh_database_url: str, tmp_path: Path
) -> None:
    pins = FirstSeen()
    async with process(issuer, database, pins) as first:
        assert list(first.tools) == ["fix__sign_in"]
        ann = run_of("ann")
        (question,) = (await first.call(ann, "sign_in")).interrupts
        assert (question.value["type"], question.value["server"]) == ("auth_required", "fix")
        assert urlsplit(question.value["url"]).path == "/authorize"
        (again,) = (await first.call(run_of("ann"), "sign_in")).interrupts
        assert (again.value, len(issuer.registered)) == (question.value, 1)  # one address serves all that ask
        await first.follow(question.value["url"])
        ann.answers[question.id] = {"action": "accept"}
        (signed_in,) = (await first.call(ann, "sign_in")).messages
        assert signed_in.status == "success", signed_in

        (added,) = (await first.call(ann, "add", a=2, b=3)).messages
        assert added.content == "5"
        bob = run_of("bob")
        (other,) = (await first.call(bob, "add", a=2, b=3)).interrupts
        bob.answers[other.id] = {"action": "accept"}  # without a sign-in
        (asked_again,) = (await first.call(bob, "add", a=2, b=3)).interrupts
        assert asked_again.id != other.id
        bob.answers[asked_again.id] = {"action": "decline"}
        (declined,) = (await first.call(bob, "add", a=2, b=3)).messages
        assert declined.content == "The person did not sign in; the tool was not run."

        async with database.engine_connection() as connection:
            rows = await connection.fetch("select user_id, sealed from mcp_accounts order by user_id")
        assert [row["user_id"] for row in rows] == ["ann", "bob"]
        assert not any(b"access" in row["sealed"] for row in rows)

    issuer.seconds = 0  # tokens expire at once, and are renewed before each use
    issuer.valid.clear()
    async with process(issuer, database, pins) as one, process(issuer, database, pins) as two:
        assert set(one.tools) == {"fix__add"}
        issuer.seconds = 3600
        both = await asyncio.gather(*(each.call(run_of("ann"), "add", a=1, b=1) for each in (one, two)))
        assert [result.messages[0].content for result in both] == ["2", "2"]
        assert issuer.refreshed == 1

        with_account = {
            "DATABASE_URL": fresh_database_url,
            "AGENT_KEY_PEPPER": PEPPER,
            "AGENT_EGRESS_ALLOW": "127.0.0.1",
        }
        (tmp_path / "agents.toml").write_text(AGENTS.format(url=f"{issuer.base}/mcp"))
        shown = await asyncio.to_thread(run_command, tmp_path, "mcp", "list", **with_account)
        assert shown.stdout.splitlines()[1].endswith("people sign in")
        command = ("mcp", "accept", "fix", "--user")
        accepted = await asyncio.to_thread(run_command, tmp_path, *command, "ann", **with_account)
        assert accepted.stdout.splitlines()[-1] == "agent: fix accepted as version 1", accepted.stderr
        refused = await asyncio.to_thread(run_command, tmp_path, *command, "bob", **with_account)
        assert (refused.returncode, "the user bob has not signed in" in refused.stderr) == (1, True)

        issuer.revoke()
        (question,) = (await two.call(run_of("ann"), "add", a=1, b=1)).interrupts
        assert question.value["type"] == "auth_required"
