"""The console in a headless Chromium: ``python -m bench.console [words|code|list]`` (under a minute).

First paint and readiness of a first and of later visits, a thread of 10,000 messages (opened, scrolled), and four tabs
on one run that says 1,000 tokens a second: paragraphs, or one block of code or one list that grows all the time. Times
are those of the page's own clock; CPU is that of its main thread. It prints the machine's load: on a machine that does
other work the times are upper limits.
"""

import asyncio
import contextlib
import json
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Browser, CDPSession, Page, sync_playwright

from bench.serving import base, postgres, server

VISITS = 5
MESSAGES = 10_000
PART = 2500
"""Messages that one update may bring."""
TABS = 4
TOKENS, SECONDS = 1000, 5
PIECES = 100
"""Chunks a second, each of ten tokens: what a provider that is that fast sends."""
FRAME_MS = 1000 / 60
TEXTS: dict[str, Callable[[int], str]] = {
    "words": lambda n: "".join(f"word{n * 10 + k} " for k in range(TOKENS // PIECES)) + "\n\n" * (n % 10 == 9),
    "code": lambda n: "```python\n" * (n == 0) + f"def word{n * 10 + 9}(a, b):  # comment\n    return 'text' + {n}\n",
    "list": lambda n: f"- item {n} with **bold** words and `code`: word{n * 10 + 9}\n",
}
"""What the model says, by the number of the chunk; the last word of each chunk is that of its last token."""
AGENT = '[agents.speaker]\nmodel = "openai:speaker"\n'

SEEN = """
window.rowAt = 0;
const look = () => {
  if (document.querySelector(".row.ai .markdown")?.textContent) window.rowAt = performance.now();
  else requestAnimationFrame(look);
};
requestAnimationFrame(look);
"""
FRAMES = """
window.frames_ = [];
let last = performance.now();
const frame = (now) => {
  window.frames_.push(now - last);
  last = now;
  requestAnimationFrame(frame);
};
requestAnimationFrame(frame);
"""
ANIMATED = (
    "<style>@keyframes a { 50% { opacity: .2 } } p { animation: a 1s infinite }</style><p>A page that animates.</p>"
)
SCROLL = """
async () => {
  const place = document.querySelector(".scroller");
  window.frames_ = [];
  for (let step = 0; step < 120; step++) {
    place.scrollTop -= 400;
    await new Promise(requestAnimationFrame);
  }
  return window.frames_;
}
"""


class Speaker:
    """A provider in OpenAI's wire, in a thread of its own, that says ``TOKENS`` tokens of ``text`` a second."""

    def __init__(self, text: Callable[[int], str]) -> None:
        self._text = text

    def __enter__(self) -> str:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        started = asyncio.run_coroutine_threadsafe(asyncio.start_server(self._answer, "127.0.0.1", 0), self._loop)
        self._server = started.result(10)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._server.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\n")
            if head.startswith(b"GET"):
                writer.write(b'content-type: application/json\r\n\r\n{"data": [{"id": "speaker"}]}')
            else:
                writer.write(b"content-type: text/event-stream\r\n\r\n")
                await self._speak(writer)
            await writer.drain()
            writer.close()

    async def _speak(self, writer: asyncio.StreamWriter) -> None:
        due = self._loop.time()
        for number in range(PIECES * SECONDS):
            chunk = {"choices": [{"index": 0, "delta": {"content": self._text(number)}, "finish_reason": None}]}
            writer.write(b"data: %b\n\n" % json.dumps({"id": "c", "model": "speaker", **chunk}).encode())
            await writer.drain()
            due += 1 / PIECES
            await asyncio.sleep(max(0, due - self._loop.time()))
        end = {"id": "c", "model": "speaker", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
        writer.write(b"data: %b\n\ndata: [DONE]\n\n" % json.dumps(end).encode())


def cpu(session: CDPSession) -> float:
    """Milliseconds that the page's main thread has worked."""
    found = session.send("Performance.getMetrics")["metrics"]
    return float(next(one["value"] for one in found if one["name"] == "TaskDuration")) * 1000


@contextlib.contextmanager
def tab(context: Any, script: str) -> Iterator[tuple[Page, CDPSession]]:
    page = context.new_page()
    page.add_init_script(script)
    session = context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    yield page, session
    page.close()


def visits(browser: Browser, url: str) -> None:
    """First and later visits: milliseconds to the first paint, and until a person can write."""
    found: dict[str, list[tuple[float, float, float]]] = {"first visit": [], "another visit": []}
    for _ in range(VISITS):
        context = browser.new_context()
        for results in found.values():
            with tab(context, "") as (page, session):
                page.goto(url)
                page.wait_for_selector(".welcome h1")
                paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
                ready = page.evaluate("performance.getEntriesByName('console:ready')[0].startTime")
                results.append((paint, ready, cpu(session)))
        context.close()
    for name, results in found.items():
        for what, limit, values in zip(
            ("first paint", "ready", "CPU"), (300, 500, None), zip(*results, strict=True), strict=True
        ):
            show(f"{name}: {what}", list(values), limit)


def long_thread(browser: Browser, url: str, api: httpx.Client) -> None:
    """Open and scroll a thread of many messages."""
    words = "Words of a message that is about as long as most are, with *some* Markdown and `code`. "
    kinds = ("human", "ai")
    messages = [{"type": kinds[n % 2], "id": f"m-{n}", "content": f"{n}: {words}"} for n in range(MESSAGES)]
    thread = api.post("/threads", json={"graph_id": "echo", "metadata": {"graph_id": "echo"}}).json()["thread_id"]
    for start in range(0, MESSAGES, PART):
        body = {"values": {"messages": messages[start : start + PART]}, "as_node": "__start__"}
        api.post(f"/threads/{thread}/state", json=body).raise_for_status()
    opened, worked = [], []
    frames: list[float] = []
    for _ in range(VISITS):
        context = browser.new_context()
        with tab(context, SEEN + FRAMES) as (page, session):
            page.goto(f"{url}console/threads/{thread}")
            page.wait_for_function("() => window.rowAt")
            opened.append(page.evaluate("window.rowAt"))
            worked.append(cpu(session))
            frames = page.evaluate(SCROLL)
        context.close()
    show(f"a thread of {MESSAGES:,} messages: opened, from the address on", opened, 1000)
    show(f"a thread of {MESSAGES:,} messages: CPU", worked, None)
    show_frames("scrolled through it", frames)


def until_idle(api: httpx.Client, thread: str) -> None:
    """Wait until no run of ``thread`` is live."""
    while api.get(f"/threads/{thread}").json()["status"] == "busy":
        time.sleep(0.1)


@contextlib.contextmanager
def windows(browser: Browser) -> Iterator[list[tuple[Page, CDPSession]]]:
    """Several pages; tabs of one browser that are not in front draw nothing, so each is a window of its own."""
    with contextlib.ExitStack() as stack:
        contexts = [stack.enter_context(contextlib.closing(browser.new_context())) for _ in range(TABS)]
        yield [stack.enter_context(tab(context, FRAMES)) for context in contexts]


def speak(api: httpx.Client, thread: str) -> None:
    """Start a run that says ``TOKENS`` words a second."""
    body = {"assistant_id": "speaker", "input": "speak", "stream_mode": ["messages-tuple", "updates"]}
    api.post(f"/threads/{thread}/runs", json=body).raise_for_status()


def measure_windows(name: str, tabs: list[tuple[Page, CDPSession]], work: Callable[[], None]) -> None:
    """Do ``work`` and print the frames that each page has drawn meanwhile, and the CPU of its main thread."""
    for page, _ in tabs:
        page.evaluate("window.frames_ = []")
    before = [cpu(session) for _, session in tabs]
    work()
    for number, (page, session) in enumerate(tabs):
        show_frames(f"{name}, tab {number + 1}", page.evaluate("window.frames_"))
        print(f"{'':4}main thread {(cpu(session) - before[number]) / SECONDS / 10:.0f} % of a core")


def streams(browser: Browser, url: str, api: httpx.Client) -> None:
    """Several tabs on one run that speaks fast; before, as many pages that only animate, during such a run."""
    thread, other = (api.post("/threads", json={}).json()["thread_id"] for _ in range(2))
    with windows(browser) as tabs:
        for page, _ in tabs:
            page.goto(f"{url}api/v1/health")
            page.set_content(ANIMATED)

        def animate() -> None:
            speak(api, other)
            tabs[0][0].wait_for_timeout(SECONDS * 1000)
            until_idle(api, other)

        measure_windows(f"control: pages that only animate, in {TABS} tabs", tabs, animate)
    with windows(browser) as tabs:
        for page, _ in tabs:
            page.goto(f"{url}console/threads/{thread}")
            page.wait_for_selector("text=History")

        def follow() -> None:
            speak(api, thread)
            last = f"word{TOKENS * SECONDS - 1}"
            for page, _ in tabs:
                page.wait_for_function("last => document.querySelector('.rows')?.textContent.includes(last)", arg=last)
                page.wait_for_selector(".row.ai .row-actions")

        measure_windows(f"{TOKENS:,} tokens/s in {TABS} tabs", tabs, follow)


def show(name: str, values: list[float], limit: float | None) -> None:
    wanted = "" if limit is None else f"   (wanted: at most {limit})"
    print(f"{name}: {statistics.median(values):.0f} ms, {min(values):.0f} to {max(values):.0f}{wanted}")


def show_frames(name: str, frames: list[float]) -> None:
    late = sum(frame > 2 * FRAME_MS for frame in frames)
    ordered = sorted(frames)
    p95 = ordered[int(len(ordered) * 0.95)]
    print(f"{name}: a frame each {statistics.median(frames):.1f} ms, p95 {p95:.0f} ms, {late} of {len(frames)} dropped")


def main() -> int:
    program = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if program is None:
        print("chromium is not here: install it, or name its program in CHROMIUM", file=sys.stderr)
        return 1
    kind = sys.argv[1] if len(sys.argv) > 1 else "words"
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, {kind}")
    with tempfile.TemporaryDirectory() as name, Speaker(TEXTS[kind]) as provider, postgres(Path(name)) as database:
        settings = {"OPENAI_BASE_URL": provider, "OPENAI_API_KEY": "none"}
        with server(database.url, Path(name), AGENT, **settings) as running, sync_playwright() as playwright:
            url = f"http://127.0.0.1:{running.port}/"
            browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
            with httpx.Client(base_url=base(running), timeout=60) as api:
                visits(browser, url)
                long_thread(browser, url, api)
                streams(browser, url, api)
            browser.close()
    print(f"load {os.getloadavg()[0]:.1f} at the end")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
