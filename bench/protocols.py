"""Other protocols next to LangGraph's API: CPU of a token event on each wire, a second reader, and the first byte.

``python -m bench.protocols``: about a minute. Rounds take turns, so that the ratios hold on a busy machine.
"""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import msgspec

from app.agents.port import ModelOptions
from app.domain.events import MessageDelta, RunStarted
from app.domain.state import NO_VALUES
from app.engine.streams.frames import FrameRenderer
from app.protocols.a2a.projection import TaskProjection
from app.protocols.ag_ui.projection import AGUIProjection, RunOnWire
from app.protocols.ai_sdk.projection import UIMessageProjection
from app.protocols.openai.chat import ChatProjection
from app.protocols.openai.responses.projection import ResponseProjection
from app.protocols.openai.responses.response import ResponseHead
from app.protocols.openai.responses.structs import StoredSettings
from app.protocols.projection import Projection
from bench.client import connect, request
from bench.operations import API, HELLO, STREAM, checked, new_thread
from bench.processes import Server, cpu_seconds
from bench.serving import postgres, server

EVENTS = 20_000
ROUNDS = 9
RUN = UUID(int=1)
MESSAGE = "run--01a206d2-02c7-7701-809a-5c1fb81f0fcb"
BASE = "messages-tuple"

PAIRS = 400
BLOCK = 50
"""Pairs of streams, one on each wire, and how many of them make a ratio of medians."""

CHAT = request("POST", "/v1/chat/completions", {"model": "stream100", "stream": True, **HELLO})


READERS = 25
"""Runs with two readers, of which one or none is on another wire, that make a ratio of CPU."""


class NoValues:
    """A thread without values. Implements ``app.protocols.ag_ui.projection.StoredValues``."""

    async def before(self) -> None:
        """Return nothing."""

    async def at(self, checkpoint_id: UUID) -> None:
        """Return nothing."""


def responses() -> ResponseProjection:
    """Return the projection onto a response."""
    return ResponseProjection(ResponseHead("resp_1", RUN, RUN, 1, StoredSettings(model="assistant"), ModelOptions()))


PROTOCOLS: dict[str, Callable[[], Projection]] = {
    "Chat Completions": lambda: ChatProjection("chatcmpl-1", "assistant", 1),
    "Responses": responses,
    "AI SDK": lambda: UIMessageProjection("msg_1"),
    "AG-UI": lambda: AGUIProjection(RunOnWire(RUN, "t", "r"), NoValues()),
    "A2A": lambda: TaskProjection(str(RUN), "c"),
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


def token_costs() -> None:
    """Print microseconds of CPU an event, and the ratio to ``messages-tuple``, with the range of the rounds."""
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
        ratios = [one / base for one, base in zip(found, costs[BASE], strict=True)]
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        print(f"{name}: {statistics.median(found):.2f} µs, {statistics.median(ratios):.2f} × ({spread})")


async def first_bytes(port: int) -> list[tuple[float, float]]:
    """Return seconds to the first byte of a stream of LangGraph's API and of Chat Completions, in pairs."""
    connection = await connect(port)
    pairs = []
    for _ in range(PAIRS):
        ours = checked(await connection.ask(STREAM)).first
        chat = checked(await connection.ask(CHAT)).first
        pairs.append((ours, chat))
    connection.close()
    return pairs


async def read_twice(port: int, other: bool) -> None:
    """Run ``stream100`` with two readers: of ``messages-tuple``, and of it or of a response."""
    first, second = await connect(port), await connect(port)
    for _ in range(READERS):
        thread = await new_thread(first)
        asked = {"assistant_id": "stream100", "input": HELLO, "stream_mode": BASE}
        path = f"{API}/threads/{thread}/runs"
        run = msgspec.json.decode(checked(await first.ask(request("POST", path, asked))).body)["run_id"]
        ours = request("GET", f"{path}/{run}/stream?stream_mode={BASE}")
        theirs = request("GET", f"/v1/responses/{run}?stream=true") if other else ours
        for answer in await asyncio.gather(first.ask(ours), second.ask(theirs)):
            checked(answer)
    first.close()
    second.close()


def second_readers(running: Server) -> None:
    """Print the CPU of runs whose second reader is on another wire, next to that of runs whose readers share one."""
    used: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(ROUNDS):
        for other, found in used.items():
            before = cpu_seconds(running.pid)
            asyncio.run(read_twice(running.port, other))
            found.append((cpu_seconds(running.pid) - before) / READERS * 1000)
    shared, apart = (statistics.median(used[which]) for which in (False, True))
    ratios = [b / a for a, b in zip(used[False], used[True], strict=True)]
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    words = f"second reader on its own wire {shared:.1f} ms of CPU a run, on another {apart:.1f} ms"
    print(f"{words}, {statistics.median(ratios):.2f} × ({spread})")


def main() -> None:
    """Print all."""
    token_costs()
    with (
        tempfile.TemporaryDirectory(prefix="agent-bench-") as folder,
        postgres(Path(folder)) as database,
        server(database.url, Path(folder)) as running,
    ):
        asyncio.run(first_bytes(running.port))  # a warm-up
        second_readers(running)
        pairs = asyncio.run(first_bytes(running.port))
    blocks = [pairs[at : at + BLOCK] for at in range(0, PAIRS, BLOCK)]
    ratios = [statistics.median(b for _, b in block) / statistics.median(a for a, _ in block) for block in blocks]
    ours, chat = (statistics.median(pair[which] for pair in pairs) * 1000 for which in (0, 1))
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    print(f"first byte: runs/stream {ours:.2f} ms, chat {chat:.2f} ms, {statistics.median(ratios):.2f} × ({spread})")


if __name__ == "__main__":
    main()
