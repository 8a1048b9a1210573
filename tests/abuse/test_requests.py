"""No single request blocks the event loop for a tenth of a second.

One of three attempts must meet each bound, because a busy machine disturbs measurements.
"""

import base64
import functools
import random
import socket
import threading
from collections.abc import Callable, Sequence

import pytest

from app.base.offload import MAX_ANSWER_BYTES
from app.engine.queue.memory_gate import MAX_BYTES_EACH as MAX_RUN_BYTES_EACH
from app.infra.http.request_bodies import MAX_IN_FLIGHT, MAX_MESSAGES_BODY_BYTES
from tests.abuse.attacks import ARGUMENTS, FIELDS, RUNS, Attack, generated, numbers, run, run_with, with_arguments
from tests.abuse.server import MB, Answer, AttackedServer, Cost
from tests.long_form import FULL

BLOCKED = 0.1
"""Maximum seconds that the event loop may be blocked."""
LARGEST = base64.b64encode(random.Random(1).randbytes((MAX_MESSAGES_BODY_BYTES - 512) // 4 * 3))
"""The largest accepted message, incompressible."""
ATTEMPTS = 3
SLOW = pytest.mark.timeout(1_800 if FULL else 240)


def cheapest(server: AttackedServer, work: Callable[[], object]) -> Cost:
    """Return the lowest cost of ``work`` in a few attempts; stop at the first within the bound."""
    found: list[Cost] = []
    for _ in range(ATTEMPTS):
        with server.measured() as costs:
            work()
        found += costs
        if costs[0].blocked <= BLOCKED:
            break
    return min(found)


def send(server: AttackedServer, attack: Attack, key: str | None = None) -> Answer:
    answer = server.call(attack.method, attack.base + attack.path, attack.body, key)
    assert answer.status < 500, (attack.name, answer.status, answer.body[:300])
    if attack.statuses:
        assert answer.status in attack.statuses, (attack.name, answer.status, answer.body[:300])
    if answer.status >= 400:
        assert any(answer.json().get(name) for name in ("detail", "error", "message")), (attack.name, answer.body[:300])
    return answer


@SLOW
@pytest.mark.parametrize("attack", RUNS, ids=lambda attack: attack.name)
def test_an_expensive_run_does_not_block_the_event_loop(attacked_server: AttackedServer, attack: Attack) -> None:
    cost = cheapest(attacked_server, lambda: send(attacked_server, attack))
    assert cost.blocked <= BLOCKED


@SLOW
@pytest.mark.parametrize("attack", FIELDS, ids=lambda attack: attack.name)
def test_a_wide_field_does_not_block_the_event_loop(attacked_server: AttackedServer, attack: Attack) -> None:
    cost = cheapest(attacked_server, lambda: send(attacked_server, attack))
    assert cost.blocked <= BLOCKED
    assert cost.memory <= len(attack.body) + 64 * MB


@SLOW
def test_every_route_refuses_hostile_bodies_in_bounded_time_and_memory(attacked_server: AttackedServer) -> None:
    attacks = list(generated(attacked_server.document()))
    starts = {attack.path.split("/")[1] for attack in attacks}
    assert starts >= {"api", "v1", "ag-ui", "ai-sdk", "copilotkit", "a2a", "mcp"}
    chosen = attacks if FULL else attacks[::8]  # coprime to the seventeen shapes, so routes get different ones
    for attack in chosen:
        cost = cheapest(attacked_server, functools.partial(send, attacked_server, attack))
        assert cost.blocked <= BLOCKED, attack.name
        assert cost.memory <= len(attack.body) + 64 * MB, attack.name


@SLOW
def test_a_state_update_with_hostile_arguments_does_not_block_the_event_loop(attacked_server: AttackedServer) -> None:
    thread = attacked_server.request("POST", "/threads", {"metadata": {"graph_id": "echo"}}).json()["thread_id"]
    body = {"values": {"messages": with_arguments(ARGUMENTS)}, "as_node": "model"}
    answers: list[int] = []
    cost = cheapest(
        attacked_server,
        lambda: answers.append(attacked_server.request("POST", f"/threads/{thread}/state", body).status),
    )
    assert set(answers) <= {400, 422}
    assert cost.blocked <= BLOCKED


@SLOW
def test_a_search_for_values_does_not_block_the_event_loop(attacked_server: AttackedServer) -> None:
    thread = attacked_server.request("POST", "/threads", {}).json()["thread_id"]
    nested = b"[%b]" % b",".join(b'{"a":%d}' % n for n in range(20_000))
    values = b'{"a":%b,"b":%b}' % (numbers(90_000), nested)
    assert attacked_server.request("POST", f"/threads/{thread}/runs/wait", run_with(values)).status == 200
    reader = attacked_server.key("attacker", "read-only")
    for wanted in (b'{"values":{"a":%b}}' % numbers(90_000), b'{"values":{"b":%b}}' % nested):
        search = Attack("search", "POST", "/threads/search", wanted, (200, 422))
        assert cheapest(attacked_server, functools.partial(send, attacked_server, search, reader)).blocked <= BLOCKED


@SLOW
def test_a_history_of_large_states_has_bounded_pages(attacked_server: AttackedServer) -> None:
    thread = attacked_server.request("POST", "/threads", {}).json()["thread_id"]
    for _ in range(6):
        assert attacked_server.request("POST", f"/threads/{thread}/runs/wait", run(b"x" * MB)).status == 200
    sizes: list[int] = []

    def read() -> None:
        before = ""
        while True:
            answer = attacked_server.request("GET", f"/threads/{thread}/history?limit=1000{before}")
            assert answer.status == 200
            sizes.append(len(answer.body))
            if "x-pagination-next" not in answer.headers:
                break
            before = f"&before={answer.headers['x-pagination-next']}"

    cost = cheapest(attacked_server, read)
    assert len(sizes) > 1
    assert max(sizes) <= MAX_ANSWER_BYTES + MB
    assert cost.blocked <= BLOCKED


def post_all(server: AttackedServer, path: str, body: bytes, keys: Sequence[str]) -> list[Answer]:
    """POST ``body`` with each of ``keys`` concurrently; return the responses."""
    answers: list[Answer] = []
    threads = [
        threading.Thread(target=lambda key=key: answers.append(server.request("POST", path, body, key))) for key in keys
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


@SLOW
@pytest.mark.parametrize("path", ["/runs/wait", "/runs/stream"])
def test_the_largest_message_stays_within_the_bounds(attacked_server: AttackedServer, path: str) -> None:
    body = run(LARGEST)
    answers: list[Answer] = []
    cost = cheapest(attacked_server, lambda: answers.append(attacked_server.request("POST", path, body)))
    assert {answer.status for answer in answers} == {200}
    assert all(LARGEST in answer.body for answer in answers)
    assert cost.blocked <= BLOCKED
    assert cost.memory <= len(body) + 64 * MB


@SLOW
def test_concurrent_large_runs_use_bounded_memory_and_are_listed_in_bounded_pages(
    attacked_server: AttackedServer,
) -> None:
    thread = attacked_server.request("POST", "/threads", {}).json()["thread_id"]
    body = run(LARGEST[: 6 * MB])
    with attacked_server.measured() as costs:
        made = post_all(attacked_server, f"/threads/{thread}/runs", body, [attacked_server.attacker] * 3)
        made += post_all(attacked_server, "/runs", body, [attacked_server.attacker] * 2)
        for answer in made:
            assert answer.status == 200
            one = answer.json()
            joined = attacked_server.request("GET", f"/threads/{one['thread_id']}/runs/{one['run_id']}/join")
            assert LARGEST[: 6 * MB] in joined.body
    assert costs[0].memory <= MAX_RUN_BYTES_EACH * 8 + 64 * MB
    seen: list[str] = []
    offset = "0"
    while offset:
        answer = attacked_server.request("GET", f"/threads/{thread}/runs?limit=100&offset={offset}")
        assert len(answer.body) <= MAX_ANSWER_BYTES + MB
        seen += [one["run_id"] for one in answer.json()]
        offset = answer.headers.get("x-pagination-next", "")
    assert len(seen) == len(set(seen)) == 3


@SLOW
def test_concurrent_large_bodies_are_read_one_at_a_time(attacked_server: AttackedServer) -> None:
    body = b'{"assistant_id":"unknown","x":"%b"}' % LARGEST
    with attacked_server.measured() as costs:
        answers = post_all(
            attacked_server,
            "/runs",
            body,
            [attacked_server.attacker, attacked_server.attacker, attacked_server.other, attacked_server.other],
        )
    assert len(answers) == 4
    assert {answer.status for answer in answers} <= {404, 422, 429, 503}
    assert costs[0].memory <= MAX_IN_FLIGHT + 64 * MB


@SLOW
def test_a_client_that_sends_before_it_reads_gets_the_refusal(attacked_server: AttackedServer) -> None:
    body = b" " * (2 * MB)
    head = (
        f"POST /api/v1/threads/search HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Api-Key: {attacked_server.attacker}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    with socket.create_connection(("127.0.0.1", attacked_server.port), 30) as connection:
        connection.sendall(head + body)
        assert connection.recv(100).startswith(b"HTTP/1.1 413")
