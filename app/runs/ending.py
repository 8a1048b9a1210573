"""How a run ended, in the words that its clients hear."""

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

import msgspec

from app.agents.port import Interrupt
from app.base.errors import AgentServiceError
from app.base.ids import task_id
from app.domain.events import Ended, Event, Failed, Interrupted, Move
from app.domain.state import State
from app.runs.frames import with_last_member

encode = msgspec.json.Encoder().encode

ROLLED_BACK = Failed(error="RolledBack", message="The run was rolled back: the thread is as it was before.")
REMOVED = Failed(error="RunRemoved", message="The run was removed: rolled back, or deleted with its thread.")
OUT_OF_TIME = Failed(error="RunTimeout", message="The run took longer than its agent's limits.seconds.")


class Ending(NamedTuple):
    """What a run ended with: how it failed, or what it asks; neither when it went well."""

    failed: Failed | None = None
    interrupts: Sequence[Interrupt] = ()

    def last_words(self, run_id: UUID, head: UUID | None, status: str, move: Move | None) -> list[Event]:
        """The run's last events; ``move`` tells where the thread stands, to those who watch steps."""
        words: list[Event] = []
        if self.interrupts:
            words.append(
                Interrupted(checkpoint_id=str(head), interrupts=msgspec.Raw(shown(self.interrupts)), move=move)
            )
        if self.failed is not None:
            words.append(msgspec.structs.replace(self.failed, move=move))
        return [*words, Ended(run_id=str(run_id), status=status)]

    def result(self, state: State) -> list[bytes]:
        """What ``wait`` and ``join`` answer: the values of ``state``, or the error, as JSON in pieces."""
        if self.failed is not None:
            return [encode({"__error__": {"error": self.failed.error, "message": self.failed.message}})]
        pieces = state.pieces()
        return with_last_member(pieces, "__interrupt__", shown(self.interrupts)) if self.interrupts else pieces


def shown(interrupts: Sequence[Interrupt]) -> bytes:
    """The JSON of what waits, as clients read it under ``__interrupt__``."""
    return encode([{"value": i.value, "id": i.id, "response_schema": i.expects} for i in interrupts])


def failure(error: BaseException) -> Failed:
    """What a client may know of ``error``: our own errors speak for themselves, an agent's are shown bounded."""
    try:
        words = str(error) if isinstance(error, AgentServiceError) else str(error)[:2000]
    except Exception:  # noqa: BLE001  an error whose text cannot be made still has a class
        words = ""
    # neither a zero byte nor half a surrogate pair can be stored
    sayable = words.encode(errors="replace").decode().replace("\x00", "\ufffd")
    return Failed(error=type(error).__name__, message=sayable or type(error).__name__)


def task_of(head: UUID | None, following: Sequence[str]) -> str:
    """The task that asks: the first node that would go on from the newest checkpoint ``head``."""
    assert head is not None
    return str(task_id(head, following[0] if following else ""))
