"""A function as an agent: begun again from its start, with what its finished steps gave back."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

from app.agents.functions.asking import Asking
from app.agents.functions.branches import current
from app.agents.functions.context import Context
from app.agents.functions.journal import Journal, unfinished
from app.agents.functions.returned import take
from app.agents.functions.session import Session
from app.agents.functions.signature import Signature
from app.agents.functions.steps import running
from app.agents.functions.storing import Reading, Storing
from app.agents.functions.tools import Tools
from app.agents.port import START_NODE, Outcome, RunContext
from app.agents.toolloop.agent import Manner
from app.agents.toolloop.calls import Toolbox
from app.agents.toolloop.inputs import read_input
from app.agents.toolloop.voice import Voice
from app.base.errors import StepFailed
from app.domain.state import State
from app.llm.port import Model
from app.tools.port import LongTerm, NeedsAnswer


class Equipment:
    """What a function finds in its context: a ``model``, the tools of ``toolbox``, its ``manner``, the ``store``."""

    def __init__(
        self, model: Model, toolbox: Toolbox, manner: Manner = Manner(), store: LongTerm | None = None
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
        self, name: str, code: str, function: Callable[..., Any], equipment: Equipment, description: str = ""
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

    async def run(self, context: RunContext) -> Outcome:
        """Begin the function; its end, or the questions that it cannot go on without."""
        if not {*self.nodes} & {*context.next}:
            return Outcome()
        journal = Journal.load(context.state, self.name, str(context.run_id))
        equipment = self._equipment
        with Voice(context) as voice:
            session = Session(context, journal, self.node, equipment.manner.limits, voice)
            given = Context(
                session,
                Asking(session, equipment.model, equipment.toolbox, equipment.manner),
                Tools(session, equipment.toolbox),
                Storing(session, equipment.store),
                Reading(session, equipment.store),
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

    async def _outcome(self, session: Session, context: Context) -> Outcome:
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
        return session.finished(take(returned, session.conversation))
