"""``agent-chat-ui``, unmodified, in a browser: with an agent of ours and with a hosted graph."""

import os
import re
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from urllib.parse import urlencode

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.journeys.conftest import Served
from tests.long_form import FULL
from tests.ports import free_port
from tests.suites.browsers import opened
from tests.suites.npm import installed
from tests.suites.repositories import checkout

SOURCE = "https://github.com/langchain-ai/agent-chat-ui.git"
COMMIT = "fdc87e65307581b02898d33c62b3f285e56bd85b"
PNPM = "pnpm@10.5.1"
BUILD_SECONDS = 900
START_SECONDS = 60
ASKS = {"careful": "what is 6*7?", "graph": "weather Bonn"}
EDITS = {"careful": ("6*8", "48"), "graph": ("Rome", "sunny in Rome")}
REOPENED = ("graph", "resolve")
FONTS = "module.exports = new Proxy({}, { get: () => '@font-face { font-family: Inter; src: local(Arial); }' });"
"""Stands for the service of fonts that a build asks, for machines that reach registries alone."""

pytestmark = [
    pytest.mark.skipif(not FULL, reason="make suites runs it: it comes by git, and is built with packages of npm"),
    pytest.mark.timeout(BUILD_SECONDS + 300),
]


@pytest.fixture(scope="module")
def site(front_ends: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The application, built as its repository says, and served."""
    source = checkout("chat_ui", SOURCE, COMMIT)
    node, packages = installed(PNPM)
    fonts = tmp_path_factory.mktemp("fonts") / "fonts.js"
    fonts.write_text(FONTS)
    environment = {
        **os.environ,
        "PATH": f"{node.parent}:{os.environ['PATH']}",
        "NEXT_TELEMETRY_DISABLED": "1",
        "NEXT_FONT_GOOGLE_MOCKED_RESPONSES": str(fonts),
    }
    following = [str(node), "node_modules/next/dist/bin/next"]
    if not (source / ".next" / "BUILD_ID").exists():
        pnpm = [str(node), str(packages / "node_modules/pnpm/bin/pnpm.cjs")]
        for command in ([*pnpm, "install", "--frozen-lockfile"], [*following, "build"]):
            done = subprocess.run(
                command, cwd=source, env=environment, capture_output=True, text=True, check=False, timeout=BUILD_SECONDS
            )
            if done.returncode:
                pytest.skip(f"NOT RUN: agent-chat-ui could not be built: {(done.stdout + done.stderr)[-500:]}")
    port = free_port()
    command = [*following, "start", "-p", str(port), "-H", "127.0.0.1"]
    process = subprocess.Popen(command, cwd=source, env=environment, stdout=subprocess.DEVNULL)
    try:
        wait_until_served(f"http://127.0.0.1:{port}/", process)
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        process.wait(20)


def wait_until_served(url: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)


def wait_for_status(front_ends: Served, thread_id: str, status: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while (found := httpx.get(f"{front_ends.base}/threads/{thread_id}").json()["status"]) != status:
        assert time.monotonic() < deadline, found
        time.sleep(0.1)


def send(page: Page, text: str) -> None:
    page.get_by_placeholder("Type your message...").fill(text)
    page.get_by_role("button", name="Send").click()


def open_chat(page: Page, site: str, front_ends: Served, agent: str) -> None:
    page.goto(f"{site}?{urlencode({'apiUrl': front_ends.base, 'assistantId': agent})}")


def thread_of(page: Page) -> str:
    page.wait_for_url(re.compile("threadId="))
    return page.url.partition("threadId=")[2].partition("&")[0]


@pytest.mark.parametrize("agent", ASKS)
@pytest.mark.parametrize("decision", ["approve", "edit", "reject", "resolve"])
def test_a_call_waits_for_the_persons_decision(
    browser: Browser, site: str, front_ends: Served, agent: str, decision: str
) -> None:
    with opened(browser) as page:
        open_chat(page, site, front_ends, agent)
        send(page, ASKS[agent])
        expect(page.get_by_text("Edit/Approve")).to_be_visible()
        said = {
            "approve": "42" if agent == "careful" else "sunny in Bonn",
            "edit": EDITS[agent][1],
            "reject": "not now",
        }
        match decision:
            case "approve":
                page.get_by_role("button", name="Approve", exact=True).click()
            case "edit":
                page.locator("textarea").first.fill(EDITS[agent][0])
                page.get_by_role("button", name="Submit", exact=True).click()
            case "reject":
                page.get_by_placeholder("Share feedback").fill("not now")
                page.get_by_role("button", name="Submit rejection").click()
            case _:
                page.get_by_role("button", name="Mark as Resolved").click()
        expect(page.get_by_text("Edit/Approve")).to_have_count(0)
        if decision in said:
            expect(page.get_by_text("Tool Result:")).to_have_count(1)
            expect(page.locator("p", has_text=said[decision]).last).to_be_visible()
        # ``Command(goto="__end__")`` leaves the question of a graph open: LangGraph ignores it
        wait_for_status(front_ends, thread_of(page), "interrupted" if (agent, decision) == REOPENED else "idle")


@pytest.mark.parametrize("agent", ASKS)
def test_the_first_message_is_edited_and_both_branches_are_kept(
    browser: Browser, site: str, front_ends: Served, agent: str
) -> None:
    with opened(browser) as page:
        open_chat(page, site, front_ends, agent)
        send(page, f"hello from {agent}")
        expect(page.get_by_role("button", name="Refresh")).to_have_count(1)
        page.locator("p", has_text=f"hello from {agent}").last.hover()
        page.get_by_role("button", name="Edit", exact=True).click()
        page.locator("textarea").first.fill("hello again")
        page.get_by_role("button", name="Submit", exact=True).click()
        expect(page.get_by_text("2 / 2")).to_have_count(1)
        expect(page.locator("p", has_text="hello again").last).to_be_visible()
        page.get_by_text("2 / 2").locator("xpath=preceding-sibling::button").click()
        expect(page.get_by_text("1 / 2")).to_have_count(1)
        expect(page.locator("p", has_text=f"hello from {agent}").last).to_be_visible()
        page.get_by_role("button", name="Refresh").click()  # the answer once more, from the same message
        expect(page.get_by_text("2 / 2")).to_have_count(1)


def test_threads_are_listed_and_opened_again(browser: Browser, site: str, front_ends: Served) -> None:
    with opened(browser) as page:
        open_chat(page, site, front_ends, "helper")
        send(page, "what is 7*11?")
        expect(page.locator("p", has_text="answered: 77")).to_be_visible()
        thread = thread_of(page)
        open_chat(page, site, front_ends, "helper")
        expect(page.locator("p", has_text="answered: 77")).to_have_count(0)
        page.locator("button:has(svg.lucide-panel-right-close)").last.click()
        page.get_by_role("button", name="what is 7*11?").first.click()
        expect(page.locator("p", has_text="answered: 77")).to_be_visible()
        assert thread_of(page) == thread
