"""A function as an agent: begun again from its start, with what its finished steps gave back.

What a function returned → what it changes in the thread.
"""

from collections.abc import Callable
from typing import Any
from uuid import UUID

from app.agents.functions.branches import current
from app.agents.functions.context import Context
from app.agents.functions.conversion import to_builtins
from app.agents.functions.memory_access import DocumentAccess, StoreAccess
from app.agents.functions.messages import MESSAGE, FunctionMessages, structs
from app.agents.functions.model_calls import ModelCalls
from app.agents.functions.session import FunctionSession
from app.agents.functions.signature import Signature
from app.agents.functions.step_journal import StepJournal, unfinished
from app.agents.functions.steps import running
from app.agents.functions.tool_calls import ToolCaller
from app.agents.functions.values import check_name
from app.agents.port import START_NODE, RunContext, RunOutcome
from app.agents.tool_loop.agent import ToolLoopConfig
from app.agents.tool_loop.calls import CustomEventEmitter, Toolbox
from app.agents.tool_loop.inputs import read_input
from app.agents.tools.port import LongTerm, NeedsAnswer
from app.base.errors import AgentError, StepFailed
from app.domain.messages import AIMessage
from app.domain.state import MESSAGES, State
from app.providers.llm.port import Model

PLACE = "returned"


def apply_result(value: Any, conversation: FunctionMessages) -> dict[str, Any]:
    """Add the messages in ``value`` to ``conversation``; the values in it are the answer.

    A text is the agent's message, a message and a list of messages are themselves, an object (dictionary, struct,
    dataclass, model) is an update of the values, None is nothing. Raises ``AgentError`` for anything else.
    """
    if value is None:
        return {}
    if isinstance(value, str):
        conversation.say([conversation.answer_with(value) or AIMessage(content=value)], PLACE)
        return {}
    if isinstance(value, MESSAGE):
        conversation.say([value], PLACE)
        return {}
    if isinstance(value, list | tuple) and all(isinstance(one, MESSAGE) for one in value):
        conversation.say(value, PLACE)
        return {}
    try:
        update = to_builtins(value)
    except TypeError as error:
        raise AgentError(f"The function returned what is no JSON: {error}.") from error
    if not isinstance(update, dict):
        raise AgentError(
            f"The function returned a {type(value).__name__}: return a text, a message, a list of messages, an object "
            "of values, or nothing."
        )
    try:
        given = update.pop(MESSAGES, None) or []
        given = given if isinstance(given, list) else [given]
        taken_out = [one for one in given if isinstance(one, dict) and one.get("type") == "remove"]
        conversation.take_out([str(one.get("id")) for one in taken_out])
        added = [one for one in given if one not in taken_out]
        conversation.say(structs(added, conversation.id_at(PLACE, -1)), PLACE)
        for name in update:
            check_name(name)
    except ValueError as error:
        raise AgentError(f"The function returned values that cannot be kept: {error}.") from error
    return update


class FunctionResources:
    """What a function finds in its context: a ``model``, the tools of ``toolbox``, its ``manner``, the ``store``."""

    def __init__(
        self, model: Model, toolbox: Toolbox, manner: ToolLoopConfig = ToolLoopConfig(), store: LongTerm | None = None
    ) -> None:
        self.model = model
        self.toolbox = toolbox
        self.manner = manner
        self.store = store


class FunctionAgent:
    """An agent out of an async function (``app.agents.port.Agent``). ``code`` names it, for what is said of it.

    Raises ``StartError`` for a function that cannot be one.
    """

    def __init__(
        self, name: str, code: str, function: Callable[..., Any], equipment: FunctionResources, description: str = ""
    ) -> None:
        self.name = name
        self.description = description
        self.seconds = equipment.manner.limits.seconds
        self._signature = Signature(code, function)
        self._equipment = equipment
        self.node = self._signature.node
        self.nodes: tuple[str, ...] = (self.node, *self._signature.steps)

    def read_input(self, value: Any, run_id: UUID) -> dict[str, Any]:
        """The input that the function takes, or messages in any of the usual forms. The work begins anew with it."""
        return self._signature.read_input(self.name, value, run_id)

    def read_update(self, value: Any, run_id: UUID) -> dict[str, Any]:
        """Messages and values; what the function has done stays done."""
        return read_input(value, run_id)

    def after(self, node: str, state: State) -> tuple[str, ...]:
        """The function, until it has ended."""
        goes_on = node in {START_NODE, *self._signature.steps} or (node == self.node and unfinished(state))
        return (self.node,) if goes_on else ()

    def schemas(self) -> dict[str, Any]:
        """Of the function's input and answer."""
        return self._signature.schemas()

    def graph(self) -> dict[str, Any]:
        """One node, and the steps that are declared beside the function."""
        return self._signature.graph()

    async def run(self, context: RunContext) -> RunOutcome:
        """Begin the function; its end, or the questions that it cannot go on without."""
        if not {*self.nodes} & {*context.next}:
            return RunOutcome()
        journal = StepJournal.load(context.state, self.name, str(context.run_id))
        equipment = self._equipment
        with CustomEventEmitter(context) as voice:
            session = FunctionSession(context, journal, self.node, equipment.manner.limits, voice)
            given = Context(
                session,
                ModelCalls(session, equipment.model, equipment.toolbox, equipment.manner),
                ToolCaller(session, equipment.toolbox),
                StoreAccess(session, equipment.store),
                DocumentAccess(session, equipment.store),
            )
            tokens = current.set(session.root), running.set(session)
            try:
                outcome = await self._outcome(session, given)
            except Exception:
                session.check()
                raise
            finally:
                current.reset(tokens[0])
                running.reset(tokens[1])
                await session.close()
            session.check()
            return outcome

    async def _outcome(self, session: FunctionSession, context: Context) -> RunOutcome:
        arguments = self._signature.arguments(session.journal.begun.input)
        returned: Any = None
        try:
            returned = await self._signature.function(context, *arguments)
        except (NeedsAnswer, BaseExceptionGroup) as error:
            _, others = error.split(NeedsAnswer) if isinstance(error, BaseExceptionGroup) else (error, None)
            if others is not None:
                raise others from None
        except StepFailed as error:
            raise error.__cause__ or error from None
        if session.open:
            await session.rest()
            session.check()
            return session.interrupted()
        return session.finished(apply_result(returned, session.conversation))
