"""CPU of a token event on the wire of each protocol, next to LangGraph's ``messages-tuple``.

``python -m bench.protocols``: half a minute, no server. Rounds take turns, so that the ratios hold on a busy machine.
"""

import statistics
import time
from collections.abc import Callable
from uuid import UUID

from app.agents.port import ModelOptions
from app.domain.events import MessageDelta, RunStarted
from app.domain.state import NO_VALUES
from app.engine.streams.frames import FrameRenderer
from app.protocols.ai_sdk.projection import UIMessageProjection
from app.protocols.openai.chat import ChatProjection
from app.protocols.openai.responses.projection import ResponseProjection
from app.protocols.openai.responses.response import ResponseHead
from app.protocols.openai.responses.structs import StoredSettings
from app.protocols.projection import Projection

EVENTS = 20_000
ROUNDS = 9
RUN = UUID(int=1)
MESSAGE = "run--01a206d2-02c7-7701-809a-5c1fb81f0fcb"
BASE = "messages-tuple"


def responses() -> ResponseProjection:
    """Return the projection onto a response."""
    return ResponseProjection(ResponseHead("resp_1", RUN, RUN, 1, StoredSettings(model="assistant"), ModelOptions()))


PROTOCOLS: dict[str, Callable[[], Projection]] = {
    "Chat Completions": lambda: ChatProjection("chatcmpl-1", "assistant", 1),
    "Responses": responses,
    "AI SDK": lambda: UIMessageProjection("msg_1"),
}


def rendered(deltas: list[MessageDelta]) -> None:
    """Render ``deltas`` as frames of ``messages-tuple``."""
    renderer = FrameRenderer([BASE], 1)
    for delta in deltas:
        for frame in renderer.render(delta, NO_VALUES):
            assert frame.data


def projected(projection: Projection, deltas: list[MessageDelta]) -> None:
    """Project ``deltas`` onto a protocol."""
    for _ in projection.project(RunStarted(str(RUN), 1)):
        pass
    for delta in deltas:
        for frame in projection.project(delta):
            assert frame.data


def main() -> None:
    """Print microseconds of CPU an event, and the ratio to ``messages-tuple``."""
    deltas = [MessageDelta(MESSAGE, "agent", 1, f"tok{number % 100} ") for number in range(EVENTS)]
    costs: dict[str, list[float]] = {BASE: [], **{name: [] for name in PROTOCOLS}}
    for _ in range(ROUNDS):
        for name, found in costs.items():
            started = time.process_time()
            if name == BASE:
                rendered(deltas)
            else:
                projected(PROTOCOLS[name](), deltas)
            found.append((time.process_time() - started) / EVENTS * 1e6)
    for name, found in costs.items():
        ratio = statistics.median([one / base for one, base in zip(found, costs[BASE], strict=True)])
        print(f"{name}: {statistics.median(found):.2f} µs, {ratio:.2f} ×")


if __name__ == "__main__":
    main()
