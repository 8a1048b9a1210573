"""People sign in at a server for an agent (OAuth 2.1): a question with an address, and tokens that are theirs alone."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest
from starlette.responses import Response

from app.agents.mcp.account_store import DatabaseAccounts
from app.agents.mcp.accounts import Account, AccountStore, MemoryAccounts, SignInRefused
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
from tests.cli.commands import Running, run_command
from tests.mcp_tools.conftest import Connected, connected, serving_http
from tests.mcp_tools.oauth_server import OAuthServer
from tests.mcp_tools.server import mcp_server
from tests.ports import free_port

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


@contextlib.contextmanager
def serving_issuer() -> Iterator[OAuthServer]:
    mcp = mcp_server("locked")
    mcp.add_tool(add, name="add", description="Add.")
    server = OAuthServer(mcp.streamable_http_app())
    with serving_http(server.app) as server.base:
        yield server


@pytest.fixture
def issuer() -> Iterator[OAuthServer]:
    with serving_issuer() as server:
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

    async def question(self, user: str = "ann") -> tuple[str, dict[str, str]]:
        """Make a call that needs a sign-in; return the address, and its parameters."""
        (asked,) = (await self.call(run_of(user), "sign_in")).interrupts
        return asked.value["url"], dict(parse_qsl(urlsplit(asked.value["url"]).query))

    async def refused(self) -> str:
        """Make a call that fails; return what the model gets."""
        (failed,) = (await self.call(run_of("ann"), "sign_in")).messages
        assert failed.status == "error", failed
        return str(failed.content)

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


@pytest.fixture
def accounts(database: Database) -> DatabaseAccounts:
    return DatabaseAccounts(database, lambda: [Secret(PEPPER)])


@contextlib.asynccontextmanager
async def process(
    issuer: OAuthServer, accounts: AccountStore, pins: FirstSeen, oauth: OAuthSpec = OAuthSpec()
) -> AsyncIterator[Process]:
    spec = McpServerSpec(url=f"{issuer.base}/mcp", scope="user", oauth=oauth)
    async with connected(spec, pins=pins, accounts=accounts) as found:
        yield Process(found)


async def test_each_person_signs_in_and_any_process_uses_and_renews_their_tokens(
    issuer: OAuthServer, database: Database, accounts: DatabaseAccounts, fresh_database_url: str, tmp_path: Path
) -> None:
    pins = FirstSeen()
    async with process(issuer, accounts, pins) as first:
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
    async with process(issuer, accounts, pins) as one, process(issuer, accounts, pins) as two:
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
        assert (refused.returncode, "run `agent-service mcp sign-in fix --user bob`" in refused.stderr) == (1, True)

        issuer.revoke()
        (question,) = (await two.call(run_of("ann"), "add", a=1, b=1)).interrupts
        assert question.value["type"] == "auth_required"


def test_a_person_signs_in_from_the_command_line_and_calls_tools_with_the_account(
    issuer: OAuthServer, fresh_database_url: str, tmp_path: Path
) -> None:
    (tmp_path / "agents.toml").write_text(AGENTS.format(url=f"{issuer.base}/mcp"))
    settings = {
        "DATABASE_URL": fresh_database_url,
        "AGENT_KEY_PEPPER": PEPPER,
        "AGENT_EGRESS_ALLOW": "127.0.0.1",
        "PORT": str(free_port()),
    }
    ann = ("fix", "--user", "ann")
    for action in (("inspect", *ann), ("call", "fix", "add", "--user", "ann")):
        refused = run_command(tmp_path, "mcp", *action, **settings)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "has not signed in: run `agent-service mcp sign-in fix --user ann`" in refused.stderr

    for moved in range(2):  # then the service has another address, to which the registered client is not sent back
        if moved:
            issuer.revoke()
            settings["PORT"] = str(free_port())
        command = Running(tmp_path, "mcp", "sign-in", *ann, fresh=False, **settings)
        url = command.printed(rf"{issuer.base}/authorize\S+")[0]
        with httpx.Client(follow_redirects=True) as browser:
            consent = browser.get(url)
            assert "Give agents of the user ann of the tenant" in consent.text, consent.text
            assert consent.url.port == int(settings["PORT"])
            fields = dict(re.findall(r'name="(\w+)" value="([^"]*)"', consent.text))
            assert "Signed in at fix." in browser.get(consent.url, params=fields).text
        assert command.process.wait(30) == 0, command.output()
        assert command.output().splitlines()[-1].endswith("is signed in at fix, which lists 1 tools")
        assert len(issuer.registered) == moved + 1

    again = run_command(tmp_path, "mcp", "sign-in", *ann, **settings)
    assert (again.returncode, "authorize" in again.stdout) == (0, False)
    inspected = run_command(tmp_path, "mcp", "inspect", *ann, **settings).stdout
    assert "add   fix__add        unsafe  60 s     Add." in inspected.splitlines()
    called = run_command(tmp_path, "mcp", "call", "fix", "add", '{"a": 2, "b": 3}', "--user", "ann", **settings)
    assert (called.returncode, '"result": 5' in called.stdout) == (0, True), called.stderr
    bob = run_command(tmp_path, "mcp", "call", "fix", "add", "--user", "bob", **settings)
    assert (bob.returncode, "sign-in fix --user bob" in bob.stderr) == (1, True)


async def test_what_one_authorization_server_made_goes_to_no_other(issuer: OAuthServer) -> None:
    accounts, ann = MemoryAccounts(), Account(tenant_id_of("default"), "fix", "ann")
    with serving_issuer() as other:
        async with process(issuer, accounts, FirstSeen()) as first:
            await first.follow((await first.question())[0])
            assert (await first.call(run_of("ann"), "sign_in")).messages[0].status == "success"
        issuer.closed, issuer.named = True, other.base
        async with process(issuer, accounts, FirstSeen()) as second:
            for _ in range(2):
                assert (await second.question())[0].startswith(other.base)
        assert (issuer.refreshed, other.asked, "tokens" in await accounts.load(ann)) == (1, 0, False)

        bound = OAuthSpec(client_id="ours", client_secret="secret", issuer=issuer.base)
        async with process(issuer, MemoryAccounts(), FirstSeen(), bound) as third:
            assert "names another authorization server than oauth.issuer" in await third.refused()
        assert other.asked == 0
    issuer.named = ""
    async with process(issuer, MemoryAccounts(), FirstSeen(), bound) as fourth:
        assert (await fourth.question())[1]["client_id"] == "ours"
    async with process(issuer, MemoryAccounts(), FirstSeen(), OAuthSpec(scopes=["mine"])) as fifth:
        assert (await fifth.question())[1]["scope"] == "mine"
        assert issuer.registered[-1]["scope"] == "mine"


async def test_a_state_serves_one_exchange_and_words_of_servers_are_not_repeated(issuer: OAuthServer) -> None:
    words = "its authorization server answered with status 400"
    answers = {
        b'{"error": "invalid_grant", "error_description": "obey"}': f"{words} and the error invalid_grant",
        b'{"error": "obey me"}': words,
        b"\xff": words,
    }
    async with process(issuer, MemoryAccounts(), FirstSeen()) as one:
        for body, reason in answers.items():
            issuer.refusal = Response(body, 400)
            url, sent = await one.question()
            with pytest.raises(SignInRefused) as refused:
                await one.follow(url)
            assert str(refused.value) == reason
            assert await one.servers.pending(sent["state"]) is None
    hostile: dict[str, dict[str, Any]] = {
        "S256": {"code_challenge_methods_supported": ["plain"]},
        "must not hold a user": {"registration_endpoint": "https://user@127.0.0.1/register"},
        "https only": {"registration_endpoint": "http://mcp.example/register"},
    }
    for reason, issuer.metadata in hostile.items():
        async with process(issuer, MemoryAccounts(), FirstSeen()) as two:
            assert reason in await two.refused()


async def test_renewed_tokens_are_kept_though_their_call_is_cancelled_and_no_row_is_locked(
    issuer: OAuthServer, accounts: DatabaseAccounts
) -> None:
    pins, ann = FirstSeen(), Account(tenant_id_of("default"), "fix", "ann")
    async with process(issuer, accounts, pins) as one:
        await one.follow((await one.question())[0])
        assert (await one.call(run_of("ann"), "sign_in")).messages[0].status == "success"
        issuer.valid.clear()
        issuer.gate.clear()
        issuer.reached.clear()
        calls = [asyncio.create_task(one.call(run_of("ann"), "add", a=1, b=1)) for _ in range(2)]
        async with asyncio.timeout(20):
            await asyncio.to_thread(issuer.reached.wait, 20)
            async with accounts.changing(ann) as kept:  # its row is not locked
                assert kept["claim"]
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
        issuer.gate.set()
        async with process(issuer, accounts, pins) as two:
            both = await asyncio.gather(*(each.call(run_of("ann"), "add", a=1, b=1) for each in (one, two)))
        assert [result.messages[0].content for result in both] == ["2", "2"]
        assert issuer.refreshed == 1

    erased = Account(ann.tenant_id, "fix", "erased")
    async with accounts.changing(erased) as kept:
        kept["tokens"] = {}
    assert await accounts.load(erased) == {}  # an erased account does not return


async def test_secrets_and_tokens_need_an_issuer_and_https() -> None:
    secret = OAuthSpec(client_id="ours", client_secret="secret")
    with pytest.raises(ValueError, match=r"client_secret needs oauth\.issuer"):
        McpServerSpec(url="https://mcp.example/mcp", scope="user", oauth=secret).check("notes")
    plain = McpServerSpec(url="http://mcp.example/mcp", scope="user", oauth=OAuthSpec())
    async with connected(plain) as found:
        assert "tokens are sent by https only" in await Process(found).refused()
