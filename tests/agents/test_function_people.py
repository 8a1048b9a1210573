"""Function agents that ask people: they stop at the question and restart once there is an answer."""

import asyncio
from typing import Any, Literal

import msgspec
import pytest

from app.agents.function import Context, StepFailed
from app.agents.functions.step_journal import JOURNAL
from app.agents.testing import FakeRunContext
from app.agents.tool_loop.approval import ApprovalPolicy
from app.tools import ToolContext
from tests.agents.functions import agent, resumed, texts


class Decision(msgspec.Struct):
    action: Literal["approve", "reject"]


async def test_a_run_waits_for_an_answer_and_resumes_with_it() -> None:
    done: list[str] = []

    async def run(context: Context) -> str:
        await context.step("look", lambda: done.append("look"))
        context.state["status"] = "waiting"
        decision = await context.interrupt({"refund": 50}, Decision)
        context.state["status"] = decision.action
        return decision.action

    tested = agent(run)
    play = FakeRunContext()
    outcome = await play.play(tested, "go")
    (question,) = outcome.interrupts
    assert question.value == {"refund": 50}
    assert play.state.get("status") == "waiting"  # values set before the question are committed
    assert outcome.step is not None
    assert outcome.step.next == ("run",)
    then = resumed(play, outcome, {"action": "approve"})
    ended = await then.play(tested)
    assert ended.interrupts == ()
    assert (texts(then), then.state.get("status"), done) == (["go", "approve"], "approve", ["look"])
    assert JOURNAL not in then.state.channels


async def test_a_question_alone_commits_no_step() -> None:
    async def run(context: Context) -> str:
        return str(await context.interrupt("name?", str))

    tested = agent(run)
    play = FakeRunContext()
    outcome = await play.play(tested, "go")
    assert outcome.step is None
    again = resumed(play, outcome)
    assert (await again.play(tested)).interrupts == outcome.interrupts  # the same question has the same id


async def test_sequential_questions_use_each_answer_once() -> None:
    async def run(context: Context) -> str:
        name = await context.interrupt("name?")
        town = await context.interrupt("town?")
        await context.step("look", dict)
        last = await context.interrupt("name?")
        return f"{name} {town} {last}"

    tested = agent(run)
    play = FakeRunContext()
    outcome = await play.play(tested, "go")
    ids = set()
    for answer in ("Ann", "Rome", "Bob"):
        (question,) = outcome.interrupts
        ids.add(question.id)
        play = resumed(play, outcome, answer)
        outcome = await play.play(tested)
    assert len(ids) == 3
    assert outcome.interrupts == ()
    assert texts(play)[-1] == "Ann Rome Bob"


async def gathered(context: Context) -> list[str]:
    return await asyncio.gather(*(context.interrupt({"ask": name}, str) for name in "ab"))


async def grouped(context: Context) -> list[str]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(context.interrupt({"ask": name}, str)) for name in "ab"]
    return [task.result() for task in tasks]


async def kept_back(context: Context) -> list[str]:
    found = await asyncio.gather(*(context.interrupt({"ask": name}, str) for name in "ab"), return_exceptions=True)
    await context.step("look", dict)
    return [str(one) for one in found]


@pytest.mark.parametrize("together", [gathered, grouped, kept_back])
async def test_questions_of_branches_are_asked_together_and_answered_in_any_order(together: Any) -> None:
    async def run(context: Context) -> str:
        return " ".join(await together(context))

    tested = agent(run)
    play = FakeRunContext()
    outcome = await play.play(tested, "go")
    assert [question.value for question in outcome.interrupts] == [{"ask": "a"}, {"ask": "b"}]
    assert [step.node for step in play.steps] == []
    second = resumed(play, outcome)
    second.answers = {outcome.interrupts[1].id: "B"}
    outcome = await second.play(tested)
    assert [question.value for question in outcome.interrupts] == [{"ask": "a"}]
    third = resumed(second, outcome, "A")
    await third.play(tested)
    assert texts(third)[-1] == "A B"


async def test_work_concurrent_with_a_question_completes_and_is_not_repeated() -> None:
    done: list[str] = []

    async def slow() -> str:
        for _ in range(50):
            await asyncio.sleep(0)
        done.append("slow")
        return "slow"

    async def work(context: Context) -> str:
        first = await context.step("slow", slow)
        await context.step("then", done.append, "then")
        return first

    async def run(context: Context) -> str:
        answer, worked = await asyncio.gather(context.interrupt("sure?", str), work(context))
        return f"{answer} {worked}"

    tested = agent(run)
    play = FakeRunContext()
    outcome = await play.play(tested, "go")
    assert done == ["slow", "then"]
    then = resumed(play, outcome, "yes")
    await then.play(tested)
    assert (texts(then)[-1], done) == ("yes slow", ["slow", "then"])


async def test_a_branch_waiting_for_another_does_not_delay_the_question() -> None:
    async def run(context: Context) -> str:
        queue: asyncio.Queue[str] = asyncio.Queue()

        async def reader() -> str:
            await context.step("begin", dict)
            return await queue.get()

        async def writer() -> None:
            await queue.put(await context.interrupt("what?", str))

        found, _ = await asyncio.gather(reader(), writer())
        return found

    tested = agent(run)
    play = FakeRunContext()
    async with asyncio.timeout(5):
        outcome = await play.play(tested, "go")
        then = resumed(play, outcome, "this")
        await then.play(tested)
    assert texts(then)[-1] == "this"


async def test_a_question_can_be_repeated_after_an_invalid_answer() -> None:
    async def run(context: Context) -> str:
        question = {"ask": "how many?"}
        while True:
            try:
                return str(await context.interrupt(question, int))
            except ValueError as error:
                question = {"ask": "how many?", "problem": str(error)}

    tested = agent(run)
    play = FakeRunContext()
    outcome = await play.play(tested, "go")
    play = resumed(play, outcome, "many")
    outcome = await play.play(tested)
    (question,) = outcome.interrupts
    assert "Expected `int`" in question.value["problem"]
    play = resumed(play, outcome, 3)
    await play.play(tested)
    assert texts(play)[-1] == "3"


async def test_an_answer_applies_to_its_position_question_and_run_only() -> None:
    async def run(context: Context) -> str:
        amount = context.messages[-1].content
        return str(await context.interrupt({"refund": amount}))

    tested = agent(run)
    first, other = FakeRunContext(), FakeRunContext()
    one = await first.play(tested, "50")
    two = await other.play(tested, "50")
    assert one.interrupts[0].id != two.interrupts[0].id
    then = resumed(other, one, "yes")
    assert (await then.play(tested)).interrupts == two.interrupts


async def test_tools_with_questions_or_approvals_wait_while_the_round_completes() -> None:
    done: list[str] = []

    async def book(context: ToolContext) -> str:
        """Book."""
        where = context.interrupt("where?")
        when = context.interrupt("when?")
        done.append("book")
        return f"{where} {when}"

    async def pay(amount: int) -> str:
        """Pay."""
        done.append(f"pay {amount}")
        return "paid"

    async def look() -> str:
        """Look."""
        done.append("look")
        return "seen"

    async def run(context: Context) -> str:
        answers = await context.tools.run([("book", {}), ("pay", {"amount": 5}), ("look", {})])
        return " ".join(str(answer.content) for answer in answers)

    tested = agent(run, book, pay, look, approve=ApprovalPolicy(tools=["pay"]))
    play = FakeRunContext()
    outcome = await play.play(tested, "go")
    where, approval = outcome.interrupts
    assert (where.value, approval.value["tool"]) == ("where?", "pay")
    assert done == ["look"]
    play = resumed(play, outcome, "here", "approve")
    outcome = await play.play(tested)
    assert [question.value for question in outcome.interrupts] == ["when?"]
    assert outcome.answered
    play = resumed(play, outcome, "now")
    await play.play(tested)
    assert texts(play)[-1] == "here now paid seen"
    assert done == ["look", "pay 5", "book"]


async def test_a_question_inside_a_step_interrupts_it_without_failure() -> None:
    async def ask(context: Context) -> str:
        return str(await context.interrupt("sure?"))

    async def run(context: Context) -> str:
        try:
            return await context.step("ask", ask, context)
        except StepFailed:
            return "failed"

    tested = agent(run)
    play = FakeRunContext()
    outcome = await play.play(tested, "go")
    play = resumed(play, outcome, "yes")
    await play.play(tested)
    assert texts(play)[-1] == "yes"


async def test_an_error_concurrent_with_a_question_fails_the_run() -> None:
    async def fail(context: Context) -> None:
        await context.step("begin", dict)
        raise KeyError("gone")

    async def run(context: Context) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(context.interrupt("sure?"))
            group.create_task(fail(context))

    async def quick(context: Context) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(wrong())
            group.create_task(context.interrupt("sure?"))

    async def wrong() -> None:
        raise KeyError("gone")

    assert len((await FakeRunContext().play(agent(run), "go")).interrupts) == 1  # the group stopped the other branch
    with pytest.raises(ExceptionGroup) as caught:
        await FakeRunContext().play(agent(quick), "go")
    assert caught.group_contains(KeyError)


async def test_what_a_tool_has_kept_goes_with_the_commit_of_its_answer() -> None:
    async def build(context: ToolContext) -> str:
        """Build it."""
        await context.keep({"job": 1})
        return "built"

    async def run(context: Context) -> str:
        return await context.tools.call("build")

    play = FakeRunContext()
    await play.play(agent(run, build), "go")
    answered = play.steps[0].update
    assert JOURNAL in answered
    assert [value for name, value in answered.items() if name.startswith("__tool:")] == [None]
    assert not any(name.startswith("__tool:") for name in play.state.channels)
