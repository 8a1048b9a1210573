"""What code of graphs does to the process that runs them costs its own run alone."""

import asyncio
import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio

from app.agents.langgraph import worker as worker_module
from app.agents.langgraph.agent import GraphAgent
from app.agents.langgraph.store import GraphStore
from app.agents.langgraph.wire import OutputReport
from app.agents.langgraph.worker import GraphProject, GraphWorker, WorkerRun
from app.agents.port import RunInstructions
from app.agents.testing import FakeRunContext
from app.base.errors import AgentError
from app.domain.events import Custom
from tests.graphs.conftest import PROJECT
from tests.graphs.test_recovery import NoStore

pytestmark = pytest.mark.timeout(100)

WITH_ONE_WORKER = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def worker() -> AsyncIterator[GraphWorker]:
    worker = GraphWorker(GraphProject(graphs={"hostile": "./hostile.py:graph"}, folder=PROJECT))
    worker.start()
    await worker.wait()
    yield worker
    await worker.aclose()


def graph(worker: GraphWorker) -> GraphAgent:
    return GraphAgent("hostile", worker, GraphStore(NoStore(), NoStore()), seconds=60)


async def played(worker: GraphWorker, do: str) -> FakeRunContext:
    context = FakeRunContext()
    context.instructions = RunInstructions(stream_modes=("custom",))
    await context.play(graph(worker), {"do": do})
    return context


def customs(context: FakeRunContext) -> list[bytes]:
    return [bytes(one.data) for one in context.events if isinstance(one, Custom)]


async def test_what_a_node_prints_is_seen_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    worker = GraphWorker(GraphProject(graphs={"hostile": "./hostile.py:graph"}, folder=PROJECT))
    worker.start()
    try:
        await worker.wait()
        await played(worker, "print")
        assert "said by a node\n" in capfd.readouterr().out
    finally:
        await worker.aclose()


@WITH_ONE_WORKER
async def test_what_no_message_can_hold_ends_its_run_and_no_other(worker: GraphWorker) -> None:
    """Half of a character, as models and file names may have it; sets; numbers beyond 64 bits."""
    beside = asyncio.gather(*(played(worker, "nap") for _ in range(4)))
    context = await played(worker, "surrogate")
    assert context.state.get("text") == "a\ufffd"
    assert customs(context) == [b'{"text":"a\xef\xbf\xbd"}']
    context.run_id = UUID(int=2)
    await context.play(graph(worker), {"do": ""})
    assert context.state.get("text") == "done", "the thread can be read again"
    with pytest.raises(AgentError, match="no file a"):
        await played(worker, "error")
    with pytest.raises(AgentError, match="cannot be sent"):
        await played(worker, "store")
    with pytest.raises(AgentError, match="wants to end the process"):
        await played(worker, "exit")
    numbers = await played(worker, "numbers")
    assert customs(numbers) == [b"[null,1180591620717411303424]"]
    assert [one.state.get("text") for one in await beside] == ["done"] * 4


@WITH_ONE_WORKER
async def test_a_blocked_worker_is_replaced_once_its_run_is_cancelled(
    worker: GraphWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "REQUEST_SECONDS", 0.5)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(2):
            await FakeRunContext().play(graph(worker), {"do": "block"})
    assert (await played(worker, "")).state.get("text") == "done"


@WITH_ONE_WORKER
async def test_a_run_that_is_cancelled_while_it_is_sent_stops_in_the_worker(worker: GraphWorker) -> None:
    """The worker takes nothing more, so that sending waits; it has the whole run when it goes on."""
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGSTOP)
    try:
        context = FakeRunContext()
        context.state.set("text", "x" * 4_000_000)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await context.play(graph(worker), {"do": "nap"})
    finally:
        os.kill(worker.pid, signal.SIGCONT)
    assert worker.open_runs == 0
    assert (await played(worker, "")).state.get("text") == "done"


@WITH_ONE_WORKER
async def test_a_process_that_a_graph_forked_does_not_hide_the_end_of_the_worker(
    worker: GraphWorker, tmp_path: Path
) -> None:
    forked = tmp_path / "pid"
    try:
        context = FakeRunContext()
        await asyncio.wait_for(context.play(graph(worker), {"do": "fork", "text": str(forked)}), 50)
        assert context.state.get("text") == "done"
    finally:
        os.kill(int(forked.read_text()), signal.SIGKILL)


@WITH_ONE_WORKER
async def test_a_run_that_ends_the_worker_costs_its_neighbours_no_attempt(
    worker: GraphWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is found out alone; and a process that cannot be started (no descriptor is left) is tried again."""
    socketpair, refusals = socket.socketpair, [OSError(errno.EMFILE, "Too many open files")]

    def scarce(*given: Any) -> Any:
        if refusals and not given:
            raise refusals.pop()
        return socketpair(*given)

    monkeypatch.setattr(socket, "socketpair", scarce)
    beside = asyncio.gather(*(played(worker, "nap") for _ in range(6)))
    with pytest.raises(AgentError, match="ended 3 times during this run, which is to blame"):
        await played(worker, "die")
    assert [one.state.get("text") for one in await beside] == ["done"] * 6
    assert refusals == []


@WITH_ONE_WORKER
async def test_output_waits_in_the_graph_until_the_engine_has_taken_what_came_before(worker: GraphWorker) -> None:
    taken = asyncio.Event()
    context = FakeRunContext()
    context.instructions = RunInstructions(stream_modes=("custom",))
    opened: list[WorkerRun] = []

    open_ = worker.open

    async def opening(*given: Any, **named: Any) -> WorkerRun:
        opened.append(await open_(*given, **named))
        await taken.wait()
        return opened[0]

    worker.open = opening  # type: ignore[method-assign]
    try:
        playing = asyncio.create_task(context.play(graph(worker), {"do": "flood"}))
        before, held = -1, 0
        while not held or held != before:
            before = held
            for _ in range(10):
                await worker.request("ping")
            queue: Any = opened[0].reports
            held = sum(isinstance(one, OutputReport) for one in queue._queue)
        assert held <= 6, "MiB"
        taken.set()
        await playing
    finally:
        del worker.open
    assert len(customs(context)) == 24


@WITH_ONE_WORKER
async def test_a_graph_that_fails_to_load_again_is_refused_by_the_worker(worker: GraphWorker) -> None:
    worker.graphs["lost"] = worker.graphs["hostile"]
    lost = GraphAgent("lost", worker, GraphStore(NoStore(), NoStore()), seconds=60)
    before = worker.pid
    with pytest.raises(AgentError, match="lost"):
        await asyncio.wait_for(FakeRunContext().play(lost, {"do": ""}), 30)
    with pytest.raises(Exception, match="lost"):
        await lost.shape({}, xray=True)
    assert (await played(worker, "")).state.get("text") == "done"
    assert worker.pid == before


def test_the_worker_ends_with_its_parent_though_its_loop_is_blocked() -> None:
    watch = "import time; from agent_service_graphs.stalls import StallWatch as Watch"
    child = f"{watch}; Watch(lambda *_: None).start(); print(1, flush=True); time.sleep(20); print(2)"
    parent = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, cwd=PROJECT.parents[2]) as started:
        assert started.stdout is not None
        started.stdout.readline()
        started.kill()
        assert started.stdout.read() == b"", "it ends before it has slept"
