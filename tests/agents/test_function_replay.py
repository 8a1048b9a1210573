"""A function agent restarts after a crash and does not repeat completed operations."""

import asyncio
import random
from typing import Any

import pytest

from app.agents.function import Context
from app.agents.functions.step_journal import JOURNAL
from app.agents.testing import FakeRunContext
from app.base.errors import AgentServiceError, PathChanged
from app.base.ids import new_id
from app.domain.events import Custom, MessageAdded
from app.domain.state import State
from app.tools import ToolContext, ToolResult, tool
from tests.agents.functions import Crash, Dying, agent, crashed, texts
from tests.llm.scripted_model import ScriptedModel


async def test_each_operation_runs_once_after_a_crash_at_any_step() -> None:
    done: list[str] = []

    @tool(tool_class="transactional")
    async def bump(context: ToolContext) -> ToolResult:
        """Bump."""
        done.append("bump")
        return ToolResult(content="bumped", update={"n": (context.value("n") or 0) + 1})

    def roll() -> float:
        done.append("roll")
        return random.random()

    async def run(context: Context) -> str:
        context.state["n"] = context.state.get("n", int, 0) + 10
        context.say("I begin.")
        rolled = await context.step("roll", roll)
        said = await context.model.text(f"I rolled {rolled}")
        context.state["n"] += 100
        await context.tools.call("bump")
        assert await context.step("again", roll) != rolled
        return f"{said} n={context.state['n']}"

    for max_steps, repeated in enumerate((["roll"], [], ["bump"], ["roll"], [])):
        done.clear()
        model = ScriptedModel(["Well.", "Well."])
        tested = agent(run, bump, model=model)
        first = Dying()
        first.max_steps = max_steps
        with pytest.raises(Crash):
            await first.play(tested, "go")
        second = crashed(first)
        await second.play(tested)
        assert sorted(done) == sorted(["roll", "bump", "roll", *repeated])
        assert len(model.requests) == (2 if max_steps == 1 else 1)
        assert texts(second) == ["go", "I begin.", "Well. n=111"]
        assert second.state.get("n") == 111
        assert JOURNAL not in second.state.channels


async def test_the_journal_is_hidden_and_removed_at_the_end_of_the_run() -> None:
    async def run(context: Context) -> str:
        await context.step("look", dict)
        assert JOURNAL not in play.state.json().decode()
        return "done"

    play = FakeRunContext()
    await play.play(agent(run), "go")
    assert JOURNAL in play.steps[0].update
    assert play.steps[-1].update[JOURNAL] is None
    assert b"__" not in play.state.json()
    assert not play.state.head().lists.get(JOURNAL)


async def test_a_replay_repeats_no_messages_and_no_custom_events() -> None:
    async def run(context: Context) -> None:
        for number in range(3):
            context.emit(number)
            context.say(f"Step {number}.")
            await context.step("look", dict)

    first = Dying()
    first.max_steps = 2
    tested = agent(run)
    with pytest.raises(Crash):
        await first.play(tested, "go")
    assert [bytes(e.data) for e in first.events if isinstance(e, Custom)] == [b"0", b"1", b"2"]
    second = crashed(first)
    await second.play(tested)
    assert [bytes(e.data) for e in second.events if isinstance(e, Custom)] == [b"2"]
    assert len([e for e in second.events if isinstance(e, MessageAdded)]) == 1
    assert texts(second) == ["go", "Step 0.", "Step 1.", "Step 2."]
    assert [step.update.keys() for step in second.steps] == [{"messages", JOURNAL}, {JOURNAL}]


async def test_concurrent_branches_replay_their_own_results_in_any_order() -> None:
    gates = {name: asyncio.Event() for name in "abc"}
    passed = {name: asyncio.Event() for name in "abc"}
    done: list[str] = []

    async def study(context: Context, name: str) -> str:
        async def look() -> str:
            await gates[name].wait()
            done.append(name)
            passed[name].set()
            return name

        first = await context.step("look", look)
        second = await context.step("think", lambda: f"{name}!")
        return first + second

    async def run(context: Context) -> dict[str, Any]:
        return {"found": await asyncio.gather(*(study(context, name) for name in "abc"))}

    first = Dying()
    first.max_steps = 3
    tested = agent(run)
    playing = asyncio.create_task(first.play(tested, "go"))
    for name in "cba":
        gates[name].set()
        await passed[name].wait()
    with pytest.raises(Crash):
        await playing
    second = crashed(first)
    await second.play(tested)
    assert second.state.get("found") == ["aa!", "bb!", "cc!"]
    assert set(done) == {"a", "b", "c"}
    assert len(second.steps) == 4  # of six and the end, three were recorded


async def test_a_changed_path_is_an_error_that_names_the_position() -> None:
    names = iter(["charge", "refund"])

    async def run(context: Context) -> None:
        try:
            await context.step(next(names), dict)
            await context.step("last", dict)
        except AgentServiceError:
            await context.step("hide", dict)

    first = Dying()
    first.max_steps = 1
    tested = agent(run)
    with pytest.raises(Crash):
        await first.play(tested, "go")
    with pytest.raises(PathChanged, match="at position 0 it did step 'charge' before, and now does step 'refund'"):
        await crashed(first).play(tested)


async def test_a_tool_call_with_other_arguments_is_a_changed_path() -> None:
    async def look(what: float) -> str:
        """Look."""
        return "seen"

    async def run(context: Context) -> None:
        await context.tools.call("look", what=random.random())
        await context.step("last", dict)

    first = Dying()
    first.max_steps = 1
    tested = agent(run, look)
    with pytest.raises(Crash):
        await first.play(tested, "go")
    with pytest.raises(PathChanged, match="with other arguments before"):
        await crashed(first).play(tested)


async def test_a_new_input_restarts_the_function_and_a_state_update_does_not() -> None:
    done: list[str] = []

    async def run(context: Context) -> str:
        await context.step("once", lambda: done.append("once"))
        if context.messages[0].content == "stop":
            raise Crash
        return context.state.get("note", str, "no note")

    tested = agent(run)
    play = FakeRunContext()
    with pytest.raises(Crash):
        await play.play(tested, [{"role": "user", "content": "stop", "id": "m"}])
    changed = crashed(play)
    changed.run_id = new_id()
    message = {"role": "user", "content": "go", "id": "m"}
    changed.state.apply(tested.read_update({"messages": [message], "note": "edited"}, new_id()))
    assert tested.after("run", changed.state) == ("run",)
    await changed.play(tested)
    assert (texts(changed), done) == (["go", "edited"], ["once"])
    assert tested.after("run", changed.state) == ()
    changed.run_id = new_id()
    await changed.play(tested, "more")
    assert done == ["once", "once"]


async def test_a_replay_from_an_older_checkpoint_repeats_later_operations() -> None:
    done: list[int] = []

    async def run(context: Context) -> None:
        for number in range(3):
            await context.step("count", done.append, number)

    tested = agent(run)
    play = Dying()
    play.max_steps = 2
    with pytest.raises(Crash):
        await play.play(tested, "go")
    first = State.load(play.state.head(), dict(play.state.pending), play.state.last_number)
    elements = [bytes(element) for element in first.elements(JOURNAL)][:2]
    first.channels[JOURNAL].rebuild([(element, n + 1) for n, element in enumerate(elements)])  # type: ignore[union-attr]
    fork = crashed(play)
    fork.state = first
    done.clear()
    await fork.play(tested)
    assert done == [1, 2]
