"""Files by paste and drop, sources of answers, and tabs that are closed."""

import httpx
import pytest
from playwright.sync_api import Browser

from tests.console.conftest import assert_accessible, watching
from tests.journeys.conftest import Served
from tests.waiting import until

pytestmark = pytest.mark.timeout(240)

GIVE = """
([selector, kind, name, text]) => {
  const data = new DataTransfer();
  data.items.add(new File([text], name, { type: "text/plain" }));
  const options = { bubbles: true, cancelable: true };
  const event = kind === "paste" ? new ClipboardEvent(kind, { ...options, clipboardData: data })
    : new DragEvent(kind, { ...options, dataTransfer: data });
  document.querySelector(selector).dispatchEvent(event);
  return event.defaultPrevented;
}
"""


def test_files_are_pasted_and_dropped_and_a_draft_outlives_its_page(browser: Browser, console: Served) -> None:
    with watching(browser, console) as watched:
        page = watched.open()
        watched.choose("echo")
        page.evaluate(GIVE, [".composer textarea", "paste", "pasted.txt", "Green tea"])
        page.wait_for_selector(".chip >> text=pasted.txt")
        assert page.evaluate(GIVE, [".scroller", "drop", "dropped.txt", "Black tea"]), "the browser would open the file"
        page.wait_for_selector(".chip >> text=dropped.txt")
        assert page.evaluate(GIVE, [".side", "drop", "lost.txt", ""]), "the browser would leave the page"
        watched.say("What are these?")
        watched.answered()
        for text in ("Green tea", "dropped.txt", "Black tea"):
            assert text in page.inner_text(".row.human")
        assert "lost.txt" not in page.inner_text("main")

        page.fill(".composer textarea", "not sent yet")
        page.reload()
        page.wait_for_selector(".row.ai")
        assert page.input_value(".composer textarea") == "not sent yet"
        page.click("a.nav >> text=Crons")
        page.wait_for_selector("main h1 >> text=Crons")
        page.go_back()
        page.wait_for_selector(".row.ai")
        assert page.input_value(".composer textarea") == "not sent yet"


def test_an_answer_shows_its_sources(browser: Browser, console: Served) -> None:
    with httpx.Client(base_url=console.base, timeout=60) as http, watching(browser, console) as watched:
        note = ("boats.md", b"# Boats\n\nA ketch has two masts.", "text/markdown")
        document = http.post("/documents", files={"file": note}).raise_for_status().json()["document_id"]
        until(lambda: http.get(f"/documents/{document}").json()["status"] == "ready")
        page = watched.open()
        watched.choose("clerk")
        watched.say("call knowledge query=masts")
        watched.answered(2)
        page.wait_for_selector(".row.ai:last-child .sources a >> text=Boats")
        assert_accessible(page)

        # what a provider of models cites; an address that is none is text
        cited = [
            {"type": "url_citation", "url": "https://a.example/tea", "title": "Tea"},
            {"type": "url_citation", "url": "javascript:window.hacked=1", "title": "Not a page"},
        ]
        thread = page.url.split("/")[-1]
        content = [{"type": "text", "text": "Tea is a plant.", "annotations": cited}]
        values = {"messages": [{"type": "human", "content": "And tea?"}, {"type": "ai", "content": content}]}
        http.post(f"/threads/{thread}/state", json={"values": values, "as_node": "__start__"}).raise_for_status()
        page.reload()
        page.wait_for_selector(".row.ai >> text=Tea is a plant.")
        hrefs = page.locator(".row.ai:last-child .sources a").evaluate_all("links => links.map(link => link.href)")
        assert hrefs == ["https://a.example/tea"]
        assert "Not a page" in page.inner_text(".row.ai:last-child .sources")
        page.locator(".sources a", has_text="Boats").first.click()
        page.wait_for_selector("main h1 >> text=Boats")
        page.wait_for_selector("article[aria-current] >> text=two masts")


def test_a_run_goes_on_without_its_tab_and_every_new_tab_shows_it(browser: Browser, console: Served) -> None:
    with watching(browser, console) as watched:
        page = watched.open()
        watched.choose("refunds")
        watched.say("call wait seconds=4")
        page.wait_for_selector(".call-state.running")
        address = page.url
        tabs = [page.context.new_page() for _ in range(2)]
        page.close()
        for tab in tabs:
            tab.goto(address)
            tab.wait_for_selector(".live:not([hidden])")
        for tab in tabs:
            tab.wait_for_selector(".row.ai >> text=tool wait answered: done")
            tab.wait_for_selector(".live", state="hidden")
            assert tab.locator(".row.human").count() == 1
            assert tab.locator(".call").count() == 1
