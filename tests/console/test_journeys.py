"""Conversations in the console, in a real browser, against a real server."""

import base64
import functools
import re

import httpx
import pytest
from playwright.sync_api import Browser, Request, Route

from tests.console.conftest import SLOW_ANSWERS, assert_accessible, at_rest, reviewed, watching
from tests.journeys.conftest import Served
from tests.waiting import until

pytestmark = pytest.mark.timeout(240)


def test_a_visitor_talks_to_an_agent(browser: Browser, console: Served) -> None:
    with watching(browser, console) as watched:
        page = watched.open()
        watched.choose("assistant")
        assert_accessible(page)
        watched.say("What is 12*(3+4)?")
        watched.answered(2)
        assert "84" in page.inner_text(".row.ai >> nth=1")
        shown = re.search(r"(\d+) in, (\d+) out · \$(\d\.\d+)", page.inner_text(".row.ai >> nth=1"))
        assert shown is not None
        assert float(shown[3]) == pytest.approx((int(shown[1]) * 100 + int(shown[2]) * 200) / 1e6, rel=0.1)
        page.click(".call summary")
        assert '"expression": "12*(3+4)"' in page.inner_text(".call-body pre >> nth=0")
        page.wait_for_selector(".call-state >> text=/^done · [\\d.]+ m?s$/")
        page.wait_for_selector(".call summary .tag >> text=read only")
        assert "runs again" in page.inner_text(".call-note")
        thread = page.url
        assert "/console/threads/" in thread
        page.click(".row.ai >> nth=1 >> [aria-label='Show the events of its run']")
        page.wait_for_selector(".events li >> text=end")
        assert re.search(r"messages\s+\d+ chunks .*answered: 84", page.inner_text(".events"))
        page.click(".events summary >> text=updates >> nth=0")
        assert '"tool_calls"' in page.inner_text(".events pre")
        assert_accessible(page)

        # a second tab on the same thread sees what the first one says
        other = page.context.new_page()
        other.goto(thread)
        other.click(".call summary")
        other.wait_for_selector(".call-state >> text=/done · [\\d.]+ m?s/")  # from the history
        watched.say("note buy milk")
        other.wait_for_selector("text=note buy milk")
        other.wait_for_selector(".row.ai >> nth=3 >> .answer-foot >> text=out")
        assert other.locator(".call[open]").count() == 1, "what is open stays open"
        other.close()
        watched.answered(4)

        # answer again, then edit the first message: both are branches of the history
        page.hover(".row.ai >> nth=3")
        with watched.accepting():
            page.click(".row.ai >> nth=3 >> [aria-label='Answer again']")
        watched.answered(4)
        page.hover(".row.human >> nth=0")
        page.click(".row.human >> nth=0 >> [aria-label='Edit and send again']")
        page.fill(".edit textarea", "What is 2+3?")
        page.click(".edit >> text=Send")
        page.wait_for_selector(".row.ai >> text=answered: 5")
        watched.answered(2)
        page.reload()
        page.wait_for_selector(".row.ai >> nth=1")
        assert page.locator(".row.human").count() == 1

        page.click("[aria-label='Dark theme']")
        page.keyboard.press("Control+Shift+O")
        page.wait_for_selector(".welcome h1")
        assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Message"


def test_a_run_may_end_before_the_request_for_it_is_answered(browser: Browser, console: Served) -> None:
    with watching(browser, console) as watched:
        watched.page.add_init_script(SLOW_ANSWERS)
        watched.open()
        watched.choose("echo")
        for count in (1, 2, 3):
            watched.say(f"number {count}")
            watched.page.wait_for_selector(f".row.ai >> text=echo: number {count}")
            watched.page.wait_for_function("count => window.slowAnswers >= count", arg=count)
            watched.answered(count)

        # another client's message, which has its id from the server, can be answered again
        thread = watched.page.url.split("/")[-1]
        body = {"assistant_id": "echo", "input": "number 4", "stream_mode": "updates"}
        assert httpx.post(f"{console.base}/threads/{thread}/runs", json=body).is_success
        watched.answered(4)
        watched.page.hover(".row.ai >> nth=3")
        with watched.accepting():
            watched.page.click(".row.ai >> nth=3 >> [aria-label='Answer again']")
        watched.answered(4)

        # a first run that is refused, and one that is accepted when its page was left
        watched.page.click("text=New chat")
        watched.choose("survey")
        watched.say("PostgreSQL")
        watched.page.wait_for_selector(".problem:not([hidden])")
        watched.choose("echo")
        watched.say("number 5")
        watched.page.wait_for_url("**/console/threads/*")
        watched.page.click("text=New chat")
        watched.page.wait_for_selector(".welcome h1")
        count = watched.page.evaluate("window.slowAnswers")
        watched.say("number 6")
        watched.page.click("a.nav >> text=Inbox")
        watched.page.wait_for_function("count => window.slowAnswers > count", arg=count)
        watched.page.wait_for_selector(".threads >> text=number 6")
        assert watched.page.url.endswith("/console/inbox")
        watched.complaints.clear()  # what the browser says of the refusal


def test_a_page_that_was_left_does_nothing(browser: Browser, console: Served) -> None:
    with watching(browser, console) as watched:
        page = watched.page
        page.clock.install()
        held: list[Route] = []

        def hold(route: Route) -> None:
            held.append(route)

        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url.partition("/api/v1")[2].partition("?")[0]))
        for pattern in ("/pages/usage.js$", "/api/v1/(health|documents|runs/search)([?]|$)"):
            page.route(re.compile(pattern), hold)
        streams: set[Request] = set()

        def begun(request: Request) -> None:
            if request.url.endswith("/stream"):
                streams.add(request)

        def ended(request: Request) -> None:
            streams.discard(request)

        page.on("request", begun)
        page.on("requestfailed", ended)
        thread = httpx.post(f"{console.base}/threads", json={}).json()["thread_id"]
        with page.expect_request(f"**/{thread}/stream"):
            watched.open(f"console/threads/{thread}")
        page.wait_for_selector("text=History")
        assert len(streams) == 1

        # a module that comes late replaces no page: the conversation is closed when it is left
        with page.expect_request("**/pages/usage.js"):
            page.click("a.nav >> text=Usage")
        with page.expect_request(f"**/{thread}/stream"):
            page.click(".thread >> nth=0")
        with page.expect_response("**/pages/usage.js"):
            held.pop().continue_()
        page.evaluate("() => 0")
        with page.expect_event("requestfailed", lambda request: request.url.endswith(f"/{thread}/stream")):
            page.click("a.nav >> text=Inbox")
        assert streams == set()

        # a page whose first answer comes after it was left asks nothing more
        for name, path in {"Runs": "/runs/search", "Documents": "/documents", "Health": "/health"}.items():
            with page.expect_request(f"**/api/v1{path}*"):
                page.click(f"a.nav >> text={name}")
            page.click("a.nav >> text=Inbox")
            page.wait_for_selector("main h1 >> text=Inbox")
            with page.expect_response(f"**/api/v1{path}*"):
                held.pop().continue_()
            page.evaluate("() => 0")
        page.unroute_all()
        asked.clear()
        page.clock.run_for(20_000)
        page.wait_for_function("() => true")
        assert asked
        assert {"/runs/search", "/documents", "/health"}.isdisjoint(asked)


def test_a_busy_server_is_not_a_lost_one(browser: Browser, console: Served) -> None:
    with watching(browser, console) as watched:
        page = watched.page
        probes: list[str] = []
        refused: list[Route] = []
        page.on("request", lambda request: probes.append(request.url) if "health/ready" in request.url else None)

        def refuse(route: Route) -> None:
            refused.append(route)
            if len(refused) < 3:
                route.fulfill(status=429, headers={"Retry-After": "1"}, json={"detail": "Too many streams are open."})
            else:
                route.continue_()

        thread = httpx.post(f"{console.base}/threads", json={}).json()["thread_id"]
        page.route(f"**/{thread}/stream", refuse)
        watched.open(f"console/threads/{thread}")
        watched.say("Hello")
        watched.answered()
        assert len(refused) == 3
        assert probes == []

        away = {"detail": "The database is unreachable. Try again later."}
        page.route("**/documents?*", lambda route: route.fulfill(status=503, headers={"Retry-After": "1"}, json=away))
        page.click("a.nav >> text=Documents")
        page.wait_for_selector("text=The database is unreachable.")
        watched.complaints.clear()  # what the browser says of answers that are errors
        # an origin that is not secure has no clipboard of its own
        page.add_init_script("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
        page.goto(f"{watched.url}console/call")
        page.click("[aria-label='Copy code']")
        page.focus("[aria-label='Find a thread']")
        page.keyboard.press("Control+V")
        assert "curl" in page.input_value("[aria-label='Find a thread']")


def test_a_person_answers_from_the_inbox_and_in_the_chat(browser: Browser, console: Served) -> None:
    with watching(browser, console) as watched:
        page = watched.open()
        watched.choose("refunds")
        watched.say("call refund order=17 reason=late call refund order=18 call book place=Rossi")
        page.wait_for_selector(".question >> nth=2")
        page.wait_for_selector(".badge:not([hidden])")
        assert_accessible(page)
        first = page.locator(".question", has_text="refund").first
        assert '"order": 17' in first.locator("textarea").input_value()
        first.locator("textarea").fill('{"order": 170')
        first.locator("text=Approve with these arguments").click()
        assert "JSON" in first.locator(".problem").first.inner_text()
        first.locator("textarea").fill('{"order": 170}')
        first.locator("text=Approve with these arguments").click()
        page.wait_for_function("() => document.querySelectorAll('.question').length === 2")

        page.click("a.nav >> text=Inbox")
        page.wait_for_selector(".inbox-item .question >> nth=1")
        assert_accessible(page)
        page.fill(".question input[type=text]", "too old")
        page.click(".question >> text=Reject")
        page.wait_for_function("() => document.querySelectorAll('.question').length === 1")
        page.fill(".question textarea", "tomorrow at eight")
        page.click(".question >> button:text-is('Answer')")
        page.wait_for_selector("text=Nothing waits")
        page.click(".thread >> nth=0")
        watched.answered(2)
        assert page.locator(".call:has-text('refund') summary .tag.of-unsafe").count() == 2
        answer = page.inner_text(".row.ai >> nth=-1")
        assert "Order 170 is refunded" in answer
        assert "too old" in answer
        assert "A table at Rossi is booked for tomorrow at eight" in answer

        # an agent with an input of its own, whose questions have types
        page.click("text=New chat")
        watched.choose("survey")
        page.fill(".schema-form textarea", "PostgreSQL")
        page.click(".schema-form >> button:text-is('Start')")
        page.click(".question >> text=Yes")
        page.wait_for_selector(".question >> text=How good is it?")
        page.fill(".question input[type=number]", "5")
        page.fill(".question textarea", "it lasts")
        page.click(".question >> button:text-is('Answer')")
        page.wait_for_selector("text=PostgreSQL: 5 stars, it lasts.")


def test_a_call_of_unknown_outcome_gets_one_of_four_answers(browser: Browser, console: Served) -> None:
    """A fork from before an executed call asks what became of it, as the death of its process does."""
    with httpx.Client(base_url=console.base, timeout=60) as http, watching(browser, console) as watched:
        answers = {"Run it again": "", "It was done": "paid", "It failed": "no money", "End the run": ""}
        threads = {label: reviewed(http, number) for number, label in enumerate(answers)}
        page = watched.open("console/inbox")
        for number, (label, result) in enumerate(answers.items()):
            card = page.locator(".question", has_text=f'"order": {number + 90}')
            card.locator("text=Did this call happen?").wait_for()
            assert "unsafe" in card.inner_text()
            card.locator("textarea").fill(result)
            if not number:
                assert_accessible(page)
            with watched.accepting():
                card.locator(f"button:text-is('{label}')").click()
            card.wait_for(state="detached")
            until(functools.partial(at_rest, http, threads[label]))
        found = {
            label: http.get(f"/threads/{thread}/state").json()["values"]["messages"]
            for label, thread in threads.items()
        }
        results = {
            label: [one["content"] for one in messages if one["type"] == "tool"] for label, messages in found.items()
        }
        assert results["Run it again"] == ["Order 90 is refunded."]
        assert results["It was done"] == ["paid"]
        assert "no money" in results["It failed"][0]
        assert results["End the run"] == []


def test_hostile_content_does_nothing(browser: Browser, console: Served) -> None:
    with watching(browser, console) as watched:
        page = watched.open()
        watched.choose("refunds")
        watched.say("<img src=x onerror='window.hacked=8'> call fetch_page")
        watched.answered(2)
        page.click(".call summary")
        page.wait_for_selector(".call-body pre >> nth=1")
        assert page.evaluate("window.hacked") is None
        assert "<script>" in page.inner_text(".call-body")
        answer = page.locator(".row.ai .markdown").last
        assert answer.locator("script, iframe, svg:not(.icon), style, form, [onerror], [onload], .banner").count() == 0
        hrefs = answer.locator("a").evaluate_all("links => links.map(link => link.getAttribute('href'))")
        assert all(href is None or href.startswith("https://evil.example/") for href in hrefs)
        assert page.inner_text(".bubble").startswith("<img src=x")
        assert page.evaluate("getComputedStyle(document.body).display") != "none"
        assert page.title().startswith("Chat")
        thread = httpx.post(f"{console.base}/threads", json={}).json()["thread_id"]
        body = {"assistant_id": "echo", "input": "<b>x</b>" * 640_000}  # 5 MB
        assert httpx.post(f"{console.base}/threads/{thread}/runs/wait", json=body, timeout=60).status_code == 200
        watched.open(f"console/threads/{thread}")
        page.wait_for_selector(".row.ai >> text=characters left")
        assert page.locator(".row b").count() == 0
        watched.complaints = [text for text in watched.complaints if "has been blocked" not in text]


def test_hostile_names_do_nothing_on_any_page(browser: Browser, console: Served) -> None:
    name = "<img src=x onerror='window.hacked=9'><b>bold</b> \u202eltr\u200b"
    with httpx.Client(base_url=console.base, timeout=60) as http, watching(browser, console) as watched:
        agent = {"graph_id": "echo", "name": name, "description": name, "metadata": {"note": name}}
        made = http.post("/assistants", json=agent).raise_for_status().json()["assistant_id"]
        thread = http.post("/threads", json={"metadata": {"title": name}}).json()["thread_id"]
        run = {"assistant_id": made, "input": name, "metadata": {"user": name}}
        http.post(f"/threads/{thread}/runs/wait", json=run).raise_for_status()
        item = {"namespace": ["<i>people</i>"], "key": name, "value": {name: name}}
        http.put("/store/items", json=item).raise_for_status()
        sent = {"file": ("<b>tea<b>.txt", name.encode(), "text/plain")}
        document = http.post("/documents", files=sent).raise_for_status().json()["document_id"]
        cron = {"assistant_id": made, "schedule": "0 9 1 1 *", "input": name}
        cron_id = http.post("/runs/crons", json=cron).raise_for_status().json()["cron_id"]
        asked = http.post("/threads", json={"metadata": {"title": name}}).json()["thread_id"]
        body = {"assistant_id": "refunds", "input": f"call refund order=1 reason={name.split()[1]}<b>x</b>"}
        http.post(f"/threads/{asked}/runs/wait", json=body).raise_for_status()
        for path, words in {
            f"threads/{thread}": "<b>bold</b>",
            f"threads/{thread}/history": "<b>bold</b>",
            "runs": "<b>bold</b>",
            "inbox": "<b>bold</b>",
            "agents": "<b>bold</b>",
            f"agents/{made}": "<b>bold</b>",
            "store": "<i>people</i>",
            "documents": "<b>tea<b>",
            f"documents/{document}": "<b>bold</b>",
            "crons": "<b>bold</b>",
            "usage": "",
        }.items():
            page = watched.open(f"console/{path}")
            page.wait_for_selector("main h1, main .row.ai")
            page.wait_for_function("words => document.querySelector('#app').innerText.includes(words)", arg=words)
            assert page.locator("#app img, #app b:text-is('bold'):not(.markdown *)").count() == 0, path
            assert page.evaluate("window.hacked") is None, path
        http.delete(f"/runs/crons/{cron_id}").raise_for_status()
        http.delete(f"/assistants/{made}").raise_for_status()


def test_files_go_up_and_come_down(browser: Browser, console: Served) -> None:
    image = base64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    )
    report = base64.b64encode(b"a,b\n1,2\n").decode()
    with watching(browser, console) as watched:
        page = watched.open()
        watched.choose("echo")
        files = [
            {"name": "dot.png", "mimeType": "image/png", "buffer": image},
            {"name": "<b>note</b>.md", "mimeType": "text/markdown", "buffer": b"Green tea"},
            {"name": "program.bin", "mimeType": "application/octet-stream", "buffer": b"\x00"},
        ]
        page.set_input_files("[aria-label='Files to attach']", files)  # type: ignore[arg-type]
        page.wait_for_selector(".composer .problem >> text=neither an image nor text")
        assert page.locator(".chip").count() == 2
        watched.say("What is this?")
        watched.answered()
        assert "<b>note</b>.md" in page.inner_text(".bubble")
        page.reload()
        page.wait_for_function("() => document.querySelector('.bubble img.picture')?.naturalWidth === 1")
        with page.expect_download() as found:
            page.click(".bubble >> text=Download")
        assert found.value.path().read_bytes() == image

        # what another client has stored
        block = {"type": "file", "name": "report.csv", "mime_type": "text/csv", "base64": report}
        thread = page.url.split("/")[-1]
        values = {"messages": [{"type": "human", "content": [block]}]}
        body = {"values": values, "as_node": "__start__"}
        httpx.post(f"{console.base}/threads/{thread}/state", json=body).raise_for_status()
        page.reload()
        with page.expect_download() as found:
            page.click("[aria-label='Download report.csv']")
        assert found.value.suggested_filename == "report.csv"
        assert found.value.path().read_bytes() == b"a,b\n1,2\n"


def test_reasoning_is_shown_and_a_thread_is_copied(browser: Browser, console: Served) -> None:
    with watching(browser, console) as watched:
        thread = httpx.post(f"{console.base}/threads", json={"metadata": {"graph_id": "echo"}}).json()["thread_id"]
        thought = {"reasoning_content": "Tea is a plant."}
        messages = [
            {"type": "human", "content": "What is tea?"},
            {"type": "ai", "content": "A drink.", "additional_kwargs": thought},
        ]
        values = {"messages": [*messages, {"type": "human", "content": "Really?"}]}
        httpx.post(
            f"{console.base}/threads/{thread}/state", json={"values": values, "as_node": "__start__"}
        ).raise_for_status()
        page = watched.open(f"console/threads/{thread}")
        page.click("summary >> text=Reasoning")
        assert page.inner_text(".thought .plain") == "Tea is a plant."
        page.hover(".row.ai")
        page.click("[aria-label='Copy the thread up to here']")
        page.wait_for_function("thread => !location.href.endsWith(thread)", arg=thread)
        page.wait_for_selector(".row.ai >> text=A drink.")


def test_a_run_is_stopped_and_a_lost_server_loses_nothing(browser: Browser, console: Served) -> None:
    with watching(browser, console, color_scheme="dark") as watched:
        page = watched.open()
        watched.choose("refunds")
        watched.say("call wait seconds=60")
        page.click("[aria-label='Stop the run']")
        page.wait_for_selector(".live", state="hidden")

        watched.say("call wait seconds=3")
        page.wait_for_selector(".call-state.running")
        page.context.set_offline(True)
        page.fill(".composer textarea", "What now?")
        page.keyboard.press("Enter")
        page.wait_for_selector(".banner:not([hidden])")
        assert_accessible(page)
        page.context.set_offline(False)
        page.wait_for_selector(".banner", state="hidden")
        page.wait_for_selector(".bubble >> text=What now?")
        page.wait_for_selector(".row.ai >> text=tool wait answered: done")
        assert page.input_value(".composer textarea") == ""
        page.wait_for_selector(".live", state="hidden")
        # the history of a run that goes on
        watched.say("call wait seconds=2")
        page.wait_for_selector(".call-state.running")
        page.click("text=History")
        page.wait_for_selector(".run >> nth=0 >> .status.running")
        page.wait_for_selector(".graph .node.lit text >> text=tools")
        page.wait_for_selector(".run >> nth=0 >> .status.success")
        assert "tools" in page.inner_text(".waterfall >> nth=0")
        watched.complaints.clear()  # what the browser says of requests that failed


def test_a_thread_goes_on_from_its_history(browser: Browser, console: Served) -> None:
    with watching(browser, console) as watched:
        thread = httpx.post(f"{console.base}/threads", json={}).json()["thread_id"]
        body = {"assistant_id": "assistant", "input": "What is 2+3?"}
        assert httpx.post(f"{console.base}/threads/{thread}/runs/wait", json=body, timeout=60).status_code == 200
        page = watched.open(f"console/threads/{thread}/history")
        page.wait_for_selector(".graph")
        assert page.locator(".bar").count() >= 3
        assert "answered: 5" in page.inner_text(".diff")
        assert re.search(r"input\s+\d+ m?s\s+agent\s+\d+ m?s\s+tools", page.inner_text(".waterfall"))
        page.click(".checkpoint >> text=input >> nth=0")
        page.click("text=Go on from here")
        with watched.accepting():
            page.click("button:text-is('Go on')")
        page.wait_for_url(f"**/console/threads/{thread}")
        page.wait_for_selector(".row.human")
        watched.answered(2)

        # once more from a state that was edited, and the runs and two checkpoints side by side
        page.click("text=History")
        page.click(".checkpoint >> nth=0")
        page.click("text=Go on from here")
        page.fill("[aria-label='Values to write']", '{"messages": [{"role": "user", "content": "What is 4+5?"}]}')
        page.fill("[aria-label='As node']", "__start__")
        page.click("button:text-is('Go on')")
        page.wait_for_selector(".row.ai >> text=answered: 9")
        watched.answered(4)
        page.click("text=History")
        page.click(".run-events summary >> nth=0")
        page.wait_for_selector(".events li >> text=end")
        page.select_option("[aria-label='Compare with']", index=3)
        assert "answered: 9" in page.inner_text(".compared")
        page.click("text=Compare with the run before")
        page.wait_for_selector(".sides .steps >> nth=1")
        assert "answered: 9" in page.inner_text(".compared")
