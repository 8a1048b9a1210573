"""Function agents in memory: begun, begun again after a crash, and continued with answers."""

from collections.abc import Callable
from typing import Any

from app.agents.functions.agent import Equipment, FunctionAgent
from app.agents.port import Outcome, Step
from app.agents.testing import Rehearsal
from app.agents.toolloop.agent import Limits, Manner
from app.agents.toolloop.approval import Approve
from app.agents.toolloop.calls import Toolbox
from app.base.ids import new_id
from app.llm.port import Model
from app.llm.scripted import ScriptedModel, Turn
from app.tools.function import FunctionTool


def agent(
    function: Callable[..., Any],
    *tools: Callable[..., Any],
    model: Model | None = None,
    says: tuple[Turn, ...] = (),
    approve: Approve = Approve(),
    **limits: Any,
) -> FunctionAgent:
    """An agent out of ``function`` whose model plays the turns it ``says``."""
    toolbox = Toolbox([FunctionTool(tool) for tool in tools], lambda *_: None, approve)
    manner = Manner(instructions="Be kind.", limits=Limits(**limits))
    return FunctionAgent("test", "./test.py:run", function, Equipment(model or ScriptedModel(says), toolbox, manner))


def crashed(run: Rehearsal) -> Rehearsal:
    """The same run, taken up by another owner from its last committed step."""
    again = Rehearsal(run.state, run.config)
    again.thread_id, again.run_id = run.thread_id, run.run_id
    again.next, again.step, again.answers = run.next, run.step, run.answers
    return again


def resumed(run: Rehearsal, outcome: Outcome, *answers: Any) -> Rehearsal:
    """The run that brings ``answers`` to the questions of ``outcome``, in their order."""
    again = crashed(run)
    again.run_id = new_id()
    again.answers = dict(outcome.answered)
    again.answers |= {one.id: answer for one, answer in zip(outcome.interrupts, answers, strict=False)}
    return again


def texts(run: Rehearsal) -> list[Any]:
    """What the messages of the thread say."""
    return [message.content for message in run.messages()]


class Crash(Exception):
    """The process is gone."""


class Dying(Rehearsal):
    """A run whose process dies once it has committed ``most`` steps."""

    most = 0

    async def commit(self, step: Step) -> None:
        """Keep the step, unless the process is gone."""
        if len(self.steps) >= self.most:
            raise Crash
        await super().commit(step)
