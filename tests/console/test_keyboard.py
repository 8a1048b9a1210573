"""The console by the keyboard alone: every page is reached, and the focus is always there and visible."""

import contextlib

import httpx
import pytest
from playwright.sync_api import Browser
from playwright.sync_api import TimeoutError as Late

from tests.console.conftest import Watched, watching
from tests.journeys.conftest import Served

pytestmark = pytest.mark.timeout(240)

MOST = 120
"""Presses of Tab that lead to anything."""

FOCUS = """
() => {
  const element = document.activeElement;
  if (!element || element === document.body) return "nothing has the focus";
  if (element.id === "main") return "";
  const problem = (text) => `${text}: ${element.outerHTML.slice(0, 200)}`;
  if (!element.matches(":focus-visible")) return problem("the focus is not shown");
  const outlined = ({ outlineStyle, outlineWidth }) => outlineStyle !== "none" && parseFloat(outlineWidth) >= 2;
  const shown = [element, element.closest(".composer, .find")].filter(Boolean).map((one) => getComputedStyle(one));
  if (!shown.some((style) => outlined(style) || style.boxShadow !== "none")) return problem("unmarked");
  const { left, top, right, bottom } = element.getBoundingClientRect();
  return bottom <= 0 || top >= innerHeight || right <= 0 || left >= innerWidth ? problem("outside of the view") : "";
}
"""
DRAWN = "new Promise((go) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(go))))"


class Keyboard:
    """Presses keys, and checks after each that the focus is visible."""

    def __init__(self, watched: Watched) -> None:
        self.page = watched.page

    def press(self, key: str) -> None:
        self.page.keyboard.press(key)
        self.check()

    def check(self) -> None:
        """Check the focus once the page has drawn what the key did, and has the answer to what it asked for."""
        self.page.evaluate(DRAWN)
        if problem := self.page.evaluate(FOCUS):
            with contextlib.suppress(Late):
                self.page.wait_for_function(f"() => ({FOCUS})() === ''", timeout=20_000)
            problem = self.page.evaluate(FOCUS)
        assert problem == "", (problem, self.page.evaluate("document.activeElement.outerHTML.slice(0, 300)"))

    def to(self, selector: str, *, back: bool = False) -> None:
        """Tab to what fits ``selector``."""
        self.page.wait_for_selector(selector, state="attached")
        for _ in range(MOST):
            if self.page.evaluate("selector => document.activeElement.matches(selector)", selector):
                return
            self.page.keyboard.press("Shift+Tab" if back else "Tab")
            if self.page.evaluate("document.activeElement === document.body"):  # past the end: round the browser's bar
                self.page.keyboard.press("Shift+Tab" if back else "Tab")
            self.check()
        raise AssertionError(f"{selector} is not reached by the keyboard")

    def use(self, selector: str, *, back: bool = False, key: str = "Enter") -> None:
        self.to(selector, back=back)
        self.press(key)

    def write(self, text: str) -> None:
        self.page.keyboard.press("Control+A")
        self.page.keyboard.type(text)
        self.check()


def test_a_conversation_and_every_page_by_the_keyboard_alone(browser: Browser, console: Served) -> None:
    with watching(browser, console) as watched:
        page = watched.open()
        page.wait_for_selector(".welcome h1")
        keys = Keyboard(watched)
        keys.use("a.skip", back=True)
        keys.to(".agent-select")
        page.keyboard.type("refunds")
        page.wait_for_selector(".welcome h1 >> text=refunds")
        keys.to(".composer textarea")
        keys.write("call refund order=17 call refund order=18")
        keys.press("Enter")

        # one call is approved as it is, the other with other arguments
        page.wait_for_selector(".question >> nth=1")
        keys.check()
        keys.use(".question:first-child .button.primary", back=True)
        page.wait_for_function("() => document.querySelectorAll('.question').length === 1")
        keys.check()
        keys.to(".question textarea", back=True)
        keys.write('{"order": 180}')
        keys.use(".question .button.primary")
        page.wait_for_selector(".question", state="detached")
        keys.check()
        assert page.evaluate("document.activeElement.closest('.composer') !== null")
        watched.answered(2)
        assert "Order 180 is refunded" in page.inner_text(".row.ai >> nth=-1")
        thread = page.url

        # a message is edited, its answer opened and asked for again, the thread copied
        keys.use(".row.human [aria-label='Edit and send again']", back=True)
        keys.press("Escape")
        keys.use(".row.human [aria-label='Edit and send again']", back=True)
        keys.write("call wait seconds=0")
        keys.use(".edit .button.primary")
        watched.answered(2)
        page.wait_for_selector(".call >> text=wait")
        keys.check()
        keys.use(".call summary", back=True)
        page.wait_for_selector(".call-body")
        keys.use(".row.ai:last-child [aria-label='Copy the thread up to here']")
        page.wait_for_function("thread => location.href !== thread", arg=thread)
        page.wait_for_selector(".row.ai >> nth=1")
        keys.check()

        # every page of the menu, and back to the conversation
        pages = page.locator("a.nav").evaluate_all("links => links.map(link => link.dataset.page)")
        for name in pages:
            keys.use(f"a.nav[data-page='{name}']", back=name == pages[0])
            page.wait_for_selector("main h1")
            assert page.url.endswith(f"/console/{name}")
            keys.check()
        keys.use(".thread")
        page.wait_for_selector(".row.ai >> nth=1")
        keys.use("a[data-go$='/history']", back=True)
        keys.use(".checkpoint[aria-current]")
        keys.to("select[aria-label='Compare with']")
        keys.press("ArrowDown")
        page.wait_for_selector(".compared")
        keys.to("[aria-label='Compare with']")


def test_what_is_done_to_a_row_leaves_the_focus_near_it(browser: Browser, console: Served) -> None:
    with httpx.Client(base_url=console.base, timeout=60) as http, watching(browser, console) as watched:
        cron = {"assistant_id": "echo", "schedule": "0 9 1 1 *", "input": "Good morning"}
        for _ in range(3):
            http.post("/runs/crons", json=cron).raise_for_status()
        page = watched.open("console/crons")
        page.wait_for_selector("tbody tr >> nth=2")
        keys = Keyboard(watched)
        row = "tbody tr:nth-child(2)"
        keys.use(f"{row} td:last-child .button.danger")
        keys.press("Enter")
        page.wait_for_function("() => document.querySelectorAll('tbody tr').length === 2")
        keys.check()
        assert page.evaluate(f"document.querySelector('{row}').contains(document.activeElement)")
        for left in (1, 0):
            keys.press("Enter")
            keys.press("Enter")
            page.wait_for_function("left => document.querySelectorAll('tbody tr').length === left", arg=left)
        page.wait_for_selector("text=No cron yet")
        keys.check()
