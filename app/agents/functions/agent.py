"""Run an async function as an agent: replay the results of its completed steps, then apply its return value."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

from app.agents.functions.branches import current
from app.agents.functions.context import Context
from app.agents.functions.conversion import to_builtins
from app.agents.functions.memory_access import DocumentAccess, StoreAccess
from app.agents.functions.messages import MESSAGE, FunctionMessages, to_messages
from app.agents.functions.model_calls import ModelCalls
from app.agents.functions.session import FunctionSession
from app.agents.functions.signature import Signature
from app.agents.functions.step_journal import StepJournal, unfinished
from app.agents.functions.steps import running
from app.agents.functions.tool_calls import ToolCaller
from app.agents.functions.values import check_name
from app.agents.port import START_NODE, RunContext, RunOutcome, ToolDescription
from app.agents.tool_loop.agent import ToolLoopConfig
from app.agents.tool_loop.calls import CustomEventEmitter, Toolbox
from app.agents.tool_loop.inputs import read_input
from app.agents.tools.port import LongTerm, NeedsAnswer
from app.base.errors import AgentError, StepFailed
from app.domain.messages import AIMessage
from app.domain.state import MESSAGES, State
from app.providers.llm.port import Model

RETURN_POSITION = "returned"
"""Position of the returned messages; their ids derive from it."""


def apply_result(value: Any, conversation: FunctionMessages) -> dict[str, Any]:
    """Add the messages in the return value to ``conversation``, and return the update of the thread's values.

    A text becomes the agent's message; messages and lists of messages are added as they are; an object (dictionary,
    struct, dataclass, model) updates the values; None changes nothing. Raises ``AgentError`` for anything else.
    """
    if value is None:
        return {}
    if isinstance(value, str):
        conversation.say([conversation.streamed_answer(value) or AIMessage(content=value)], RETURN_POSITION)
        return {}
    if isinstance(value, MESSAGE):
        conversation.say([value], RETURN_POSITION)
        return {}
    if isinstance(value, list | tuple) and all(isinstance(one, MESSAGE) for one in value):
        conversation.say(value, RETURN_POSITION)
        return {}
    try:
        update = to_builtins(value)
    except TypeError as error:
        raise AgentError(f"The function returned a value that is not valid JSON: {error}.") from error
    if not isinstance(update, dict):
        raise AgentError(
            f"The function returned a {type(value).__name__}: return a text, a message, a list of messages, an object "
            "of values, or nothing."
        )
    try:
        given = update.pop(MESSAGES, None) or []
        given = given if isinstance(given, list) else [given]
        removed = [one for one in given if isinstance(one, dict) and one.get("type") == "remove"]
        conversation.remove([str(one.get("id")) for one in removed])
        added = [one for one in given if one not in removed]
        conversation.say(to_messages(added, conversation.id_at(RETURN_POSITION, -1)), RETURN_POSITION)
        for name in update:
            check_name(name)
    except ValueError as error:
        raise AgentError(f"The function returned values that cannot be stored: {error}.") from error
    return update


class FunctionResources:
    """Resources of a function agent: its ``model``, ``toolbox``, ``config`` and the long-term ``store``."""

    def __init__(
        self, model: Model, toolbox: Toolbox, config: ToolLoopConfig = ToolLoopConfig(), store: LongTerm | None = None
    ) -> None:
        self.model = model
        self.toolbox = toolbox
        self.config = config
        self.store = store


class FunctionAgent:
    """An agent implemented by an async function (``app.agents.port.Agent``). ``code`` names the function in errors.

    Raises ``StartError`` if the function has an unsupported signature.
    """

    def __init__(
        self, name: str, code: str, function: Callable[..., Any], resources: FunctionResources, description: str = ""
    ) -> None:
        self.name = name
        self.description = description
        self.seconds = resources.config.limits.seconds
        self._signature = Signature(code, function)
        self._resources = resources
        self.node = self._signature.node
        self.nodes: tuple[str, ...] = (self.node, *self._signature.steps)

    def tools(self) -> list[ToolDescription]:
        """Return its tools."""
        return self._resources.toolbox.describe()

    def peers(self) -> frozenset[str]:
        """Return the names of its tools that are other agents."""
        return self._resources.toolbox.peers

    def read_input(self, value: Any, run_id: UUID) -> dict[str, Any]:
        """Read the function's typed input, or messages in any supported form. Restarts the function.

        Raises ``Unavailable`` if its tools cannot be used.
        """
        self._resources.toolbox.check()
        return self._signature.read_input(self.name, value, run_id)

    def read_update(self, value: Any, run_id: UUID) -> dict[str, Any]:
        """Read messages and values, without restarting the function."""
        return read_input(value, run_id)

    def after(self, node: str, state: State) -> tuple[str, ...]:
        """Return the function's node until it has ended."""
        continues = node in {START_NODE, *self._signature.steps} or (node == self.node and unfinished(state))
        return (self.node,) if continues else ()

    def schemas(self) -> dict[str, Any]:
        """Return the JSON Schemas of the function's input and return value."""
        return self._signature.schemas()

    def graph(self) -> dict[str, Any]:
        """Return one node for the function, and one for each step declared in its module."""
        return self._signature.graph()

    async def run(self, context: RunContext) -> RunOutcome:
        """Run the function to its end, or until it waits for a person's answers."""
        if not {*self.nodes} & {*context.next}:
            return RunOutcome()
        journal = StepJournal.load(context.state, self.name, str(context.run_id))
        resources = self._resources
        with CustomEventEmitter(context) as emitter:
            session = FunctionSession(context, journal, self.node, resources.config.limits, emitter)
            function_context = Context(
                session,
                ModelCalls(session, resources.model, resources.toolbox, resources.config),
                ToolCaller(session, resources.toolbox),
                StoreAccess(session, resources.store),
                DocumentAccess(session, resources.store),
            )
            tokens = current.set(session.root), running.set(session)
            try:
                outcome = await self._outcome(session, function_context)
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
        if session.open_interrupts:
            await session.wait_until_idle()
            session.check()
            return session.interrupted()
        return session.finished(apply_result(returned, session.conversation))
