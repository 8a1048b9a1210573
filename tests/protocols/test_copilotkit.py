"""CopilotKit's runtime wire against a real server."""

import contextlib
import json
import threading
import uuid
from typing import Any

import httpx
import pytest

from tests.journeys.conftest import Served, contents, steered
from tests.protocols.ag_ui_streams import Events, checked, post, run_input, text_of, types_of, user
from tests.waiting import until

__all__ = ["steered"]

SUM = "what is 12*(3+4)?"


@pytest.fixture
def runtime(steered: Served) -> str:
    return f"http://127.0.0.1:{steered.port}/copilotkit"


def without_version(body: dict[str, Any]) -> dict[str, Any]:
    """Return a request as CopilotKit's client sends it, which is older than 1.0."""
    return {name: value for name, value in body.items() if name != "protocolVersion"}


def test_the_runtime_describes_its_agents(runtime: str) -> None:
    info = httpx.get(f"{runtime}/info", timeout=30).json()
    assert info["mode"] == "sse"
    assert info["agents"]["careful"]["capabilities"]["humanInTheLoop"]["interrupts"] is True
    assert httpx.post(runtime, json={"method": "info"}, timeout=30).json() == info


def test_a_thread_is_replayed_elsewhere_with_its_open_interrupt(runtime: str, steered: Served) -> None:
    thread = str(uuid.uuid4())
    body = without_version(run_input(thread, user(SUM)))
    asked = post(f"{runtime}/agent/careful/run", body)
    (interrupt,) = checked(asked.content)[-1]["outcome"]["interrupts"]
    connect = f"{runtime}/agent/careful/connect"
    replayed = checked(post(connect, without_version(run_input(thread))).content)
    assert types_of(replayed) == ["RUN_STARTED", "STATE_SNAPSHOT", "MESSAGES_SNAPSHOT", "RUN_FINISHED"]
    assert replayed[0]["runId"] == body["runId"]
    assert replayed[-1]["outcome"]["interrupts"][0]["id"] == interrupt["id"]
    single = {"method": "agent/connect", "params": {"agentId": "careful"}, "body": run_input(thread)}
    assert types_of(checked(post(runtime, single).content)) == types_of(replayed)

    # answered there, and the stream continues after the last event of the first run
    last_seen = [line[4:] for line in asked.text.split("\n") if line.startswith("id: ")][-1]
    approval = {"interruptId": interrupt["id"], "status": "resolved", "payload": {"approved": True}}
    resume = without_version(run_input(thread, resume=[approval]))
    answered = post(f"{runtime}/agent/careful/run", resume)
    later = post(connect, {**without_version(run_input(thread)), "lastSeenEventId": last_seen})
    assert later.content == answered.content
    first_seen = next(line[4:] for line in asked.text.split("\n") if line.startswith("id: "))
    both = post(connect, {**without_version(run_input(thread)), "lastSeenEventId": first_seen})
    assert both.content == asked.content.partition(b"\n\n")[2] + answered.content  # as it was, though now answered
    assert "84" in text_of(checked(answered.content))
    whole = checked(post(connect, run_input(thread)).content)
    messages = next(event for event in whole if event["type"] == "MESSAGES_SNAPSHOT")["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "assistant"]
    assert post(connect, run_input(f"new {thread}")).content == b""
    wrong = httpx.post(connect, json={**run_input(thread), "lastSeenEventId": "x"}, timeout=30)
    assert (wrong.status_code, wrong.json()["error"]) == (422, "invalid_input")


class Reader:
    """A client that reads a stream in a thread of its own."""

    def __init__(self, url: str, body: dict[str, Any]) -> None:
        self.events: Events = []
        self._url, self._body = url, body
        self._client = httpx.Client(timeout=60)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with contextlib.suppress(httpx.HTTPError), self._client.stream("POST", self._url, json=self._body) as answer:
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    self.events.append(json.loads(line[6:]))

    def count(self, kind: str) -> int:
        return [event["type"] for event in self.events].count(kind)

    def close(self) -> None:
        self._client.close()
        self._thread.join(5)


def test_a_connected_client_follows_runs_that_others_start(runtime: str, steered: Served) -> None:
    thread = str(uuid.uuid4())
    post(f"{runtime}/agent/echo/run", run_input(thread, user("one")))
    reader = Reader(f"{runtime}/agent/echo/connect", run_input(thread, forwardedProps={"follow": True}))
    try:
        until(lambda: reader.count("RUN_FINISHED") == 1)
        started = {"assistant_id": "echo", "input": {"messages": [{"role": "user", "content": "two"}]}}
        other = httpx.post(f"{steered.base}/threads/{thread}/runs/wait", json=started, timeout=30)
        until(lambda: reader.count("RUN_FINISHED") == 2)
    finally:
        reader.close()
    second = reader.events[4:]
    assert [event["threadId"] for event in second if event["type"] == "RUN_STARTED"] == [thread]
    assert text_of(second) == contents(other.json())[-1]


def test_a_client_without_a_run_that_is_left_gets_what_the_thread_has(runtime: str, steered: Served) -> None:
    thread = httpx.post(f"{steered.base}/threads", json={}, timeout=30).json()["thread_id"]
    connect = f"{runtime}/agent/echo/connect"
    empty = post(connect, run_input(thread)).text
    seen = [line[4:] for line in empty.split("\n") if line.startswith("id: ")][-1]
    first = post(f"{runtime}/agent/echo/run", run_input(thread, user("one")))
    assert text_of(checked(first.content)) == "echo: one"
    found = post(connect, {**run_input(thread), "lastSeenEventId": seen})
    assert found.content == post(connect, run_input(thread)).content
    assert "echo: one" in found.text
    last = [line[4:] for line in first.text.split("\n") if line.startswith("id: ")][-1]
    post(f"{runtime}/agent/echo/run", run_input(thread, user("two")))
    run_id = first.headers["x-run-id"]
    assert httpx.delete(f"{steered.base}/threads/{thread}/runs/{run_id}", timeout=30).status_code == 204
    assert "echo: two" in post(connect, {**run_input(thread), "lastSeenEventId": last}).text


def test_a_run_in_progress_is_stopped_by_its_thread(runtime: str) -> None:
    thread = f"chat {uuid.uuid4()}"
    stop = f"{runtime}/agent/slow/stop/{thread}"
    assert httpx.post(stop, timeout=30).json()["stopped"] is False
    body = run_input(thread, user("call clock"))
    reader = Reader(f"{runtime}/agent/slow/run", body)
    try:
        until(lambda: reader.count("TOOL_CALL_END") == 1)
        assert httpx.post(stop, json={"runId": "another"}, timeout=30).json()["stopped"] is False
        stopped = httpx.post(stop, json={"runId": body["runId"]}, timeout=30).json()
        assert (stopped["stopped"], stopped["interrupt"]["code"]) == (True, "STOPPED")
        until(lambda: reader.count("RUN_FINISHED") == 1)
    finally:
        reader.close()
    assert reader.events[-1]["outcome"] == {"type": "cancelled"}
    call = {"method": "agent/stop", "params": {"agentId": "slow", "threadId": thread}}
    assert httpx.post(runtime, json=call, timeout=30).json()["stopped"] is False


@pytest.mark.parametrize("path", ["agent/nope/run", "agent/nope/connect", "agent/nope/stop/t"])
def test_errors_have_the_shape_of_the_runtime(runtime: str, path: str) -> None:
    answer = httpx.post(f"{runtime}/{path}", json=run_input("t", user("hello")), timeout=30)
    assert (answer.status_code, answer.json()["error"]) == (404, "not_found")


def test_a_call_of_the_single_route_names_its_agent(runtime: str) -> None:
    answer = httpx.post(runtime, json={"method": "agent/run", "body": run_input("t")}, timeout=30)
    assert (answer.status_code, "agentId" in answer.json()["message"]) == (422, True)
    assert httpx.post(runtime, json={"method": "threads/list"}, timeout=30).status_code == 422
