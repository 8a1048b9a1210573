"""A browser, and a server with agents that ask, wait and return hostile text."""

import contextlib
import http.server
import json
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    sync_playwright,
)

from tests.journeys.conftest import Served, serving

AGENTS = Path(__file__).parent / "agents" / "agents.toml"
PRICES = AGENTS.with_name("prices.toml")
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


SLOW_ANSWERS = """
const send = window.fetch;
window.fetch = async (address, options) => {
  const answer = await send(address, options);
  if (options?.method === "POST" && String(address).endsWith("/runs")) {
    await new Promise((go) => setTimeout(go, 1500));
    window.slowAnswers = (window.slowAnswers ?? 0) + 1;
  }
  return answer;
};
"""

axe = Axe()


WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


def assert_accessible(page: Page, *, colours_alone: bool = False) -> None:
    """Assert that axe-core finds nothing against WCAG 2.2 AA; ``colours_alone``: against its rules of contrast."""
    rules = {"type": "rule", "values": ["color-contrast"]} if colours_alone else {"type": "tag", "values": WCAG}
    found = axe.run(page, options={"runOnly": rules}).response["violations"]
    assert [(one["id"], [node["target"] for node in one["nodes"]]) for one in found] == []


class Provider(http.server.BaseHTTPRequestHandler):
    """A provider in OpenAI's wire that is overloaded at every other call."""

    calls = 0
    PIECES = ({"delta": {"content": "At last."}, "finish_reason": None}, {"delta": {}, "finish_reason": "stop"})

    def do_POST(self) -> None:
        """Answer a call, or refuse it."""
        self.rfile.read(int(self.headers["Content-Length"]))
        Provider.calls += 1
        self.send_response(503 if Provider.calls % 2 else 200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        if Provider.calls % 2 == 0:
            pieces = [{"id": "c", "model": "speaker", "choices": [{"index": 0, **piece}]} for piece in self.PIECES]
            self.wfile.write(b"".join(b"data: %b\n\n" % json.dumps(piece).encode() for piece in pieces))
            self.wfile.write(b"data: [DONE]\n\n")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Log nothing."""


@contextlib.contextmanager
def answering(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    """Answer requests by ``handler``, in a thread; yield the address."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    """The address of a provider of models that fails at first."""
    with answering(Provider) as address:
        yield f"{address}/v1"


@pytest.fixture(scope="module")
def console(server_url: str, provider: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One server for all journeys of a module."""
    settings = {"AGENT_CONFIG": str(AGENTS), "AGENT_PRICES": str(PRICES), "AGENT_EGRESS_ALLOW": "127.0.0.0/8"}
    settings |= {"OPENAI_BASE_URL": provider, "OPENAI_API_KEY": "none"}
    with serving(server_url, tmp_path_factory.mktemp("console"), **settings) as server:
        yield server.wait_until_ready()


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Run an installed Chromium; CHROMIUM names another one. Skips the test without any.

    Playwright keeps an event loop in this thread, in which nothing else can run one: servers start before it and stop
    after it.
    """
    program = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip("NO CHROMIUM HERE: install chromium, or name its program in CHROMIUM")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def browser(console: Served) -> Iterator[Browser]:
    """A Chromium that starts after the server."""
    with chromium() as browser:
        yield browser


class Watched:
    """A page whose requests, errors and console are watched."""

    def __init__(self, context: BrowserContext, server: Served) -> None:
        self.page: Page = context.new_page()
        self.url = f"http://127.0.0.1:{server.port}/"
        self.hosts: set[str] = set()
        self.complaints: list[str] = []
        context.on("request", lambda request: self.hosts.add(request.url.split("/")[2]))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", self._on_console)

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.complaints.append(message.text)

    def open(self, path: str = "") -> Page:
        self.page.goto(self.url + path)
        return self.page

    def say(self, text: str) -> None:
        self.page.fill(".composer textarea", text)
        self.page.keyboard.press("Enter")

    def choose(self, agent: str) -> None:
        self.page.wait_for_selector(".welcome h1")
        self.page.select_option(".agent-select", label=agent)

    def accepting(self) -> contextlib.AbstractContextManager[object]:
        """Expect that the server accepts a run meanwhile."""
        return self.page.expect_response(
            lambda answer: answer.request.method == "POST" and answer.url.endswith("/runs") and answer.ok
        )

    def answered(self, count: int = 1) -> None:
        """Wait until ``count`` answers stand there and nothing runs."""
        self.page.wait_for_function(
            "count => document.querySelectorAll('.row.ai .answer-foot .faint:not(:empty)').length >= count"
            " && !document.querySelector('.live:not([hidden])')",
            arg=count,
        )


def reviewed(http: httpx.Client, number: int) -> str:
    """Make a thread that asks whether the refund of an order happened."""
    thread: str = http.post("/threads", json={}).json()["thread_id"]
    runs = f"/threads/{thread}/runs/wait"
    asked = http.post(runs, json={"assistant_id": "refunds", "input": f"call refund order={number + 90}"}).json()
    assert asked["__interrupt__"]
    before = http.get(f"/threads/{thread}/state").json()["checkpoint"]
    approve = {"assistant_id": "refunds", "command": {"resume": True}}
    http.post(runs, json=approve).raise_for_status()
    again = http.post(runs, json={**approve, "checkpoint": before, "strict_resume": False}).json()
    assert again["__interrupt__"][0]["value"]["type"] == "tool_review"
    return thread


def at_rest(http: httpx.Client, thread: str) -> bool:
    """Whether no run of ``thread`` is live."""
    return bool(http.get(f"/threads/{thread}").json()["status"] != "busy")


@contextlib.contextmanager
def watching(browser: Browser, server: Served, **options: object) -> Iterator[Watched]:
    """Open a browser's context and check at its end that it saw this server alone, and no error."""
    context = browser.new_context(viewport={"width": 1280, "height": 820}, **options)  # type: ignore[arg-type]
    context.set_default_timeout(30_000)
    watched = Watched(context, server)
    try:
        yield watched
        assert watched.hosts <= {f"127.0.0.1:{server.port}"}
        assert watched.complaints == []
    finally:
        context.close()
