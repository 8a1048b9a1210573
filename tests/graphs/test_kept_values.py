"""What the worker keeps of a thread between its runs: it makes turns cheap, and is never out of date."""

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import msgspec
import pytest
import pytest_asyncio

from agent_service_graphs.stored_values import MESSAGES, StoredValues
from app.agents.langgraph.agent import GraphAgent
from app.agents.langgraph.kept_values import KeptValues
from app.agents.langgraph.store import GraphStore
from app.agents.langgraph.worker import GraphProject, GraphWorker
from app.agents.testing import FakeRunContext
from app.domain.state import Splice
from tests.graphs.conftest import PROJECT
from tests.graphs.test_recovery import NoStore

pytestmark = [pytest.mark.timeout(100), pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def worker() -> AsyncIterator[GraphWorker]:
    graphs = {name: f"./graphs.py:{name}" for name in ("recite", "chat")}
    worker = GraphWorker(GraphProject(graphs=graphs, folder=PROJECT, environment={"GREETING": "hello"}))
    worker.start()
    await worker.wait()
    yield worker
    await worker.aclose()


class Thread:
    """A thread whose runs say all messages that they see."""

    def __init__(self, worker: GraphWorker, context: FakeRunContext | None = None) -> None:
        self.context = context or FakeRunContext()
        self._worker = worker
        self._turns = 0

    async def say(self, text: str, graph: str = "recite") -> str:
        agent = GraphAgent(graph, self._worker, GraphStore(NoStore(), NoStore()), seconds=60)
        self._turns += 1
        self.context.run_id = UUID(int=self._turns)
        await asyncio.wait_for(self.context.play(agent, {"messages": [{"role": "user", "content": text}]}), 60)
        return str(self.context.messages()[-1].content)


async def kept(worker: GraphWorker) -> int:
    return int((await worker.request("ping"))["kept"])


async def test_a_run_sees_what_its_thread_holds_whatever_the_worker_has_kept(worker: GraphWorker) -> None:
    thread = Thread(worker)
    assert await thread.say("a") == "a"
    assert await thread.say("b") == "a|a|b"
    assert await kept(worker) == 1
    elements = thread.context.state.elements()
    changed = elements[0].replace(b'"content":"a"', b'"content":"A"')
    thread.context.state.apply(
        {"messages": Splice(0, tuple(map(msgspec.Raw, [changed, *elements[1:3]])))}
    )  # by a client, or another process
    assert await thread.say("c") == "A|a|b|c"
    branch = FakeRunContext()
    branch.tenant_id, branch.thread_id = thread.context.tenant_id, thread.context.thread_id
    assert await Thread(worker, branch).say("other") == "other", "a new thread with the id of one that was deleted"
    assert await thread.say("d") == "A|a|b|c|A|a|b|c|d"
    assert await thread.say("e", "chat") == "echo: e", "by another graph"
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    assert (await thread.say("f")).startswith("A|a|b|c|A|a|b|c|d|A|a|b|c|A|a|b|c|d|e|echo: e|f")


async def test_what_a_node_does_to_messages_in_place_ends_with_its_run(worker: GraphWorker) -> None:
    thread = Thread(worker)
    await thread.say("a")
    await thread.say("b", "chat")
    before = thread.context.state.elements()[:4]
    await thread.say("spoil")
    assert thread.context.state.elements()[:4] == before
    assert await thread.say("c") == "a|a|b|echo: b|spoil|a|a|b|echo: b|spoil|c"


async def test_the_worker_keeps_as_much_as_the_server_allows(
    worker: GraphWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    await Thread(worker).say("first")
    worker.forget_values({UUID(int=99)})
    assert await kept(worker) > 0
    worker.forget_values({FakeRunContext().tenant_id})
    assert await kept(worker) == 0
    threads = [Thread(worker) for _ in range(3)]
    for thread in threads:
        await thread.say("x" * 100_000, "chat")
    assert await kept(worker) == 3
    monkeypatch.setattr(worker._kept, "_max_size", worker._kept.size * 3 // 4)
    await Thread(worker).say("a", "chat")
    assert await kept(worker) == 3, "two of them, and the new one"
    assert await threads[0].say("b") == "|".join(["x" * 100_000, "echo: " + "x" * 100_000, "b"])


def text(number: int) -> bytes:
    return b'{"content":"%d","additional_kwargs":{},"response_metadata":{},"type":"human","name":null,"id":"%d"}' % (
        number,
        number,
    )


async def test_both_sides_have_the_same_values_after_any_changes() -> None:
    chance = random.Random(7)
    ours, theirs = KeptValues(), StoredValues()
    values: dict[str, Any] = {}
    for _ in range(2000):
        name = chance.choice("abc")
        match chance.randrange(6):
            case 0:
                values.pop(name, None)
            case 1:
                values[name] = text(chance.randrange(5))
            case 2 if isinstance(values.get(name), list) and values[name]:
                values[name] = [*values[name]]
                values[name][chance.randrange(len(values[name]))] = text(chance.randrange(100))
            case _:
                known = values[name] if isinstance(values.get(name), list) else []
                keep, added = chance.randrange(len(known) + 1), [text(chance.randrange(100)) for _ in range(3)]
                values[name] = [*known[:keep], *added]
                if chance.random() < 0.5:  # reported by the worker
                    changes: Any = {name: ["s", keep if isinstance(theirs.get(name), list) else 0, added]}
                    if theirs.get(name, []) == known:
                        ours.apply(changes)
                        theirs.apply(changes)
        theirs.apply(ours.update(values))
        assert theirs == values
        for one in [name for name, value in values.items() if isinstance(value, list)]:
            elements = theirs.elements(one, MESSAGES)
            assert [int(element.content) for element in elements] == [int(element.id) for element in elements]
            assert [text(int(element.content)) for element in elements] == values[one]
            if elements and chance.random() < 0.1:
                chance.choice(elements).content = "spoilt"
