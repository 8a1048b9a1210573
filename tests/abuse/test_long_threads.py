"""No request to a thread of 25,000 messages blocks the event loop, whichever protocol it speaks."""

import base64
import functools
import random
from collections.abc import Iterator
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import pytest

from tests.abuse.attacks import AGENTS, filled, routes
from tests.abuse.server import AttackedServer, Cost
from tests.abuse.test_requests import BLOCKED, SLOW, cheapest
from tests.long_form import FULL

MESSAGES = 25_000
EACH = 2_500
SIZE = 4_800_000
COPIED = {"/ag-ui/echo": 0.4}
"""Routes whose snapshot of 50 MB is copied whole into a frame, and the seconds that this may block the loop."""


class LongThread(NamedTuple):
    """A thread, its id as a conversation, its last response and one of its runs."""

    thread_id: str
    conversation: str
    response_id: str
    run_id: str


class Call(NamedTuple):
    method: str
    path: str
    body: Any = None


def spoken(number: int) -> dict[str, str]:
    return {"role": ("user", "assistant")[number % 2], "content": f"{number} {'x' * 80}"}


@pytest.fixture(scope="module")
def long_thread(attacked_server: AttackedServer) -> LongThread:
    steps = [
        {"values": {"messages": [spoken(n) for n in range(start, start + EACH)]}, "as_node": "__end__"}
        for start in range(0, MESSAGES, EACH)
    ]
    body = {"metadata": {"graph_id": "echo"}, "supersteps": [{"updates": [step]} for step in steps]}
    made = attacked_server.request("POST", "/threads", body)
    assert made.status == 200, made.body[:300]
    thread = made.json()["thread_id"]
    conversation = f"conv_{UUID(thread).hex}"
    body = {"model": "echo", "input": "hello", "conversation": conversation}
    response = attacked_server.call("POST", "/v1/responses", body)
    assert response.status == 200, response.body[:300]
    runs = attacked_server.request("GET", f"/threads/{thread}/runs").json()
    return LongThread(thread, conversation, response.json()["id"], runs[0]["run_id"])


RUN = {"assistant_id": "echo", "input": {"messages": "one more"}}
AGENT_SERVER: list[tuple[str, str, Any]] = [
    ("GET", "/history?limit=2", None),
    ("PATCH", "", {"metadata": {"a": 1}}),
    ("POST", "/copy", None),
    ("POST", "/state", {"values": {"messages": "one more"}, "as_node": "__end__"}),
    ("POST", "/runs/wait", RUN),
    ("POST", "/runs/stream", {**RUN, "stream_mode": ["values", "updates", "messages-tuple"]}),
    ("POST", "/commands", {"id": 1, "method": "state.get", "params": {"keys": ["messages"]}}),
    ("POST", "/commands", {"id": 1, "method": "state.listCheckpoints", "params": {"limit": 3}}),
    ("POST", "/commands", {"id": 1, "method": "run.start", "params": RUN}),
]
"""Requests below a thread."""
CONVERSATION: list[tuple[str, str, Any]] = [
    ("GET", "/items?limit=100&order=asc", None),
    ("POST", "/items", {"items": [{"role": "user", "content": "one more"}]}),
    ("DELETE", "/items/msg_unknown", None),
]
"""Requests below a conversation."""


FOLLOWED = ("/threads/{thread_id}/stream", "/mcp")
"""Streams that last."""


def reads(long: LongThread, document: dict[str, Any]) -> Iterator[Call]:
    """Yield every GET route of the document, for the thread where it names one."""
    known = {
        "thread_id": long.thread_id,
        "run_id": long.run_id,
        "conversation_id": long.conversation,
        "response_id": long.response_id,
        "task_id": long.run_id,
        "chat_id": long.thread_id,
        "item_id": "msg_unknown",
        **AGENTS,
    }
    for method, template, _ in routes(document):
        if method == "GET" and not template.endswith(FOLLOWED):
            yield Call("GET", filled(template, known))


def calls(long: LongThread) -> Iterator[Call]:
    """Yield a request for each way to search or to continue the thread."""
    for method, path, body in AGENT_SERVER if FULL else AGENT_SERVER[::4]:
        yield Call(method, f"/api/v1/threads/{long.thread_id}{path}", body)
    yield Call("POST", "/api/v1/threads/search", {"ids": [long.thread_id]})
    for method, path, body in CONVERSATION:
        yield Call(method, f"/v1/conversations/{long.conversation}{path}", body)
    continued = {"model": "echo", "input": "hello", "previous_response_id": long.response_id}
    for path in ("/input_tokens", "/compact", ""):
        yield Call("POST", f"/v1/responses{path}", continued)
    yield Call("POST", "/v1/responses", {**continued, "store": False})
    said = {"model": "echo", "input": "hello", "conversation": long.conversation}
    yield Call("POST", "/v1/responses", {**said, "stream": True})
    message = {"id": str(uuid4()), "role": "user", "content": "hello"}
    state = {"threadId": long.thread_id, "runId": str(uuid4()), "state": {}, "tools": [], "context": []}
    yield Call("POST", "/ag-ui/echo", {**state, "messages": [message], "forwardedProps": {}})
    yield Call("POST", "/copilotkit/agent/echo/connect", {**state, "messages": [], "forwardedProps": {}})
    ui = {"id": "m1", "role": "user", "parts": [{"type": "text", "text": "hello"}]}
    yield Call("POST", "/ai-sdk/echo/chat", {"id": long.thread_id, "messages": [ui], "trigger": "submit-message"})
    yield Call("GET", f"/a2a/echo/tasks?contextId={long.thread_id}&historyLength=100")
    send = {"messageId": str(uuid4()), "role": "ROLE_USER", "parts": [{"text": "hello"}], "contextId": long.thread_id}
    yield Call("POST", "/a2a/echo/message:send", {"message": send})


def answered(server: AttackedServer, call: Call) -> None:
    answer = server.call(call.method, call.path, call.body)
    assert answer.status < 500, (call, answer.body[:300])


@SLOW
def test_no_route_blocks_the_event_loop_for_a_long_thread(
    attacked_server: AttackedServer, long_thread: LongThread
) -> None:
    too_long: dict[str, Cost] = {}
    read = list(reads(long_thread, attacked_server.document()))
    assert len(read) > 40
    for call in [*(read if FULL else read[::5]), *calls(long_thread)]:
        cost = cheapest(attacked_server, functools.partial(answered, attacked_server, call))
        if cost.blocked > BLOCKED:
            too_long[str(call)[:200]] = cost
    assert too_long == {}


@pytest.fixture(scope="module")
def large_thread(attacked_server: AttackedServer) -> LongThread:
    """A thread of 50 MB of text that does not compress, in eight messages."""
    made = attacked_server.request("POST", "/threads", {"metadata": {"graph_id": "echo"}}).json()
    text = base64.b64encode(random.Random(2).randbytes(SIZE)).decode()
    for _ in range(8):
        body = {"values": {"messages": [{"role": "user", "content": text}]}, "as_node": "__end__"}
        assert attacked_server.request("POST", f"/threads/{made['thread_id']}/state", body).status == 200
    return LongThread(made["thread_id"], f"conv_{UUID(made['thread_id']).hex}", f"resp_{uuid4().hex}", str(uuid4()))


@SLOW
@pytest.mark.skipif(not FULL, reason="long form")
def test_no_route_blocks_the_event_loop_for_a_large_thread(
    attacked_server: AttackedServer, large_thread: LongThread
) -> None:
    too_long: dict[str, Cost] = {}
    for call in [*reads(large_thread, attacked_server.document()), *calls(large_thread)]:
        cost = cheapest(attacked_server, functools.partial(answered, attacked_server, call))
        if cost.blocked > COPIED.get(call.path, BLOCKED):
            too_long[str(call)[:200]] = cost
    assert too_long == {}
