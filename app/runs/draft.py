"""What a run has done and not yet written: its state, and the checkpoints, steps and intents of the next entry."""

from uuid import UUID

import msgspec

from app.agents.port import Step, ToolIntent
from app.checkpoints.codec import pack
from app.checkpoints.entry import CheckpointEntry
from app.domain.state import State
from app.runs.entries import Claimed, EndEntry, IntentEntry, JournalEntry, StepEntry
from app.runs.loading import Loaded

encode = msgspec.json.Encoder().encode


class Draft:
    """The thread as its run changes it. ``step`` numbers the next checkpoint, ``head`` is the newest one."""

    def __init__(self, claimed: Claimed, loaded: Loaded) -> None:
        self._claimed = claimed
        self.state: State = loaded.state
        self.head = loaded.checkpoint_id
        self.next = loaded.next
        self.step = loaded.step + 1
        self._checkpoints: list[CheckpointEntry] = []
        self._steps: list[StepEntry] = []
        self._intents: list[IntentEntry] = []

    @property
    def pending(self) -> bool:
        """Whether there is a checkpoint to write."""
        return bool(self._checkpoints)

    def checkpoint(self, source: str, following: tuple[str, ...]) -> UUID:
        """Keep the state as the thread's next checkpoint, from which ``following`` go on; its id."""
        entry = CheckpointEntry.of(self.state, parent_id=self.head, source=source, step=self.step, following=following)
        self._checkpoints.append(entry)
        self.head = entry.checkpoint_id
        self.next = following
        self.step += 1
        return entry.checkpoint_id

    def take(self, step: Step) -> UUID:
        """Merge what ``step`` changed and keep it as done; the id of its checkpoint."""
        self.state.apply(step.update)
        number = self.step
        checkpoint_id = self.checkpoint("loop", step.next)
        usage = None if step.usage is None else encode(step.usage).decode()
        self._steps.append(StepEntry(step=number, node=step.node, checkpoint_id=checkpoint_id, usage=usage))
        self.intend(step.intents, number)
        return checkpoint_id

    def intend(self, intents: tuple[ToolIntent, ...], number: int) -> None:
        """Keep that these calls, asked for by step ``number``, may start."""
        self._intents += [
            IntentEntry(call_id=i.call_id, step=number, tool=i.tool, tool_class=i.tool_class, key=i.key, args=i.args)
            for i in intents
        ]

    def entry(self, events: list[tuple[int, bytes]], end: EndEntry | None = None) -> JournalEntry:
        """Everything kept since the last entry, to be written at once."""
        checkpoints, self._checkpoints = self._checkpoints, []
        steps, self._steps = self._steps, []
        intents, self._intents = self._intents, []
        claimed = self._claimed
        return JournalEntry(
            tenant_id=claimed.tenant_id,
            thread_id=claimed.thread_id,
            run_id=claimed.run_id,
            epoch=claimed.epoch,
            owner=claimed.owner,
            head=self.head if checkpoints else None,
            last_number=self.state.last_number,
            checkpoints=checkpoints,
            items=[(number, pack(body)) for number, body in self.state.take_items()],
            steps=steps,
            intents=intents,
            events=events,
            end=end,
        )
