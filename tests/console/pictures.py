"""Every page of the console, with something on it: what the documentation shows, and what axe reads."""

import base64
import functools
import re
from pathlib import Path

import httpx
from playwright.sync_api import Page

from tests.waiting import until

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "assets" / "console"
SIZE = {"width": 1120, "height": 700}
QUALITY = 60
MAX_BYTES = 60_000
"""What one picture may weigh: all of them are in every clone."""

PAGES = {
    "chat": ("threads/{chat}", ".call[open] .call-state >> text=/done · [\\d.]+ m?s/"),
    "inbox": ("inbox", ".inbox-item .question"),
    "runs": ("runs", "tr .status.interrupted"),
    "history": ("threads/{turns}/history", ".graph"),
    "compare": ("compare/{first}/{second}", ".compared"),
    "agents": ("agents", ".grid .card"),
    "agent": ("agents/assistant", ".graph"),
    "call": ("call", ".code"),
    "store": ("store", "details.card[open]"),
    "documents": ("documents", ".status.ready"),
    "document": ("documents/{document}", "text=Chunk 0"),
    "crons": ("crons", "td >> text=refunds"),
    "webhooks": ("webhooks", "tbody tr"),
    "queue": ("queue", "text=worker processes"),
    "usage": ("usage", ".chart rect"),
    "health": ("health", ".status.healthy"),
    "settings": ("settings", "dl dt"),
}
"""The address of each page below /console/, and what shows that it is complete."""


def kinds() -> set[str]:
    """The first parts of the addresses of all pages, as the console's modules name them."""
    pages = (
        (ROOT / "app" / "console" / "static" / "js" / "app.js").read_text().split("const PAGES = {")[1].split("};")[0]
    )
    return {*re.findall(r"^  (\w+):", pages, re.MULTILINE), "threads"}


def fill(http: httpx.Client) -> dict[str, str]:
    """Give every page something to show, by the API; return the ids that addresses have."""

    def thread() -> str:
        return str(http.post("/threads", json={}).raise_for_status().json()["thread_id"])

    def run(thread: str, agent: str, text: str, **more: object) -> str:
        body = {"assistant_id": agent, "input": text, **more}
        done = http.post(f"/threads/{thread}/runs/wait", json=body).raise_for_status()
        return f"{thread}.{done.headers['content-location'].split('/')[-1]}"

    chat = thread()
    run(chat, "assistant", "What is 12*(3+4), and what time is it?")
    turns = thread()
    first = run(turns, "assistant", "What is 2*21?")
    second = run(turns, "assistant", "And what is 84/2?", webhook="http://127.0.0.1:9/hook")
    run(thread(), "refunds", "call refund order=17 reason=late call refund order=18")
    for place, taste in {"ada": "Ada prefers green tea.", "grace": "Grace drinks coffee, black."}.items():
        item = {"namespace": ["users", place], "key": "drink", "value": {"text": taste}}
        http.put("/store/items", json=item).raise_for_status()
    text = "# Tea\n\nGreen tea is brewed at 80 degrees, black tea at 95.\n\n# Coffee\n\nIt is brewed at 93 degrees.\n"
    sent = http.post("/documents", files={"file": ("drinks.md", text.encode(), "text/markdown")}).raise_for_status()
    document = sent.json()["document_id"]
    until(functools.partial(_ready, http, document))
    cron = {"assistant_id": "refunds", "schedule": "0 9 * * 1-5", "timezone": "Europe/Berlin", "input": "Good morning"}
    http.post("/runs/crons", json=cron).raise_for_status()
    return {"chat": chat, "turns": turns, "first": first, "second": second, "document": document}


def _ready(http: httpx.Client, document: str) -> bool:
    return bool(http.get(f"/documents/{document}").json()["status"] == "ready")


def show(page: Page, url: str, name: str, ids: dict[str, str]) -> None:
    """Open a page and wait until it is complete."""
    path, complete = PAGES[name]
    page.goto(f"{url}console/{path.format(**ids)}")
    if name == "chat":
        page.click(".call summary >> nth=0")
    if name == "store":
        page.fill("[aria-label='Search']", "green tea")
        page.press("[aria-label='Search']", "Enter")
        page.click("details.card:has(.tag) summary >> nth=0")  # not what the search replaces
    if name == "settings":  # what stands in the files of every installation
        page.uncheck("[type=checkbox]")
        page.fill("[aria-label='Find a setting']", "keep")
    page.wait_for_selector(complete)


def picture(page: Page) -> bytes:
    """Return the page as WebP."""
    page.evaluate("document.fonts.ready.then(() => new Promise(requestAnimationFrame)).then(() => 0)")
    session = page.context.new_cdp_session(page)
    shot = session.send("Page.captureScreenshot", {"format": "webp", "quality": QUALITY})
    session.detach()
    return base64.b64decode(shot["data"])
