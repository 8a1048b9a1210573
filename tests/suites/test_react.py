"""React applications on LangGraph's hooks, in a browser: the classic one, and the one of protocol v2."""

import contextlib
import functools
import http.server
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.journeys.conftest import Served
from tests.long_form import FULL
from tests.suites.browsers import opened
from tests.suites.npm import installed

SOURCE = Path(__file__).parent / "front_ends" / "chat.jsx"
PACKAGES = (
    "@langchain/react@1.1.0",
    "@langchain/langgraph-sdk@1.15.0",
    "@langchain/core@1.4.0",
    "react@19.3.1",
    "react-dom@19.3.1",
    "esbuild@0.28.2",
)
BUNDLE = """
const [source, target, folder, sdk] = process.argv.slice(1);
const top = {
  name: "top",
  setup: (build) =>
    build.onResolve({ filter: /^@langchain[/]langgraph-sdk/ }, ({ path, kind, pluginData }) =>
      pluginData ? undefined : build.resolve(path, { kind, resolveDir: folder, pluginData: true }),
    ),
};
require(`${folder}/node_modules/esbuild`).build({
  entryPoints: [source], outfile: target, bundle: true, jsx: "automatic", nodePaths: [`${folder}/node_modules`],
  plugins: sdk ? [top] : [], define: { "process.env.NODE_ENV": '"production"' },
});
"""
"""Builds the application: with the SDK that ``@langchain/react`` pins, or with the one at the top of the folder."""

PAGE = '<!doctype html><html lang="en"><title>Chat</title><body><script src="chat.js"></script></body></html>'
HOOKS = ["classic", "v2", "v2-websocket", "newest", "newest-websocket"]
"""``v2``: protocol v2 with the SDK that ``@langchain/react`` pins, 1.11.0; ``newest``: with 1.15.0."""
AGENTS = ["careful", "graph"]
ASKS = {"careful": "what is 6*7?", "graph": "weather Bonn"}
CLOCKS = {"helper": "what time is it?", "graph": "clock"}

pytestmark = pytest.mark.skipif(not FULL, reason="make suites runs it: it installs packages of npm")


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files without a log."""

    def log_message(self, *_: object) -> None:
        """Write nothing."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The application, built, on a port of its own: another origin than the server's."""
    node, packages = installed(*PACKAGES)
    folder = tmp_path_factory.mktemp("site")
    for name, sdk in (("v2", ""), ("newest", "@langchain/langgraph-sdk")):
        (folder / name).mkdir()
        (folder / name / "index.html").write_text(PAGE)
        built = folder / name / "chat.js"
        command = [str(node), "-e", BUNDLE, str(SOURCE), str(built), str(packages), sdk]
        subprocess.run(command, check=True, timeout=120)
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as files:
        thread = threading.Thread(target=files.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{files.server_port}/"
        files.shutdown()


class Chat:
    """The application in a page."""

    def __init__(self, page: Page, site: str, front_ends: Served, hook: str, agent: str) -> None:
        name, _, transport = hook.partition("-")
        query = {"api": front_ends.base, "agent": agent, "hook": name, "transport": transport or "sse"}
        self.page = page
        page.goto(f"{site}{'newest' if name == 'newest' else 'v2'}/?{urlencode(query)}")

    def send(self, text: str) -> None:
        self.page.fill("textarea", text)
        self.press("send")

    def press(self, button: str) -> None:
        self.page.get_by_role("button", name=button, exact=True).first.click()

    def shows(self, text: str, count: int = 1) -> None:
        """Wait until ``count`` answers of the model contain ``text``, and nothing runs."""
        expect(self.page.locator("li.ai", has_text=text)).to_have_count(count)
        expect(self.page.locator('main[data-busy="false"]')).to_have_count(1)

    @property
    def thread(self) -> str:
        return self.page.locator("main").get_attribute("data-thread") or ""


@contextlib.contextmanager
def chatting(browser: Browser, site: str, front_ends: Served, hook: str, agent: str) -> Iterator[Chat]:
    """Open the application."""
    with opened(browser) as page:
        yield Chat(page, site, front_ends, hook, agent)


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("agent", AGENTS)
def test_a_call_is_shown_approved_and_its_result_said_bit_by_bit(
    browser: Browser, site: str, front_ends: Served, hook: str, agent: str
) -> None:
    with chatting(browser, site, front_ends, hook, agent) as chat:
        chat.send(ASKS[agent])
        expect(chat.page.locator("section code")).to_contain_text("action_requests")
        expect(chat.page.locator("li code.call")).to_have_count(1)
        chat.press("approve")
        chat.shows("42" if agent == "careful" else "sunny in Bonn")
        expect(chat.page.locator("section")).to_have_count(0)
        expect(chat.page.locator("output.tools")).not_to_be_empty()
        last = chat.page.evaluate("Object.values(window.shown).at(-1)")
        assert all(last[-1].startswith(one) for one in last)
        if agent == "graph":  # the demonstration model takes no time, so its words come at once
            assert len(set(last)) > 2
        chat.send("hello")
        expect(chat.page.locator("li.human")).to_have_count(2)
        chat.page.reload()
        expect(chat.page.locator("li.human")).to_have_count(2)


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("agent", CLOCKS)
def test_a_page_that_was_gone_follows_its_run_again(
    browser: Browser, site: str, front_ends: Served, gate: Path, hook: str, agent: str
) -> None:
    gate.unlink(missing_ok=True)
    with chatting(browser, site, front_ends, hook, agent) as chat:
        chat.send(CLOCKS[agent])
        expect(chat.page.locator("li code.call")).to_have_count(1)
        chat.page.reload()
        expect(chat.page.locator("li code.call")).to_have_count(1)
        expect(chat.page.locator('main[data-busy="true"]')).to_have_count(1)
        gate.touch()
        chat.shows("noon")


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("agent", ["helper", "graph"])
def test_the_first_message_is_edited(browser: Browser, site: str, front_ends: Served, hook: str, agent: str) -> None:
    with chatting(browser, site, front_ends, hook, agent) as chat:
        chat.send("hello")
        expect(chat.page.locator("li.ai")).to_have_count(1)
        expect(chat.page.locator('main[data-busy="false"]')).to_have_count(1)
        chat.press("edit")
        expect(chat.page.locator("li.human", has_text="hello 1*2")).to_have_count(1)
        expect(chat.page.locator('main[data-busy="false"]')).to_have_count(1)
        expect(chat.page.locator("li.human")).to_have_count(1)
        chat.page.reload()
        expect(chat.page.locator("li.human")).to_have_count(1)
        expect(chat.page.locator("li.human p")).to_have_text("hello 1*2")
        if hook == "classic":
            expect(chat.page.locator("li.human .branch")).to_have_count(2)
            chat.page.locator(".branch").first.click()
            expect(chat.page.locator("li.human p")).to_have_text("hello")


@pytest.mark.parametrize("hook", HOOKS)
def test_threads_are_kept_apart_and_errors_and_stops_are_shown(
    browser: Browser, site: str, front_ends: Served, gate: Path, hook: str
) -> None:
    gate.unlink(missing_ok=True)
    with chatting(browser, site, front_ends, hook, "helper") as chat:
        chat.send("what is 6*7?")
        chat.shows("42")
        first = chat.thread
        chat.press("new")
        expect(chat.page.locator("li")).to_have_count(0)
        chat.send("what is 5*8?")
        chat.shows("40")
        assert chat.thread != first
        chat.page.locator(".thread", has_text=first).click()
        chat.shows("42")
        expect(chat.page.locator("li.human")).to_have_count(1)
        chat.send("what time is it?")
        expect(chat.page.locator("li code.call", has_text="clock")).to_have_count(1)
        chat.press("stop")
        expect(chat.page.locator('main[data-busy="false"]')).to_have_count(1)
    with chatting(browser, site, front_ends, hook, "nothing") as chat:
        chat.send("hello")
        expect(chat.page.locator(".error")).to_contain_text("nothing")
