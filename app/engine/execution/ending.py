"""How a run ends: the final events that subscribers see, and the response of its callers."""

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

import msgspec

from app.agents.port import Interrupt
from app.base.containment import kind_of, text_of
from app.base.errors import AgentServiceError, RunTimeout
from app.domain.events import CheckpointPosition, Ended, Event, Failed, Interrupted, SubgraphOutput
from app.domain.state import State
from app.engine.streams.frames import with_last_member

encode = msgspec.json.Encoder().encode

ROLLED_BACK = Failed(error="RolledBack", message="The run was rolled back: the thread is as it was before.")
REMOVED = Failed(error="RunRemoved", message="The run was removed: rolled back, or deleted with its thread.")
OUT_OF_TIME = Failed(error=RunTimeout.__name__, message="The run took longer than its agent's limits.seconds.")


NO_QUESTIONS = msgspec.Raw(b'{"__interrupt__":[]}')
"""The update by which LangGraph says that a run pauses without a question."""


class RunEnding(NamedTuple):
    """How a run ended: its failure, its questions, or neither if it succeeded.

    ``paused``: it stopped where ``interrupt_before`` or ``interrupt_after`` asks for it.
    """

    failed: Failed | None = None
    interrupts: Sequence[Interrupt] = ()
    paused: bool = False

    def final_events(
        self, run_id: UUID, head: UUID | None, status: str, move: CheckpointPosition | None
    ) -> list[Event]:
        """Return the run's last events; ``move`` is the thread's position, for subscribers of its steps."""
        events: list[Event] = []
        if self.interrupts:
            events.append(
                Interrupted(
                    checkpoint_id=str(head), interrupts=msgspec.Raw(interrupts_json(self.interrupts)), move=move
                )
            )
        if self.paused:
            events.append(SubgraphOutput("updates", "", NO_QUESTIONS))
        if self.failed is not None:
            events.append(msgspec.structs.replace(self.failed, move=move))
        return [*events, Ended(run_id=str(run_id), status=status)]

    def result(self, state: State) -> list[bytes]:
        """Return the response of ``wait`` and ``join``: the values of ``state``, or the error, as chunks of JSON."""
        if self.failed is not None:
            return [encode({"__error__": {"error": self.failed.error, "message": self.failed.message}})]
        pieces = state.pieces()
        return (
            with_last_member(pieces, "__interrupt__", interrupts_json(self.interrupts)) if self.interrupts else pieces
        )


def interrupts_json(interrupts: Sequence[Interrupt]) -> bytes:
    """Return ``interrupts`` as the JSON that clients read under ``__interrupt__``."""
    return encode([{"value": i.value, "id": i.id, "response_schema": i.expects} for i in interrupts])


def failure(error: BaseException) -> Failed:
    """Return what a client may see of ``error``: our own errors in full, others truncated to 2,000 characters."""
    text = text_of(error) if issubclass(type(error), AgentServiceError) else text_of(error)[:2000]
    # neither NUL nor lone surrogates can be stored
    storable = text.encode(errors="replace").decode().replace("\x00", "\ufffd")
    return Failed(error=kind_of(error), message=storable or kind_of(error))
