"""No single request keeps the event loop for a tenth of a second, whatever it is made of.

Each bound is held by one of three attempts: on a busy machine a measurement may be disturbed.
"""

import functools
import threading
from collections.abc import Callable

import pytest

from app.base.bulk import MAX_ANSWER_BYTES
from tests.abuse.attacks import ARGUMENTS, FIELDS, RUNS, Attack, generated, numbers, run, run_with, with_arguments
from tests.abuse.conftest import FULL
from tests.abuse.server import MB, Answer, Attacked, Cost

BLOCKED = 0.1
"""Seconds."""
ATTEMPTS = 3
SLOW = pytest.mark.timeout(240)


def cheapest(server: Attacked, work: Callable[[], object]) -> Cost:
    """What ``work`` costs, at the best of a few attempts; one that is good enough is enough."""
    found: list[Cost] = []
    for _ in range(ATTEMPTS):
        with server.measured() as costs:
            work()
        found += costs
        if costs[0].blocked <= BLOCKED:
            break
    return min(found)


def sent(server: Attacked, attack: Attack, key: str | None = None) -> Answer:
    answer = server.ask(attack.method, attack.path, attack.body, key)
    assert answer.status < 500, (attack.name, answer.status, answer.body[:300])
    if attack.statuses:
        assert answer.status in attack.statuses, (attack.name, answer.status, answer.body[:300])
    if answer.status >= 400:
        assert answer.json()["detail"], attack.name
    return answer


@SLOW
@pytest.mark.parametrize("attack", RUNS, ids=lambda attack: attack.name)
def test_a_run_made_to_be_expensive_blocks_nothing(attacked: Attacked, attack: Attack) -> None:
    cost = cheapest(attacked, lambda: sent(attacked, attack))
    assert cost.blocked <= BLOCKED


@SLOW
@pytest.mark.parametrize("attack", FIELDS, ids=lambda attack: attack.name)
def test_a_field_as_wide_as_a_body_blocks_nothing(attacked: Attacked, attack: Attack) -> None:
    cost = cheapest(attacked, lambda: sent(attacked, attack))
    assert cost.blocked <= BLOCKED
    assert cost.memory <= len(attack.body) + 64 * MB


@SLOW
def test_every_route_refuses_hostile_bodies_in_bounded_time_and_memory(attacked: Attacked) -> None:
    attacks = list(generated(attacked.document()))
    assert len({(attack.method, attack.path) for attack in attacks}) > 25
    chosen = attacks if FULL else attacks[::3]  # of seventeen shapes, so each route has other ones
    for attack in chosen:
        cost = cheapest(attacked, functools.partial(sent, attacked, attack))
        assert cost.blocked <= BLOCKED, attack.name
        assert cost.memory <= len(attack.body) + 64 * MB, attack.name


@SLOW
def test_a_state_update_with_hostile_arguments_blocks_nothing(attacked: Attacked) -> None:
    thread = attacked.ask("POST", "/threads", {"metadata": {"graph_id": "echo"}}).json()["thread_id"]
    body = {"values": {"messages": with_arguments(ARGUMENTS)}, "as_node": "model"}
    answers: list[int] = []
    cost = cheapest(attacked, lambda: answers.append(attacked.ask("POST", f"/threads/{thread}/state", body).status))
    assert set(answers) <= {400, 422}
    assert cost.blocked <= BLOCKED


@SLOW
def test_a_search_for_values_blocks_nothing(attacked: Attacked) -> None:
    thread = attacked.ask("POST", "/threads", {}).json()["thread_id"]
    nested = b"[%b]" % b",".join(b'{"a":%d}' % n for n in range(20_000))
    values = b'{"a":%b,"b":%b}' % (numbers(90_000), nested)
    assert attacked.ask("POST", f"/threads/{thread}/runs/wait", run_with(values)).status == 200
    reader = attacked.key("attacker", "read-only")
    for wanted in (b'{"values":{"a":%b}}' % numbers(90_000), b'{"values":{"b":%b}}' % nested):
        search = Attack("search", "POST", "/threads/search", wanted, (200, 422))
        assert cheapest(attacked, functools.partial(sent, attacked, search, reader)).blocked <= BLOCKED


@SLOW
def test_a_history_of_large_states_is_answered_in_bounded_pages(attacked: Attacked) -> None:
    thread = attacked.ask("POST", "/threads", {}).json()["thread_id"]
    for _ in range(6):
        assert attacked.ask("POST", f"/threads/{thread}/runs/wait", run(b"x" * MB)).status == 200
    sizes: list[int] = []

    def read() -> None:
        before = ""
        while True:
            answer = attacked.ask("GET", f"/threads/{thread}/history?limit=1000{before}")
            assert answer.status == 200
            sizes.append(len(answer.body))
            if "x-pagination-next" not in answer.headers:
                break
            before = f"&before={answer.headers['x-pagination-next']}"

    cost = cheapest(attacked, read)
    assert len(sizes) > 1
    assert max(sizes) <= MAX_ANSWER_BYTES + MB
    assert cost.blocked <= BLOCKED


@SLOW
def test_a_list_of_large_runs_is_answered_in_bounded_pages(attacked: Attacked) -> None:
    thread = attacked.ask("POST", "/threads", {}).json()["thread_id"]
    for _ in range(5):
        assert attacked.ask("POST", f"/threads/{thread}/runs/wait", run(b"x" * (4 * MB))).status == 200
    seen: list[str] = []
    offset = "0"
    while offset:
        answer = attacked.ask("GET", f"/threads/{thread}/runs?limit=100&offset={offset}")
        assert len(answer.body) <= MAX_ANSWER_BYTES + MB
        seen += [one["run_id"] for one in answer.json()]
        offset = answer.headers.get("x-pagination-next", "")
    assert len(seen) == len(set(seen)) == 5


@SLOW
def test_the_largest_message_keeps_the_loop_for_less_than_others_notice(attacked: Attacked) -> None:
    body = run(b"x" * (31 * MB))
    answers: list[int] = []
    cost = cheapest(attacked, lambda: answers.append(attacked.ask("POST", "/runs/wait", body).status))
    assert set(answers) == {200}
    assert cost.blocked <= 2 * BLOCKED  # single calls on 31 MB of text take up to a tenth of a second


@SLOW
def test_large_bodies_at_once_are_read_one_after_the_other(attacked: Attacked) -> None:
    body = b'{"assistant_id":"nobody","x":"%b"}' % (b"x" * (31 * MB))
    keys = [attacked.attacker, attacked.attacker, attacked.other, attacked.other]
    statuses: list[int] = []

    def send(key: str) -> None:
        statuses.append(attacked.ask("POST", "/runs", body, key).status)

    with attacked.measured() as costs:
        threads = [threading.Thread(target=send, args=(key,)) for key in keys]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(statuses) == len(keys)
    assert set(statuses) <= {404, 422, 429, 503}
    assert costs[0].memory <= 48 * MB + 3 * 64 * MB
