"""Tools that the caller of a run offers: the model is offered them, their calls wait, results resume the run."""

import msgspec
import pytest

from app.agents.port import ModelOptions, RunInstructions
from app.agents.testing import FakeRunContext
from app.agents.tool_loop.conversation import unanswered
from app.base.errors import Invalid, ModelProtocol
from app.domain.messages import WAITING_CALLS, AIMessage, ToolMessage
from app.providers.llm.port import ModelEvent, TextDelta, ToolChoice, ToolSpec
from tests.agents.test_toolloop import ScriptedTurns, agent, call

WEATHER = ToolSpec("weather", "The weather.", {"type": "object", "properties": {"city": {"type": "string"}}})


def asked_with(**options: object) -> FakeRunContext:
    run = FakeRunContext()
    run.instructions = RunInstructions(model_options=msgspec.convert(options, ModelOptions, from_attributes=True))
    return run


def look() -> str:
    """Look."""
    return "seen"


async def test_a_call_of_a_client_tool_waits_for_its_result_and_the_agents_own_runs() -> None:
    run = asked_with(tools=[WEATHER])
    both: list[ModelEvent] = [call("weather", '{"city":"Rome"}', "c1", 0), call("look", "{}", "c2", 1)]
    model = ScriptedTurns(both, [TextDelta("sunny")])
    outcome = await run.play(agent(model, look), "go")
    assert [tool.name for tool in model.asked[0].tools] == ["look", "weather"]
    (asked,) = outcome.interrupts
    assert (asked.call_id, asked.value["tool"], asked.value["args"]) == ("c1", "weather", {"city": "Rome"})
    assert [intent.tool for step in run.steps for intent in step.intents] == ["look"]
    message = run.messages()[1]
    assert isinstance(message, AIMessage)
    assert message.response_metadata[WAITING_CALLS] == {"c1": "client"}
    waiting = unanswered(reversed(run.messages()))
    assert waiting is not None
    assert [one.id for one in waiting.calls] == ["c1"]

    resumed = FakeRunContext(run.state)  # by a client that knows nothing of the tool
    resumed.next = ("tools",)
    resumed.answers = {asked.id: [{"type": "text", "text": "22 degrees"}]}
    outcome = await resumed.play(agent(model, look))
    assert outcome.interrupts == ()
    last = resumed.messages()
    assert isinstance(last[-2], ToolMessage)
    assert last[-2].content == [{"type": "text", "text": "22 degrees"}]
    assert isinstance(last[-1], AIMessage)
    assert last[-1].content == "sunny"


async def test_arguments_that_are_no_json_and_failures_are_the_clients_too() -> None:
    run = asked_with(tools=[WEATHER])
    model = ScriptedTurns([call("weather", "{")], [TextDelta("sorry")])
    (asked,) = (await run.play(agent(model), "go")).interrupts
    assert asked.value["args"] == "{"
    resumed = FakeRunContext(run.state)
    resumed.next = ("tools",)
    resumed.answers = {asked.id: {"content": "no such city", "status": "error"}}
    await resumed.play(agent(model))
    answer = resumed.messages()[-2]
    assert isinstance(answer, ToolMessage)
    assert (answer.content, answer.status) == ("no such city", "error")


async def test_tool_choice_is_enforced() -> None:
    silent = asked_with(tools=[WEATHER], tool_choice=ToolChoice(mode="required"))
    with pytest.raises(ModelProtocol, match="tool_choice"):
        await silent.play(agent(ScriptedTurns([TextDelta("no")])), "go")

    once = asked_with(tool_choice=ToolChoice(mode="required"))
    model = ScriptedTurns([call("look")], [TextDelta("done")])
    await once.play(agent(model, look), "go")
    assert [asked.tool_choice.mode for asked in model.asked] == ["required", "auto"]

    restricted = asked_with(tools=[WEATHER], tool_choice=ToolChoice(names=("weather",)))
    model = ScriptedTurns([call("look")], [TextDelta("done")])
    await restricted.play(agent(model, look), "go")
    assert [tool.name for tool in model.asked[0].tools] == ["weather"]
    refused = restricted.messages()[2]
    assert isinstance(refused, ToolMessage)
    assert refused.status == "error"
    assert "tool_choice does not allow it" in str(refused.content)
    assert not any(step.intents for step in restricted.steps)


async def test_instructions_of_a_request_follow_the_agents() -> None:
    run = asked_with(instructions="Be brief.")
    model = ScriptedTurns([TextDelta("ok")])
    await run.play(agent(model), "go")
    assert model.asked[0].instructions == "Be brief."


@pytest.mark.parametrize(
    "options, pointer",
    [
        (ModelOptions(tools=(WEATHER, WEATHER)), "/model_options/tools/1/name"),
        (ModelOptions(tools=(ToolSpec("look", "", {"type": "object"}),)), "/model_options/tools/0/name"),
        (ModelOptions(tools=(ToolSpec("a b", "", {"type": "object"}),)), "/model_options/tools/0/name"),
        (ModelOptions(tools=(ToolSpec("a", "", {}),)), "/model_options/tools/0/parameters"),
        (ModelOptions(tool_choice=ToolChoice(names=("weather",))), "/model_options/tool_choice"),
    ],
)
def test_options_that_make_no_sense_are_refused_before_the_run(options: ModelOptions, pointer: str) -> None:
    with pytest.raises(Invalid) as refused:
        agent(ScriptedTurns(), look).check_options(options)
    assert refused.value.errors[0][0] == pointer
