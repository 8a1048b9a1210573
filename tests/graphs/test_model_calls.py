"""What hosted graphs pay for models: every call is charged once, whatever becomes of its answer and of its run."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from uuid import UUID

import pytest
import pytest_asyncio

from app.agents.langgraph.agent import GraphAgent
from app.agents.langgraph.store import GraphStore
from app.agents.langgraph.worker import GraphProject, GraphWorker
from app.agents.port import RunInstructions
from app.agents.testing import FakeRunContext
from app.base.errors import AgentError
from app.domain.messages import Usage
from app.providers.llm.billing import ESTIMATED, payer
from tests.graphs.conftest import PROJECT
from tests.graphs.test_recovery import NoStore
from tests.waiting import eventually

NAMES = ("kept_text", "in_thread", "without_counts", "refusal", "broken", "hanging", "with_question", "nested")
QUESTION = {"question": "how are you now?"}
PROMPT = 8
"""Estimated tokens of the question: four, and four for its message."""
COUNTED = Usage(30, 4, 34)
MODEL = "house:counted"

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(100)]


class Purse:
    """Notes what is charged."""

    tenant = "t"

    def __init__(self) -> None:
        self.charged: list[tuple[str, Usage]] = []

    def charge(self, model: str, usage: Usage, *, in_step: bool) -> None:
        self.charged.append((model, usage))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def worker() -> AsyncIterator[GraphWorker]:
    graphs = {name: f"./billing.py:{name}" for name in NAMES}
    worker = GraphWorker(GraphProject(graphs=graphs, folder=PROJECT))
    worker.start()
    await worker.wait()
    yield worker
    await worker.aclose()


@pytest.fixture
def purse() -> Iterator[Purse]:
    purse = Purse()
    token = payer.set(purse)
    yield purse
    payer.reset(token)


def graph(name: str, worker: GraphWorker) -> GraphAgent:
    return GraphAgent(name, worker, GraphStore(NoStore(), NoStore()), seconds=60)


@pytest.mark.parametrize("name", ["kept_text", "in_thread"])
async def test_a_call_counts_although_its_message_is_thrown_away(worker: GraphWorker, purse: Purse, name: str) -> None:
    context = FakeRunContext()
    await context.play(graph(name, worker), QUESTION)
    assert purse.charged == [(MODEL, COUNTED)]
    assert [(step.model, step.usage) for step in context.steps if step.usage is not None] == [(MODEL, COUNTED)]


async def test_messages_of_earlier_turns_do_not_count_again(worker: GraphWorker, purse: Purse) -> None:
    context = FakeRunContext()
    for turn in (1, 2, 3):
        context.run_id = UUID(int=turn)
        await context.play(graph("nested", worker), {"messages": [{"role": "user", "content": "go"}]})
        assert len(context.messages()) == 2 * turn
    usages = [step.usage for step in context.steps if step.usage is not None]
    assert usages == [COUNTED] * 3, "the subgraph returns the messages of all turns"
    assert purse.charged == [(MODEL, COUNTED)] * 3


async def test_a_call_without_a_count_is_estimated(worker: GraphWorker, purse: Purse) -> None:
    await FakeRunContext().play(graph("without_counts", worker), QUESTION)
    ((_, usage),) = purse.charged
    assert usage == Usage(PROMPT, 8, PROMPT + 8, {ESTIMATED: PROMPT}, {ESTIMATED: 8})


async def test_a_refused_call_costs_nothing(worker: GraphWorker, purse: Purse) -> None:
    with pytest.raises(AgentError, match="the provider refuses"):
        await FakeRunContext().play(graph("refusal", worker), QUESTION)
    assert purse.charged == []


async def test_a_call_that_was_cut_off_costs_what_it_has_streamed(worker: GraphWorker, purse: Purse) -> None:
    with pytest.raises(AgentError, match="the provider is gone"):
        await FakeRunContext().play(graph("broken", worker), QUESTION)
    ((_, usage),) = purse.charged
    assert (usage.input_tokens, usage.output_tokens) == (PROMPT, 10)


async def test_a_cancelled_run_pays_for_the_call_that_it_leaves(worker: GraphWorker, purse: Purse) -> None:
    context = FakeRunContext()
    context.instructions = RunInstructions(stream_modes=("messages",))
    run = asyncio.create_task(context.play(graph("hanging", worker), QUESTION))
    await eventually(lambda: len(context.events) >= 3)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    ((_, usage),) = purse.charged
    assert (usage.input_tokens, usage.output_tokens) == (PROMPT, 600)


async def test_a_superstep_that_a_question_keeps_open_pays_once(worker: GraphWorker, purse: Purse) -> None:
    context = FakeRunContext()
    outcome = await context.play(graph("with_question", worker), QUESTION)
    assert outcome.usage == COUNTED
    context.state.apply(outcome.amendment)
    context.run_id, context.answers = UUID(int=1), {outcome.interrupts[0].id: "yes"}
    await context.play(graph("with_question", worker))
    assert context.state.get("notes") == ["yes", "ok"]
    assert purse.charged == [(MODEL, COUNTED)], "its node does not run again"
    assert [(step.node, step.usage) for step in context.steps if "note" in step.node] == [("note, asking", None)]
