"""Bounds of thread reads: bytes of a response, and comparisons of a search by values."""

import threading
import time
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import msgspec
import pytest

from app.base.errors import Invalid, TooLarge
from app.base.offload import MAX_ANSWER_BYTES
from app.features.threads.service import ThreadService
from app.features.threads.structs import (
    HistoryQuery,
    NodeUpdate,
    StateUpdate,
    Superstep,
    ThreadCreate,
    ThreadPatch,
    ThreadSearch,
)
from app.features.threads.views import MAX_COMPARISONS, StateMatcher, thread_view
from app.infra.db.engine import Database
from app.security.access.structs import Principal
from tests.runs.engine import TENANT, Agents, SteeredAgent, echo

PRINCIPAL = Principal(TENANT)
LARGE = MAX_ANSWER_BYTES // 3
MAX_STATE = 2 * MAX_ANSWER_BYTES


class PlainAgent(SteeredAgent):
    """Accepts any values unchanged."""

    def read_update(self, value: Any, run_id: UUID) -> dict[str, Any]:
        return dict(value)


@pytest.fixture
async def threads(fresh_database_url: str) -> AsyncIterator[ThreadService]:
    database = Database(fresh_database_url, requests=2, engine=2)
    service = ThreadService(database, Agents(PlainAgent("agent", echo)), lambda _tenant, _thread: None, MAX_STATE)
    service.start()
    yield service
    await service.aclose()
    await database.aclose()


async def thread_with(threads: ThreadService, *states: dict[str, Any]) -> UUID:
    """Create a thread and write ``states`` to it in order."""
    made = await threads.create(PRINCIPAL, ThreadCreate(metadata={"graph_id": "agent"}))
    assert not isinstance(made, msgspec.Raw)
    for values in states:
        await threads.update_state(PRINCIPAL, made.thread_id, StateUpdate(values=values, as_node="agent"))
    return made.thread_id


async def test_a_history_of_large_states_comes_in_pages_without_gap_or_repeat(threads: ThreadService) -> None:
    thread_id = await thread_with(threads, *({"text": f"{n}" + "x" * LARGE} for n in range(7)))
    seen: list[str] = []
    before: UUID | None = None
    pages = 0
    while True:
        query = HistoryQuery(limit=1000, before=None if before is None else str(before))
        states, before = await threads.history(PRINCIPAL, thread_id, query)
        assert 0 < sum(len(state.values) for state in states) <= MAX_ANSWER_BYTES
        seen += [state.metadata["step"] for state in states if state.metadata and "step" in state.metadata]
        pages += 1
        if before is None:
            break
    assert pages > 2
    assert seen == sorted(seen, reverse=True)
    assert len(set(seen)) == len(seen) >= 7


async def test_one_state_larger_than_an_answer_is_answered_alone(threads: ThreadService) -> None:
    thread_id = await thread_with(threads, {"a": "small"}, {"a": "x" * (MAX_ANSWER_BYTES + 1)})
    states, before = await threads.history(PRINCIPAL, thread_id, HistoryQuery(limit=10))
    assert [len(state.values) > MAX_ANSWER_BYTES for state in states] == [True]
    rest, _ = await threads.history(PRINCIPAL, thread_id, HistoryQuery(limit=10, before=str(before)))
    assert msgspec.json.decode(rest[0].values)["a"] == "small"


async def test_a_page_of_threads_with_large_values_is_cut_and_continues(threads: ThreadService) -> None:
    made = {await thread_with(threads, {"text": "x" * LARGE}) for _ in range(5)}
    seen: set[UUID] = set()
    while len(seen) < 5:
        found, total = await threads.search(PRINCIPAL, ThreadSearch(limit=1000, offset=len(seen)))
        assert total == 5
        assert 0 < len(found) < 4
        seen |= {thread.thread_id for thread in found}
    assert seen == made


async def test_a_search_by_values_finds_what_contains_them(threads: ThreadService) -> None:
    wanted = await thread_with(threads, {"list": [{"a": 1, "b": 2}, "x", [3]], "n": {"deep": {"k": True}}})
    await thread_with(threads, {"list": ["y"], "n": {"deep": {"k": 1}}})
    deep = {"n": {"deep": {"k": True}}}
    sought: list[dict[str, Any]] = [{"list": ["x"]}, {"list": [{"a": 1}, [3]]}, deep, {"list": []}]
    for values in sought:
        found, _ = await threads.search(PRINCIPAL, ThreadSearch(values=values))
        assert wanted in {thread.thread_id for thread in found}
    assert await threads.count(PRINCIPAL, ThreadSearch(values=deep)) == 1
    assert await threads.count(PRINCIPAL, ThreadSearch(values={"missing": 1})) == 0


def test_lists_of_plain_values_are_compared_in_linear_time() -> None:
    value = list(range(100_000))
    began = time.thread_time()
    assert StateMatcher({}).contains(value, value[::-1])
    assert time.thread_time() - began < 1.0


def test_a_comparison_stops_at_its_budget() -> None:
    value = [{"a": n} for n in range(5_000)]
    began = time.thread_time()
    with pytest.raises(Invalid, match="narrow the search"):
        StateMatcher({}).contains(value, value[::-1])
    assert time.thread_time() - began < 3.0
    assert MAX_COMPARISONS < 5_000 * 5_000


async def test_a_search_compares_a_bounded_number_of_bytes(threads: ThreadService) -> None:
    for _ in range(5):
        await thread_with(threads, {"text": "x" * MAX_ANSWER_BYTES})
    with pytest.raises(Invalid, match="narrow the search"):
        await threads.search(PRINCIPAL, ThreadSearch(values={"text": "y"}))


async def test_a_state_that_is_too_large_is_refused_and_the_thread_stays(threads: ThreadService) -> None:
    half = {"a": "x" * (MAX_STATE // 2)}
    thread_id = await thread_with(threads, half)
    before = await threads.storage(PRINCIPAL, thread_id)
    with pytest.raises(TooLarge, match=r"more than 32 MiB \(AGENT_STATE_BYTES\)"):
        await threads.update_state(
            PRINCIPAL, thread_id, StateUpdate(values={"b": "y" * (MAX_STATE // 2)}, as_node="agent")
        )
    assert await threads.storage(PRINCIPAL, thread_id) == before
    await threads.update_state(PRINCIPAL, thread_id, StateUpdate(values={"a": "x"}, as_node="agent"))
    steps = [Superstep(updates=[NodeUpdate(values={name: half["a"]}, as_node="agent")]) for name in "abc"]
    with pytest.raises(TooLarge, match="AGENT_STATE_BYTES"):
        await threads.create(PRINCIPAL, ThreadCreate(metadata={"graph_id": "agent"}, supersteps=steps))


async def test_the_views_of_a_large_thread_are_built_off_the_event_loop(
    threads: ThreadService, monkeypatch: pytest.MonkeyPatch
) -> None:
    thread_id = await thread_with(threads, {"text": "x" * LARGE})
    inline: list[str] = []

    def watched(row: Any, *, ttl: bool = False) -> Any:
        inline.append(threading.current_thread().name)
        return thread_view(row, ttl=ttl)

    monkeypatch.setattr("app.features.threads.service.thread_view", watched)
    await threads.get(PRINCIPAL, thread_id)
    await threads.patch(PRINCIPAL, thread_id, ThreadPatch(metadata={"a": 1}))
    await threads.create(PRINCIPAL, ThreadCreate(thread_id=thread_id, if_exists="do_nothing"))
    await threads.copy(PRINCIPAL, thread_id, None)
    assert len(inline) == 4
    assert threading.main_thread().name not in inline
