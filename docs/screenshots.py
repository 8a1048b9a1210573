"""Make the pictures of the console for the documentation, from a server with the agents of ``tests/console``.

Usage: AGENT_PRICES=tests/console/agents/prices.toml agent-service dev tests/console/agents/agents.toml, then:
python -m docs.screenshots http://127.0.0.1:8000/
"""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

OUT = Path(__file__).parent / "assets" / "console"
SIZE = {"width": 1120, "height": 700}


def say(page: Page, base: str, agent: str, text: str) -> None:
    """Start a thread."""
    page.goto(base)
    page.wait_for_selector(".welcome h1")
    page.select_option(".agent-select", label=agent)
    page.fill(".composer textarea", text)
    page.keyboard.press("Enter")


def chat(page: Page, base: str) -> None:
    """A conversation with tool calls."""
    say(page, base, "assistant", "What is 12*(3+4), and what time is it?")
    page.wait_for_selector(".row.ai >> nth=1 >> .answer-foot >> text=out")
    page.click(".call summary >> nth=0")


def inbox(page: Page, base: str) -> None:
    """An approval."""
    say(page, base, "refunds", "call refund order=17 reason=late")
    page.wait_for_selector(".question")
    page.click("a.nav >> text=Inbox")
    page.wait_for_selector(".inbox-item .question")


def history(page: Page, base: str) -> None:
    """Checkpoints."""
    chat(page, base)
    page.click("text=History")
    page.wait_for_selector(".graph")


def runs(page: Page, base: str) -> None:
    """The runs of all threads: answered, waiting for a person, running."""
    say(page, base, "refunds", "call wait seconds=30")
    page.wait_for_selector(".call-state.running")
    page.click("a.nav >> text=Runs")
    page.wait_for_selector("tr .status.running")


PICTURES: dict[str, Callable[[Page, str], None]] = {"chat": chat, "inbox": inbox, "history": history, "runs": runs}


def main(base: str) -> None:
    """Write every picture."""
    OUT.mkdir(parents=True, exist_ok=True)
    program = os.environ.get("CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        for name, show in PICTURES.items():
            page = browser.new_page(viewport=SIZE)  # type: ignore[arg-type]
            show(page, base)
            page.wait_for_timeout(600)
            page.screenshot(path=OUT / f"{name}.png")
            page.close()
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1])
