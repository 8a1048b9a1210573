"""Run function agents in memory: start them, restart them after a crash, resume them with answers."""

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
from tests.llm.scripted_model import ScriptedModel, ScriptTurn


def agent(
    function: Callable[..., Any],
    *tools: Callable[..., Any],
    model: Model | None = None,
    says: tuple[ScriptTurn, ...] = (),
    approve: ApprovalPolicy = ApprovalPolicy(),
    **limits: Any,
) -> FunctionAgent:
    """Build an agent from ``function`` whose model plays the turns in ``says``."""
    toolbox = Toolbox([FunctionTool(tool) for tool in tools], lambda *_: None, approve)
    config = ToolLoopConfig(instructions="Be kind.", limits=RunLimits(**limits))
    return FunctionAgent(
        "test", "./test.py:run", function, FunctionResources(model or ScriptedModel(says), toolbox, config)
    )


def crashed(run: FakeRunContext) -> FakeRunContext:
    """Return the same run, claimed by another owner from its last committed step."""
    again = FakeRunContext(run.state, run.config)
    again.thread_id, again.run_id = run.thread_id, run.run_id
    again.next, again.step, again.answers = run.next, run.step, run.answers
    return again


def resumed(run: FakeRunContext, outcome: RunOutcome, *answers: Any) -> FakeRunContext:
    """Return a run with ``answers`` to the questions of ``outcome``, in their order."""
    again = crashed(run)
    again.run_id = new_id()
    again.answers = dict(outcome.answered)
    again.answers |= {one.id: answer for one, answer in zip(outcome.interrupts, answers, strict=False)}
    return again


def texts(run: FakeRunContext) -> list[Any]:
    """Return the contents of the thread's messages."""
    return [message.content for message in run.messages()]


class Crash(Exception):
    """The process died."""


class Dying(FakeRunContext):
    """A run whose process dies after ``max_steps`` committed steps."""

    max_steps = 0

    async def commit(self, step: Step) -> None:
        """Record the step, unless the process is dead."""
        if len(self.steps) >= self.max_steps:
            raise Crash
        await super().commit(step)
