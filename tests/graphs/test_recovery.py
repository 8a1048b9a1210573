"""Runs that lose their owner or their process: no node whose writes are committed runs again."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
import structlog

from app.agents.langgraph.agent import GraphAgent
from app.agents.langgraph.quarantine import RunAttempts
from app.agents.langgraph.store import GraphStore
from app.agents.langgraph.worker import RESTART_SECONDS, GraphProject, GraphWorker, WorkerRun
from app.agents.port import RunInstructions, Step
from app.agents.testing import FakeRunContext
from app.base.errors import LeaseLost
from app.domain.caller import Caller
from app.domain.messages import Usage
from tests.graphs.conftest import PROJECT
from tests.long_form import FULL
from tests.waiting import eventually

GRAPHS = {name: f"./graphs.py:{name}" for name in ("loop", "ledger", "parallel", "chat", "metered")}


class NoStore:
    """A store without operations."""

    async def operate(self, caller: Caller, op: dict[str, Any], check_lease: Callable[[], None]) -> Any:
        raise AssertionError("a graph of these tests has no store")


class DyingContext(FakeRunContext):
    """A run whose owner loses its lease right after the write number ``dies_after``; counts its writes."""

    def __init__(self, before: FakeRunContext | None, dies_after: int) -> None:
        super().__init__()
        if before is not None:
            self.state, self.next, self.step = before.state, before.next, before.step
            self.run_id, self.thread_id, self.answers = before.run_id, before.thread_id, before.answers
        self.instructions = RunInstructions(durability="sync")
        self.left = dies_after
        self.writes = 0

    async def commit(self, step: Step) -> None:
        await super().commit(step)
        self.count()

    async def amend(self, update: dict[str, Any]) -> None:
        await super().amend(update)
        self.count()

    def count(self) -> None:
        self.writes += 1
        self.left -= 1
        if self.left == 0:
            raise LeaseLost("another process has the run")


pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(100)]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What nodes and owners note, one line each that begins with the thread."""
    return tmp_path_factory.mktemp("recovery") / "effects"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def worker(file: Path) -> AsyncIterator[GraphWorker]:
    environment = {"EFFECTS": str(file), "GREETING": "hello"}
    worker = GraphWorker(GraphProject(graphs=GRAPHS, folder=PROJECT, environment=environment))
    worker.start()
    await worker.wait()
    yield worker
    await worker.aclose()


@pytest.fixture
def effects(file: Path) -> Any:
    def of(thread: UUID) -> list[str]:
        lines = file.read_text().splitlines() if file.exists() else []
        return [line.split()[1] for line in lines if line.startswith(str(thread))]

    return of


async def test_a_run_goes_on_behind_every_commit_without_repeating_a_node(worker: GraphWorker, effects: Any) -> None:
    most = 24
    loop = GraphAgent("loop", worker, GraphStore(NoStore(), NoStore()), seconds=60)
    for boundary in range(1, most + 1):
        dying = DyingContext(None, boundary)
        with pytest.raises(LeaseLost):
            await dying.play(loop, {"most": most})
        next_owner = DyingContext(dying, 0)
        await next_owner.play(loop)
        assert next_owner.state.get("count") == most
        assert effects(dying.thread_id).count("add") == most, f"behind commit {boundary}"


class Ledger(DyingContext):
    """Notes each committed count in the file in which the nodes note that they ran."""

    def __init__(self, before: FakeRunContext | None, dies_after: int, file: Path) -> None:
        super().__init__(before, dies_after)
        self.file = file

    def count(self) -> None:
        with self.file.open("a") as file:
            file.write(f"{self.thread_id} committed {self.state.get('count') or 0}\n")
        super().count()


def repeated(file: Path) -> list[str]:
    """Return the nodes that ran again after their writes were committed."""
    committed: dict[str, int] = {}
    found: list[str] = []
    for line in file.read_text().splitlines():
        thread, what, *counts = line.split()
        if what == "committed":
            committed[thread] = max(committed.get(thread, 0), int(counts[0]))
        elif what == "ran" and int(counts[0]) <= committed.get(thread, 0):
            found.append(line)
    return found


async def test_no_node_runs_again_though_each_of_fifty_owners_loses_the_run(
    worker: GraphWorker, file: Path, effects: Any
) -> None:
    boundaries = 50
    graph = GraphAgent("ledger", worker, GraphStore(NoStore(), NoStore()), seconds=60)
    context = Ledger(None, 1, file)
    with pytest.raises(LeaseLost):
        await context.play(graph, {"most": boundaries})
    for _ in range(boundaries):
        context = Ledger(context, 1, file)
        with contextlib.suppress(LeaseLost):
            await context.play(graph)
    assert context.state.get("count") == boundaries
    assert effects(context.thread_id).count("ran") == boundaries
    assert repeated(file) == []


@pytest.mark.skipif(not FULL, reason="takes an hour: FULL=1")
@pytest.mark.timeout(14400)
async def test_no_node_runs_again_behind_a_thousand_kills(
    worker: GraphWorker, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker process is killed right after each commit of one run, while three others run."""
    kills, steps = 0, 20
    graph = GraphAgent("ledger", worker, GraphStore(NoStore(), NoStore()), seconds=600)

    class Killing(Ledger):
        def count(self) -> None:
            nonlocal kills
            super().count()
            pid = worker.pid
            if pid is not None and pid == processes.pop(str(self.run_id), None):  # else reports of an ended process
                os.kill(pid, signal.SIGKILL)
                kills += 1

    processes: dict[str, int | None] = {}
    opened = worker.open

    async def opening(
        attempts: RunAttempts, thread: tuple[UUID, UUID], values: dict[str, Any], **message: Any
    ) -> WorkerRun:
        run = await opened(attempts, thread, values, **message)
        processes[message["run_id"]] = worker.pid
        return run

    monkeypatch.setattr(worker, "open", opening)
    while kills < 1000:
        runs = [Killing(None, 0, file), *(Ledger(None, 0, file) for _ in range(3))]
        await asyncio.gather(*(run.play(graph, {"most": steps}) for run in runs))
        assert [run.state.get("count") for run in runs] == [steps] * 4
    assert repeated(file) == []


async def test_finished_nodes_of_an_open_superstep_do_not_run_again(worker: GraphWorker, effects: Any) -> None:
    parallel = GraphAgent("parallel", worker, GraphStore(NoStore(), NoStore()), seconds=60)
    context = DyingContext(None, 0)
    outcome = await context.play(parallel, {"text": ""})
    context.state.apply(outcome.amendment)
    asked = {one.value: one.id for one in outcome.interrupts}
    assert set(asked) == {"left?", "right?"}
    for round_ in range(3):
        again = DyingContext(context, 0)
        again.run_id = UUID(int=round_)
        again.answers = {asked["left?"]: "L"} if round_ == 0 else {}
        outcome = await again.play(parallel)
        again.state.apply(outcome.amendment)
        assert [one.value for one in outcome.interrupts] == ["right?"]
    assert effects(context.thread_id).count("sure") == 1
    assert effects(context.thread_id).count("left") == 2


async def test_a_killed_worker_is_started_again_and_its_runs_go_on(worker: GraphWorker, effects: Any) -> None:
    """However often its runs kill it, runs of other graphs wait no longer; only a process without a run does that."""
    loop = GraphAgent("loop", worker, GraphStore(NoStore(), NoStore()), seconds=60)
    killed: list[int] = []

    def kill() -> None:
        if worker.pid is not None and worker.pid not in killed:
            killed.append(worker.pid)
            os.kill(worker.pid, signal.SIGKILL)

    class Killing(DyingContext):
        def count(self) -> None:
            self.writes += 1
            if self.writes in {5, 10, 15}:
                kill()

    def pauses() -> list[float]:
        return [line["again_in"] for line in logged if line["event"] == "graph_worker_restarts"]

    with structlog.testing.capture_logs() as logged:
        context = Killing(None, 0)
        await context.play(loop, {"most": 200})
        assert context.state.get("count") == 200
        assert pauses() == [RESTART_SECONDS] * 3
        await asyncio.wait_for(DyingContext(None, 0).play(loop, {"most": 1}), 30)
        kill()
        await eventually(lambda: pauses()[3:])
    assert pauses()[3] > RESTART_SECONDS
    assert len(set(killed)) == 4


async def test_a_conversation_stores_what_each_turn_adds(worker: GraphWorker) -> None:
    chat = GraphAgent("chat", worker, GraphStore(NoStore(), NoStore()), seconds=60)
    context = FakeRunContext()
    stored: list[int] = []
    for turn in range(1, 31):
        context.run_id = UUID(int=turn)
        await context.play(chat, {"messages": [{"role": "user", "content": f"turn {turn:3}"}]})
        stored.append(sum(len(body) for _, body in context.state.take_items()))
    assert len(context.messages()) == 60
    assert min(stored[20:]) <= min(stored[:10]) + 20, "a turn costs the same, however long the thread is"
    assert len(context.state.head().lists["messages"]) == 2, "one range: nothing parts the items of the list"


async def test_tokens_of_models_count_for_the_run(worker: GraphWorker) -> None:
    metered = GraphAgent("metered", worker, GraphStore(NoStore(), NoStore()), seconds=60)
    outcome = await FakeRunContext().play(metered, {"messages": [{"role": "user", "content": "go"}]})
    assert outcome.step is not None
    assert (outcome.step.usage, outcome.step.model) == (Usage(3, 4, 7), "small")


async def test_a_draining_process_hands_the_run_over_behind_its_superstep(
    worker: GraphWorker, file: Path, effects: Any
) -> None:
    graph = GraphAgent("ledger", worker, GraphStore(NoStore(), NoStore()), seconds=60)

    class Draining(Ledger):
        drain: Callable[[], None]

        def on_drain(self, callback: Callable[[], None]) -> None:
            self.drain = callback

        def count(self) -> None:
            super().count()
            if self.writes == 3:
                self.drain()

    context = Draining(None, 0, file)
    with pytest.raises(LeaseLost, match="has no other process"):
        await context.play(graph, {"most": 200})
    assert 1 <= context.state.get("count") < 200, "it stops long before its end"
    heir = Ledger(context, 0, file)
    await heir.play(graph)
    assert heir.state.get("count") == 200
    assert effects(context.thread_id).count("ran") == 200
    assert repeated(file) == []
