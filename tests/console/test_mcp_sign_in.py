"""Sign-in at an MCP server that an agent uses, from a chat of the console in a real browser."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.console.conftest import assert_accessible, watching
from tests.journeys.conftest import Served, serving
from tests.mcp_tools.conftest import serving_http
from tests.mcp_tools.oauth_server import OAuthServer
from tests.mcp_tools.server import mcp_server

AGENTS = """
[mcp.locked]
url = "{issuer}/mcp"
scope = "tenant"
[mcp.locked.oauth]

[agents.member]
model = "scripted:demo"
tools = ["mcp:locked/*"]
"""

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def issuer() -> Iterator[OAuthServer]:
    mcp = mcp_server("locked")
    mcp.add_tool(lambda: "the vault is open", name="open", description="Open.")
    server = OAuthServer(mcp.streamable_http_app())
    with serving_http(server.app) as server.base:
        yield server


@pytest.fixture(scope="module")
def console(server_url: str, issuer: OAuthServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server whose agent uses tools of the locked server."""
    folder = tmp_path_factory.mktemp("mcp-sign-in")
    (folder / "agents.toml").write_text(AGENTS.format(issuer=issuer.base))
    settings = {"AGENT_CONFIG": str(folder / "agents.toml"), "AGENT_EGRESS_ALLOW": "127.0.0.1"}
    with serving(server_url, folder, **settings) as server:
        yield server.wait_until_ready()


def test_a_chat_shows_where_to_sign_in_and_goes_on_afterwards(
    browser: Browser, console: Served, issuer: OAuthServer
) -> None:
    host = issuer.base.removeprefix("http://")
    with watching(browser, console) as watched:
        page = watched.open()
        watched.choose("member")
        watched.say("call locked__sign_in")
        page.wait_for_selector("text=Sign in to locked")
        assert_accessible(page)
        page.click("text=I have done so")  # too early: it asks again
        watched.answered()
        page.wait_for_selector("text=Sign in to locked")

        with page.context.expect_page() as opened:
            page.click(f"a:text-is('Open {host}')")
        consent = opened.value
        consent.wait_for_selector("text=access to your account at locked?")
        assert consent.url.startswith(f"{watched.url}mcp/oauth/callback?code=")
        assert_accessible(consent)
        consent.click("text=Give access")
        consent.wait_for_selector("text=Signed in at locked.")
        consent.close()

        page.click("text=I have done so")
        page.wait_for_selector("text=Signed in to locked. Its tools can be used now.")
        page.wait_for_function("!document.querySelector('.live:not([hidden])')")
        watched.say("call locked__open")
        page.wait_for_selector("text=the vault is open")
        watched.hosts.discard(host)
