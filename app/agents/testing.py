"""A fake run context for tests of agents, without a database."""

from collections.abc import Callable
from typing import Any, NoReturn
from uuid import UUID

import msgspec

from app.agents.port import (
    START_NODE,
    Agent,
    RunConfig,
    RunInstructions,
    RunOutcome,
    Step,
    ToolIntent,
    UnresolvedCall,
)
from app.base.errors import LeaseLost
from app.base.ids import new_id
from app.domain.events import Event, MessageAdded
from app.domain.messages import Message
from app.domain.state import MESSAGES, State

_decode = msgspec.json.Decoder(Message).decode


class FakeRunContext:
    """In-memory ``app.agents.port.RunContext`` that records its steps, intents and events in lists."""

    def __init__(self, state: State | None = None, config: RunConfig | None = None) -> None:
        self.tenant_id = UUID(int=1)
        self.thread_id = new_id()
        self.run_id = new_id()
        self.assistant_id = UUID(int=2)
        self.state = state or State()
        self.config = config or RunConfig()
        self.context: dict[str, Any] = {}
        self.answers: dict[str, Any] = {}
        self.next: tuple[str, ...] = ()
        self.unresolved_calls: dict[str, list[UnresolvedCall]] = {}
        self.step = 0
        self.events: list[Event] = []
        self.steps: list[Step] = []
        self.intents: list[ToolIntent] = []
        self.instructions = RunInstructions()
        self.cancelled = False

    def check_lease(self) -> None:
        """Do nothing: a fake run never loses its lease."""

    def message_id(self) -> str:
        """Return a new message id."""
        return f"run--{new_id()}"

    def emit(self, event: Event) -> None:
        """Record the event."""
        self.events.append(event)

    async def intend(self, intents: tuple[ToolIntent, ...]) -> None:
        """Record the intents."""
        self.intents += intents

    async def commit(self, step: Step) -> None:
        """Record the step and apply it to the state."""
        self.state.apply(step.update)
        self.next = step.next
        self.events += [MessageAdded(step.node, self.step, message) for message in step.added]
        self.steps.append(step)
        self.step += 1

    async def amend(self, update: dict[str, Any]) -> None:
        """Apply hidden values to the state."""
        self.state.amend(update)

    def on_drain(self, callback: Callable[[], None]) -> None:
        """Do nothing: a fake run's process never drains."""

    def hand_over(self) -> NoReturn:
        """Raise, as nothing resumes a fake run."""
        raise LeaseLost("A fake run has no other process.")

    async def play(self, agent: Agent, value: Any = None) -> RunOutcome:
        """Run ``agent`` with an input (None: resume) until it ends."""
        if value is not None:
            self.state.apply(agent.read_input(value, self.run_id))
            self.next = agent.after(START_NODE, self.state)
        outcome = await agent.run(self)
        if outcome.step is not None:
            await self.commit(outcome.step)
        return outcome

    def messages(self) -> list[Message]:
        """Return the conversation so far."""
        return [_decode(element) for element in self.state.elements(MESSAGES)]
