"""Operation by the console, in a real browser, against a real server."""

import asyncio
import http.server
import os
import re
import subprocess
import sys
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from playwright.sync_api import Browser, Request

from app.engine.queue.sql import RELEASE_EXPIRED
from app.engine.streams.signals import CHANNEL
from tests.console.conftest import answering, assert_accessible, watching
from tests.database import age, execute
from tests.journeys.conftest import Served
from tests.waiting import until

pytestmark = pytest.mark.timeout(240)


QUEUED = f"""select pg_notify('{CHANNEL}', '{{"sender": "{uuid4()}", "queue": true}}')"""


class Receiver(http.server.BaseHTTPRequestHandler):
    """Refuses deliveries until ``works``."""

    works = False

    def do_POST(self) -> None:
        """Answer a delivery."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200 if Receiver.works else 410)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Log nothing."""


@pytest.fixture
def receiver() -> Iterator[str]:
    """The address of a receiver of webhooks."""
    with answering(Receiver) as address:
        yield f"{address}/hook"


def test_an_operator_finds_stops_and_repeats_runs(browser: Browser, console: Served) -> None:
    with httpx.Client(base_url=console.base, timeout=60) as http, watching(browser, console) as watched:
        bodies = [{"assistant_id": "echo", "input": f"n {n}", "on_completion": "keep"} for n in range(60)]
        assert http.post("/runs/batch", json=bodies).is_success
        thread = http.post("/threads", json={"metadata": {"title": "A long one"}}).json()["thread_id"]
        body = {"assistant_id": "refunds", "input": "call wait seconds=60", "metadata": {"user": "ada", "n": 1}}
        assert http.post(f"/threads/{thread}/runs", json=body).is_success
        page = watched.open("console/runs")
        row = page.locator("tr", has_text="A long one").first
        row.locator(".status.running").wait_for()
        assert page.locator("tbody tr").count() == 50
        page.click("text=Older runs")
        page.locator("tbody tr").nth(60).wait_for()

        page.fill("[aria-label='Metadata']", "user")
        page.press("[aria-label='Metadata']", "Enter")
        assert "user=ada" in page.inner_text(".problem")
        page.fill("[aria-label='Metadata']", '{"user": "ada", "n": 1}')
        page.select_option("[aria-label='Status']", "live")
        page.select_option("[aria-label='Agent']", label="refunds")
        page.select_option("[aria-label='Created']", label="in the last hour")
        page.wait_for_function("() => document.querySelectorAll('tbody tr').length === 1")
        assert_accessible(page)
        row.locator("text=Stop").click()
        page.wait_for_selector("text=No run here")
        page.select_option("[aria-label='Status']", "interrupted")
        row.locator("text=Again").click()
        page.fill("[aria-label='Metadata']", "")
        page.select_option("[aria-label='Status']", "")
        page.locator("tr", has_text="A long one").nth(1).wait_for()
        page.check("tr:has-text('A long one') >> nth=0 >> [type=checkbox]")
        page.check("tr:has-text('A long one') >> nth=1 >> [type=checkbox]")
        page.click("text=Compare two")
        page.wait_for_selector(".sides .status.running, .sides .status.pending")
        page.go_back()
        page.locator("tr", has_text="A long one").first.locator("text=Stop").click()
        page.wait_for_function("() => document.querySelectorAll('.status.running, .status.pending').length === 0")


def superuser(act: Coroutine[Any, Any, None]) -> None:
    """Do something in the database; in this thread Playwright has a loop of its own."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, act).result()


def test_a_waterfall_shows_waits_retries_lost_workers_and_runs_without_a_log(browser: Browser, console: Served) -> None:
    database = console.environment["DATABASE_URL"]
    with httpx.Client(base_url=console.base, timeout=60) as http, watching(browser, console) as watched:
        thread = http.post("/threads", json={}).json()["thread_id"]
        of_thread = f"/threads/{thread}/runs"
        body = {"assistant_id": "refunds", "input": "call wait seconds=1"}
        lost = http.post(of_thread, json=body).json()["run_id"]
        until(lambda: len(http.post(f"/threads/{thread}/history").json()) >= 3)  # its tool runs
        retried = http.post(of_thread, json={"assistant_id": "speaker", "input": "x", "multitask_strategy": "enqueue"})
        expired = f"update runs set lease_until = now() - interval '1 s' where run_id = '{lost}'"
        release = RELEASE_EXPIRED.replace("$1", "9").replace("$2", "9")
        superuser(execute(database, expired, release, QUEUED))  # as another server does
        for run in (lost, retried.json()["run_id"]):
            http.get(f"{of_thread}/{run}/join").raise_for_status()
        superuser(age(database, lost))
        changes = http.get(f"{of_thread}/{lost}/transitions").json()
        assert [(one["status"], one["reason"], one["attempt"]) for one in changes] == [
            ("running", "accepted", 1),
            ("pending", "recovered", 1),
            ("running", "claimed", 2),
            ("success", "done", 2),
        ]
        page = watched.open(f"console/threads/{thread}/history/{lost}")
        rows = page.locator(".run[open] .waterfall li")
        page.wait_for_selector(".run[open] .waterfall .of-lost")
        names = [name.split(" ")[0] for name in rows.locator("> span:first-child").all_inner_texts()]
        assert names == ["input", "agent", "lost", "queue", "tools", "agent"]
        assert "worker 1 is gone" in rows.nth(2).inner_text()
        page.wait_for_selector(".run[open] summary >> text=2 attempts")
        page.click(".run[open] .run-events summary")
        page.wait_for_selector(".run[open] .events li >> text=/step 2\\s*agent.*tool wait answered: done/")
        assert "its checkpoints tell" in page.inner_text(".run[open] .events")
        page.click(".run[open] .bar[aria-label^='tools']")
        page.wait_for_selector("h2 >> text=/Step .*: tools/")

        page.click(".run:not([open]) summary")
        page.wait_for_selector(".run >> nth=0 >> .waterfall .of-queue")
        assert re.search(r"queue\s+[\d.]+ m?s", page.inner_text(".run >> nth=0"))
        page.wait_for_selector(".run >> nth=0 >> .waterfall li >> text=agent 1 retry")
        page.click("text=Conversation")
        page.wait_for_selector(".row.ai .answer-foot >> text=1 retry")
        watched.complaints.clear()  # what the browser says of the log that has expired


def test_an_operator_sees_usage_queue_and_settings(browser: Browser, console: Served) -> None:
    with httpx.Client(base_url=console.base, timeout=60) as http, watching(browser, console) as watched:
        for agent in ("echo", "assistant"):
            assert http.post("/runs/wait", json={"assistant_id": agent, "input": "What is 2+3?"}).is_success
        page = watched.open("console/usage")
        row = page.locator("[aria-label='Usage by agent'] tr", has_text="echo")

        def counted_as_shown() -> bool:  # runs of other tests may end meanwhile
            page.reload()
            row.wait_for()
            [echo] = [one for one in http.get("/usage?by=agent").json() if one["agent"] == "echo"]
            counted = [echo[name] for name in ("runs", "failed", "input_tokens", "output_tokens")]
            shown = [int(text.replace(",", "")) for text in row.locator("td").all_inner_texts()[:4]]
            return shown == counted and shown[0] >= 1

        until(counted_as_shown)
        page.wait_for_selector("tr >> text=scripted:demo")
        page.select_option("[aria-label='Measure']", "dollars")
        page.wait_for_selector("svg[aria-label^='Cost by day']")
        assert page.locator(".chart rect").count() >= 1

        thread = http.post("/threads", json={}).json()["thread_id"]
        body = {"assistant_id": "refunds", "input": "call wait seconds=60"}
        run = http.post(f"/threads/{thread}/runs", json=body).json()["run_id"]
        page.click("a.nav >> text=Queue")
        page.wait_for_selector("td >> text=refunds")
        assert "1 of 1 worker processes" in page.inner_text("main")
        assert page.locator("[aria-label='Workers that hold runs'] tbody tr").count() == 1
        assert http.post(f"/threads/{thread}/runs/{run}/cancel").is_success
        page.wait_for_selector("text=No process holds a run now.")
        page.click("a.nav >> text=Settings")
        page.wait_for_selector("dt >> text=AGENT_CONFIG")
        assert page.locator("dt >> text=AGENT_LEASE_SECONDS").count() == 0
        page.uncheck("[type=checkbox]")
        page.fill("[aria-label='Find a setting']", "database_url")
        page.wait_for_selector("dt >> text=MIGRATE_DATABASE_URL")
        assert "***" in page.inner_text("dl")
        assert "postgresql:" not in page.inner_text("dl")


def test_commands_of_the_page_of_calls_work(browser: Browser, console: Served) -> None:
    expected = {
        "curl": ["event: messages"],
        "Responses": ['"output_text"'],
        "AG-UI": ["RUN_FINISHED"],
        "A2A": ["supportedInterfaces", "TASK_STATE_COMPLETED"],
        "MCP": ["mcpServers", '"isError":false'],
    }
    with watching(browser, console) as watched:
        page = watched.open("console/call")
        page.wait_for_selector(".code")
        for tab, words in expected.items():
            page.click(f"[role=tab]:text-is('{tab}')")
            blocks = page.locator(".code")
            commands = [blocks.nth(n).locator("pre").inner_text() for n in range(blocks.count())]
            commands = [text for text in commands if "curl " in text or text.startswith("# the configuration")]
            path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
            for command, word in zip(commands, words, strict=True):
                done = subprocess.run(
                    ["bash", "-c", command], check=False, capture_output=True, text=True, env={"PATH": path}
                )
                assert word in done.stdout, (tab, command, done)


def test_a_delivery_that_failed_is_sent_again(browser: Browser, console: Served, receiver: str) -> None:
    with watching(browser, console) as watched:
        body = {"assistant_id": "echo", "input": "Hello", "webhook": receiver, "on_completion": "keep"}
        httpx.post(f"{console.base}/runs/wait", json=body).raise_for_status()
        page = watched.open("console/webhooks")
        row = page.locator("tr", has_text=receiver)
        while not row.locator("text=410").count():
            page.reload()
            page.wait_for_selector("main h1")
            page.wait_for_timeout(200)
        Receiver.works = True
        row.locator("text=Send again").click()
        page.select_option("[aria-label='Status']", "delivered")
        while not row.locator(".status.delivered").count():
            page.reload()
            page.wait_for_selector("main h1")
            page.wait_for_timeout(200)


def test_every_page_fits_a_phone(browser: Browser, console: Served) -> None:
    with watching(browser, console) as watched:
        thread = httpx.post(f"{console.base}/threads", json={}).json()["thread_id"]
        body = {"assistant_id": "assistant", "input": "What is 2+3?"}
        waited = httpx.post(f"{console.base}/threads/{thread}/runs/wait", json=body, timeout=60)
        run = waited.headers["content-location"].split("/")[-1]
        page = watched.open("console/runs")
        page.set_viewport_size({"width": 390, "height": 800})
        names = "inbox runs agents agents/assistant store documents crons webhooks call queue usage health settings"
        paths = ("", *names.split())
        of_thread = (f"threads/{thread}", f"threads/{thread}/history/{run}", f"compare/{thread}.{run}/{thread}.{run}")
        for path in (*paths, *of_thread):
            watched.open(f"console/{path}")
            page.wait_for_selector("main h1, main .row.ai")
            if page.locator(".composer").count():  # the input shows its line
                page.wait_for_function("() => document.querySelector('.composer textarea').clientHeight > 30")
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
        assert_accessible(page)
        page.click("[aria-label='Menu']")
        page.click("a.nav >> text=Health")
        page.wait_for_selector(".status.healthy")


def test_more_reads_the_next_page_alone(browser: Browser, console: Served) -> None:
    with httpx.Client(base_url=console.base, timeout=60) as http, watching(browser, console) as watched:
        cron = {"assistant_id": "echo", "schedule": "0 9 1 1 *", "input": "Good morning"}
        made = [http.post("/runs/crons", json=cron).json()["cron_id"] for _ in range(52)]
        offsets: list[int] = []

        def read(request: Request) -> None:
            if "crons/search" in request.url:
                offsets.append((request.post_data_json or {})["offset"])

        watched.page.on("request", read)
        page = watched.open("console/crons")
        page.click("text=More")
        page.locator("tbody tr").nth(51).wait_for()
        assert offsets == [0, 50]
        assert page.locator("text=More").is_hidden()
        for cron_id in made:
            http.delete(f"/runs/crons/{cron_id}").raise_for_status()


def test_an_upload_shows_its_progress_and_outlives_a_lost_server(browser: Browser, console: Served) -> None:
    with watching(browser, console) as watched:
        page = watched.open("console/documents")
        network = page.context.new_cdp_session(page)
        network.send("Network.enable")

        def limit(bytes_a_second: int, offline: bool = False) -> None:
            limits = {"offline": offline, "latency": 0, "downloadThroughput": -1, "uploadThroughput": bytes_a_second}
            network.send("Network.emulateNetworkConditions", limits)

        text = b"<p>Black tea is brewed at 95 degrees.</p><!-- %s -->" % (b"x" * 1_500_000)
        files = [
            {"name": "black.html", "mimeType": "text/html", "buffer": text},
            {"name": "table.xyz", "mimeType": "application/x-unknown", "buffer": b"\x00\x01"},
        ]
        limit(60_000)  # the whole of it takes longer than what is looked at meanwhile
        page.set_input_files("input[type=file]", files)  # type: ignore[arg-type]
        page.wait_for_function("() => document.querySelector('.upload progress').value > 100000")
        assert re.search(r"\d+ % sent · 1.5 MB", page.inner_text(".upload >> nth=0"))
        assert_accessible(page)
        page.click("a.nav >> text=Crons")
        page.wait_for_selector("main h1 >> text=Crons")
        limit(-1, offline=True)
        page.wait_for_selector(".banner:not([hidden])")
        page.click("a.nav >> text=Documents")
        page.wait_for_selector(".upload >> text=sent again when it is back")
        limit(-1)
        page.locator("tr", has_text="black.html").locator(".status.ready").wait_for()

        # one that is refused says why, and can be put away
        page.wait_for_selector(".upload >> text=not uploaded")
        assert "text/plain" in page.inner_text(".upload .problem")
        page.click("text=Dismiss")
        assert page.locator(".upload").count() == 0
        page.locator("tr", has_text="black.html").locator("text=Delete").click()
        page.click("td >> text=Delete?")
        page.wait_for_selector("text=No document yet")
        watched.complaints.clear()  # what the browser says of requests that failed


def test_an_operator_works_with_memory_documents_and_crons(browser: Browser, console: Served) -> None:
    with watching(browser, console) as watched:
        page = watched.open("console/health")
        page.wait_for_selector(".status.healthy")
        page.click("a.nav >> text=Memory")
        page.click("text=New item")
        page.fill("[aria-label='Namespace']", "users.ada")
        page.fill("[aria-label='Key']", "drink")
        page.fill(".code-input", '{"text": "Ada prefers green tea"}')
        page.click("text=Save")
        page.fill("[aria-label='Search']", "green tea")
        page.press("[aria-label='Search']", "Enter")
        page.click("details.card:has(.tag) summary >> text=drink")  # not what the search replaces
        page.wait_for_selector("details.card pre >> text=green tea")

        page.click("a.nav >> text=Documents")
        page.wait_for_selector("text=No document yet")
        content = b"# Tea\n\nGreen tea is brewed at 80 degrees."
        note = {"name": "note.md", "mimeType": "text/markdown", "buffer": content}
        page.set_input_files("input[type=file]", note)  # type: ignore[arg-type]
        page.wait_for_selector(".status.ready")
        page.fill("[aria-label='Find passages']", "brewed at 80")
        page.press("[aria-label='Find passages']", "Enter")
        page.wait_for_selector("article >> text=80 degrees")
        page.click("td a")
        page.wait_for_selector("text=Chunk 0")
        page.wait_for_selector("header >> text=1 chunk")
        page.click("a.nav >> text=Runs")
        page.locator("tr", has_text="document ingestion").locator("text=Document").first.click()
        page.wait_for_selector("main h1 >> text=note.md")

        page.click("a.nav >> text=Crons")
        page.click("text=New cron")
        page.fill("form textarea", "Good morning")
        page.fill("label:has-text('Schedule') input", "0 9 * *")
        page.wait_for_selector("form >> text=use five fields")
        watched.complaints.clear()  # what the browser says of the refusal
        page.fill("label:has-text('Schedule') input", "0 9 * * 1-5")
        page.wait_for_function("() => document.querySelectorAll('form [role=status] div').length === 5")
        page.click("text=Create")
        page.click("td summary")
        page.wait_for_function("() => document.querySelectorAll('td details div div').length === 5")
        with watched.accepting():
            page.click("td >> text=Run now")
        page.click("td >> text=Pause")
        page.wait_for_selector("td .status >> text=paused")  # the texts of the buttons make "PauseDelete"
        page.click("td >> text=Delete")
        page.click("td >> text=Delete?")
        page.wait_for_selector("text=No cron yet")
