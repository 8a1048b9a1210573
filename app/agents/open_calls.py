"""Which tool calls of earlier runs a run may make again: those that the state it goes on from still holds open."""

from typing import NamedTuple
from uuid import UUID

import msgspec

from app.agents.functions.step_journal import begun_in
from app.agents.tool_loop.conversation import unanswered
from app.domain.messages import Message
from app.domain.state import MESSAGES, State

CLOCK_SKEW_MS = 3_600_000
"""By how much the clocks of two servers may differ: ids of runs begin with the time."""

_decode = msgspec.json.Decoder(Message).decode


class OpenCalls(NamedTuple):
    """The ``ids`` of calls without an answer, and where a function is under way, the least id of the runs ``since``."""

    ids: list[str]
    since: UUID | None


def open_calls(state: State) -> OpenCalls:
    """The calls that ``state`` holds open: of the model's last message, or of a function's unfinished work."""
    asked = unanswered(map(_decode, reversed(state.elements(MESSAGES))))
    begun = begun_in(state)
    since = None if begun is None else UUID(int=max((begun.int >> 80) - CLOCK_SKEW_MS, 0) << 80)
    return OpenCalls([] if asked is None else [call.id for call in asked.calls], since)
