"""Function agents in memory: begun, begun again after a crash, and continued with answers."""

from collections.abc import Callable
from typing import Any

from app.agents.functions.agent import FunctionAgent, FunctionResources
from app.agents.port import RunOutcome, Step
from app.agents.testing import FakeRunContext
from app.agents.tool_loop.agent import RunLimits, ToolLoopConfig
from app.agents.tool_loop.approval import ApprovalPolicy
from app.agents.tool_loop.calls import Toolbox
from app.agents.tools.function_tool import FunctionTool
from app.base.ids import new_id
from app.providers.llm.port import Model
from app.providers.llm.scripted import ScriptedModel, ScriptTurn


def agent(
    function: Callable[..., Any],
    *tools: Callable[..., Any],
    model: Model | None = None,
    says: tuple[ScriptTurn, ...] = (),
    approve: ApprovalPolicy = ApprovalPolicy(),
    **limits: Any,
) -> FunctionAgent:
    """An agent out of ``function`` whose model plays the turns it ``says``."""
    toolbox = Toolbox([FunctionTool(tool) for tool in tools], lambda *_: None, approve)
    config = ToolLoopConfig(instructions="Be kind.", limits=RunLimits(**limits))
    return FunctionAgent(
        "test", "./test.py:run", function, FunctionResources(model or ScriptedModel(says), toolbox, config)
    )


def crashed(run: FakeRunContext) -> FakeRunContext:
    """The same run, taken up by another owner from its last committed step."""
    again = FakeRunContext(run.state, run.config)
    again.thread_id, again.run_id = run.thread_id, run.run_id
    again.next, again.step, again.answers = run.next, run.step, run.answers
    return again


def resumed(run: FakeRunContext, outcome: RunOutcome, *answers: Any) -> FakeRunContext:
    """The run that brings ``answers`` to the questions of ``outcome``, in their order."""
    again = crashed(run)
    again.run_id = new_id()
    again.answers = dict(outcome.answered)
    again.answers |= {one.id: answer for one, answer in zip(outcome.interrupts, answers, strict=False)}
    return again


def texts(run: FakeRunContext) -> list[Any]:
    """What the messages of the thread say."""
    return [message.content for message in run.messages()]


class Crash(Exception):
    """The process is gone."""


class Dying(FakeRunContext):
    """A run whose process dies once it has committed ``most`` steps."""

    most = 0

    async def commit(self, step: Step) -> None:
        """Keep the step, unless the process is gone."""
        if len(self.steps) >= self.most:
            raise Crash
        await super().commit(step)
