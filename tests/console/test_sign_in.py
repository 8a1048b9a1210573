"""Sign-in at an issuer of tokens, from the console in a real browser."""

import asyncio
import base64
import hashlib
import threading
from collections.abc import Iterator
from urllib.parse import urlencode

import pytest
from aiohttp import web
from playwright.sync_api import Browser

from tests.access.issuer import AUDIENCE, Issuer
from tests.console.conftest import assert_accessible, watching
from tests.journeys.conftest import Served, serving

CLIENT = "agent-console"

pytestmark = pytest.mark.timeout(240)


class SignInIssuer(Issuer):
    """An issuer with a page on which Ada signs in, and with refresh tokens that count once."""

    def __init__(self) -> None:
        super().__init__()
        self.codes: dict[str, str] = {}
        self.renewals: list[str] = []
        self.asked_for: list[dict[str, str]] = []

    def add_routes(self, router: web.UrlDispatcher) -> None:
        router.add_get("/authorize", self._authorize)
        router.add_post("/token", self._token)

    async def _about(self, request: web.Request) -> web.Response:
        self.about = {"authorization_endpoint": f"{self.url}/authorize", "token_endpoint": f"{self.url}/token"}
        answer = await super()._about(request)
        answer.headers["Access-Control-Allow-Origin"] = request.headers.get("Origin", "null")
        return answer

    async def _authorize(self, request: web.Request) -> web.Response:
        asked = dict(request.query)
        self.asked_for.append(asked)
        assert asked["client_id"] == CLIENT
        assert asked["code_challenge_method"] == "S256"
        code = f"code-{len(self.asked_for)}"
        self.codes[code] = asked["code_challenge"]
        back = f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state'], 'iss': self.url})}"
        page = f'<!doctype html><title>Issuer</title><a href="{back.replace("&", "&amp;")}">I am Ada</a>'
        return web.Response(text=page, content_type="text/html")

    async def _token(self, request: web.Request) -> web.Response:
        body = await request.post()
        given = {"access_token": self.token(), "token_type": "Bearer", "refresh_token": f"again-{len(self.renewals)}"}
        if body["grant_type"] == "authorization_code":
            digest = hashlib.sha256(str(body["code_verifier"]).encode()).digest()
            proven = self.codes.pop(str(body["code"])) == base64.urlsafe_b64encode(digest).decode().rstrip("=")
        else:
            proven = body["refresh_token"] == f"again-{len(self.renewals)}"
            self.renewals.append(str(body["refresh_token"]))
            given["refresh_token"] = f"again-{len(self.renewals)}"
        headers = {"Access-Control-Allow-Origin": request.headers["Origin"]}
        if not proven:
            return web.json_response({"error": "invalid_grant"}, status=400, headers=headers)
        return web.json_response(given, headers=headers)


@pytest.fixture(scope="module")
def issuer() -> Iterator[SignInIssuer]:
    """An issuer on an event loop in a thread of its own: this one's is the browser's."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    issuer = SignInIssuer()
    asyncio.run_coroutine_threadsafe(issuer.__aenter__(), loop).result(10)
    yield issuer
    asyncio.run_coroutine_threadsafe(issuer.__aexit__(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture(scope="module")
def console(server_url: str, issuer: SignInIssuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server that takes the issuer's tokens."""
    settings = {
        "AGENT_AUTH": "jwt",
        "AGENT_JWT_ISSUER": issuer.url,
        "AGENT_JWT_AUDIENCE": AUDIENCE,
        "AGENT_CONSOLE_CLIENT_ID": CLIENT,
    }
    with serving(server_url, tmp_path_factory.mktemp("sign-in"), **settings) as server:
        yield server.wait_until_ready()


def test_a_person_signs_in_at_the_issuer(browser: Browser, console: Served, issuer: SignInIssuer) -> None:
    with watching(browser, console) as watched:
        page = watched.open("console/agents")
        page.wait_for_selector("dialog")
        assert_accessible(page)
        page.click("dialog >> button:text-is('Sign in')")
        page.click("text=I am Ada")
        page.wait_for_selector("article >> text=echo")
        assert page.url.endswith("/console/agents")
        assert issuer.asked_for[-1]["redirect_uri"] == f"{watched.url}console/"
        assert issuer.asked_for[-1]["audience"] == AUDIENCE

        # a token that has expired is renewed without a question, once
        page.evaluate("sessionStorage.setItem('agent-service.key', 'expired')")
        page.reload()
        page.wait_for_selector("article >> text=echo")
        assert page.locator("dialog").count() == 0
        assert issuer.renewals == ["again-0"]

        # who signs out is asked again, and an answer to a sign-in of another tab is refused
        page.click("text=Sign out")
        page.wait_for_selector("dialog")
        page.goto(f"{watched.url}console/?code=stolen&state=foreign")
        page.wait_for_selector("dialog >> text=This sign-in was not begun in this tab.")
        assert "stolen" not in page.url
        watched.hosts.discard(issuer.url.split("/")[2])
        watched.complaints.clear()  # what the browser says of requests without a token
