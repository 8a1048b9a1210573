"""Find the unanswered tool calls in a state, which a later run may repeat."""

from typing import NamedTuple
from uuid import UUID

import msgspec

from app.agents.functions.step_journal import started_by
from app.agents.langgraph.wire import holds_graph
from app.agents.tool_loop.conversation import unanswered
from app.domain.messages import Message
from app.domain.state import MESSAGES, State

CLOCK_SKEW_MS = 3_600_000
"""Tolerated clock difference between two servers: ids of runs begin with the time."""

_decode = msgspec.json.Decoder(Message).decode


class OpenCalls(NamedTuple):
    """The ``ids`` of unanswered calls.

    While a function is unfinished, and for graphs, whose calls may have any ids, ``since`` is the lower bound of the
    ids of runs that may have made them. For graphs it is zero: any number of runs may have continued a superstep.
    """

    ids: list[str]
    since: UUID | None


def open_calls(state: State) -> OpenCalls:
    """Return the unanswered calls in ``state``: of the model's last message, or of a function's unfinished work."""
    asked = unanswered(map(_decode, reversed(state.elements(MESSAGES))))
    return OpenCalls([] if asked is None else [call.id for call in asked.calls], _since(state))


def _since(state: State) -> UUID | None:
    if holds_graph(state):
        return UUID(int=0)
    begun = started_by(state)
    return None if begun is None else UUID(int=max((begun.int >> 80) - CLOCK_SKEW_MS, 0) << 80)
