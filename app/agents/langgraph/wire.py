"""Frames between the engine and its worker: a length of four bytes, little-endian, then a msgpack array of messages.

The other end is ``agent_service_graphs.wire``, in the worker's own Python environment.
"""

import asyncio
import contextlib
import struct
from typing import Any

import msgspec

from app.agents.port import ToolDescription
from app.domain.state import State

HEAD = "__graph"
"""The hidden value that holds the checkpoint of a graph without its channels (``agent_service_graphs.documents``)."""

NAMESPACE, ENDED = f"{HEAD}:ns:", f"{HEAD}:ended:"
"""Prefixes of hidden values: the newest checkpoint of a subgraph in the superstep that follows a graph's checkpoint,
and the last one in the superstep before it."""

WRITES = f"{HEAD}:writes"
"""The hidden list of what tasks of the superstep that has not ended have written."""

LENGTH = struct.Struct("<I")
MAX_FRAME_BYTES = 128 * 1024 * 1024
"""The worker's frames hold messages of at most 64 MiB, and no further one from 1 MiB."""

Changes = dict[str, list[Any] | None]
"""Changes of a thread's values, as ``agent_service_graphs.stored_values`` describes them."""


def holds_graph(state: State) -> bool:
    """Whether ``state`` is of a graph: it has a checkpoint, or an input that its first superstep reads."""
    return any(name.startswith(HEAD) for name in state.channels)


class GraphDescription(msgspec.Struct, kw_only=True):
    """What a graph looks like from outside, or the ``error`` that keeps it from being used.

    ``is_factory``: a function makes it for each use; ``undescribed``: why it could not without a run, whose settings it
    may need.
    """

    nodes: list[str] = []
    schemas: dict[str, Any] = {}
    graph: dict[str, Any] = {}
    subgraphs: dict[str, Any] = {}
    tools: list[ToolDescription] = []
    description: str = ""
    error: str = ""
    is_factory: bool = False
    undescribed: str = ""


class WorkerReady(msgspec.Struct, tag_field="op", tag="ready"):
    """The worker serves; ``python`` is its version."""

    python: str


class GraphsLoaded(msgspec.Struct, tag_field="op", tag="loaded"):
    """Every graph is loaded, or broken."""

    graphs: dict[str, GraphDescription]


class WorkerAnswer(msgspec.Struct, tag_field="op", tag="answer"):
    """The ``result`` of the request ``id``, or the name of its ``error`` and a ``message``."""

    id: int
    result: dict[str, Any] = {}
    error: str = ""
    message: str = ""


class StepUsage(msgspec.Struct):
    """Tokens of messages in a superstep whose models reported no calls, and the name of the last model."""

    input_tokens: int
    output_tokens: int
    total_tokens: int
    model: str


class StepReport(msgspec.Struct, tag_field="op", tag="step"):
    """A superstep of ``run`` has ended. ``updates`` is JSON of each node's output.

    With a ``wait`` number the worker waits for the acknowledgement of the commit.
    """

    run: int
    changes: Changes
    nodes: list[str]
    next: list[str]
    updates: list[bytes]
    usage: StepUsage | None = None
    wait: int = 0


class ChangeReport(msgspec.Struct, tag_field="op", tag="change"):
    """Tasks or subgraphs have finished inside of a superstep."""

    run: int
    changes: Changes
    wait: int = 0


class ModelReport(msgspec.Struct, tag_field="op", tag="model", kw_only=True):
    """A call of a model in ``run``, its ``id``-th: begun, in progress, or ``ended``. ``model`` is vendor:name.

    Tokens are those so far, ``estimated`` where no provider has counted them.
    """

    run: int
    id: int
    model: str
    input_tokens: int
    output_tokens: int
    estimated: bool
    ended: bool


class OutputReport(msgspec.Struct, tag_field="op", tag="emit", kw_only=True):
    """Output for subscribers: a message's ``delta``, a ``message``, a ``custom`` value, or a ``subgraph``'s output.

    ``fields`` and ``metadata`` as of ``MessageDelta``; empty if they are those of the message's chunk before.
    """

    run: int
    kind: str
    namespace: list[str] = []
    mode: str = ""
    node: str = ""
    step: int = 0
    data: bytes = b""
    id: str = ""
    text: str = ""
    reasoning: str = ""
    call: dict[str, Any] | None = None
    last: bool = False
    fields: bytes = b""
    metadata: bytes = b""


class AskedQuestion(msgspec.Struct):
    """An interrupt of the graph; ``value`` is JSON."""

    id: str
    value: bytes
    schema: dict[str, Any] | None = None


class EndReport(msgspec.Struct, tag_field="op", tag="end", kw_only=True):
    """The run has ended: ``done``, ``interrupted``, ``paused``, ``drained`` or ``error``.

    The worker keeps the thread's values as the run has left them, in ``kept`` bytes of memory; 0: it does not.
    """

    run: int
    status: str
    kept: int = 0
    interrupts: list[AskedQuestion] = []
    error: str = ""
    message: str = ""
    at: str = ""


class MarkReport(msgspec.Struct, tag_field="op", tag="mark"):
    """A place in the reports of ``run``: acknowledged under ``wait`` once the engine has dealt with those before it."""

    run: int
    wait: int


class StoreRequest(msgspec.Struct, tag_field="op", tag="store"):
    """Operations on the store, to be answered under ``id``."""

    run: int
    id: int
    ops: list[dict[str, Any]]


class ThreadsRequest(msgspec.Struct, tag_field="op", tag="threads"):
    """An operation on stored checkpoints (``app.features.threads.graph_threads``), to be answered under ``id``."""

    run: int
    id: int
    what: dict[str, Any]


class ToolRequest(msgspec.Struct, tag_field="op", tag="tool", kw_only=True):
    """A call of the tool ``name``, to be decided about under ``id`` (``app.agents.langgraph.tools.Answer``).

    ``key`` and ``call_id`` are the same in every attempt of a call. ``attempt``: of its node, which LangGraph may run
    again when it fails. ``args`` is JSON. Tools of the graph itself have a ``tool_class`` or need ``approval``; others
    are those of the agents file. ``looked_up``: what the look-up of a ``reconcilable`` one said, ``absent`` or why it
    failed.
    """

    run: int
    id: int
    key: str
    call_id: str
    attempt: int
    name: str
    args: bytes
    tool_class: str = ""
    approval: bool = False
    looked_up: str = ""


class ToolExecuted(msgspec.Struct, tag_field="op", tag="executed"):
    """The worker has run the call ``key``: it is ``done``, has ``failed``, or has ``asked`` a person.

    ``stored``: the hidden value that holds its result.
    """

    run: int
    key: str
    call_id: str
    how: str
    stored: str


RunReport = (
    StepReport
    | ChangeReport
    | ModelReport
    | OutputReport
    | EndReport
    | MarkReport
    | StoreRequest
    | ThreadsRequest
    | ToolRequest
    | ToolExecuted
)
Report = RunReport | WorkerReady | GraphsLoaded | WorkerAnswer

_decode = msgspec.msgpack.Decoder(list[Report]).decode
_encode = msgspec.msgpack.Encoder().encode


class WorkerConnection:
    """The engine's end. Messages of one turn of the event loop share a frame."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._messages: list[dict[str, Any]] = []

    def send(self, **message: Any) -> None:
        """Send ``message`` with the others of this turn of the loop; a no-op if the worker is gone."""
        if not self._messages:
            asyncio.get_running_loop().call_soon(self._flush)
        self._messages.append(message)

    def _flush(self) -> None:
        messages, self._messages = self._messages, []
        body = _encode(messages)
        self._writer.write(LENGTH.pack(len(body)) + body)

    async def drain(self) -> None:
        """Wait until the worker has taken most of what was sent; at once if it is gone."""
        with contextlib.suppress(ConnectionError):
            await self._writer.drain()

    async def receive(self) -> list[Report]:
        """Return the reports of the next frame. Raises ``asyncio.IncompleteReadError`` when the worker is gone."""
        (length,) = LENGTH.unpack(await self._reader.readexactly(LENGTH.size))
        if length > MAX_FRAME_BYTES:
            raise ConnectionError(f"The worker sent a frame of {length} bytes.")
        return _decode(await self._reader.readexactly(length))

    def close(self) -> None:
        """Close the socket, upon which the worker exits."""
        self._writer.close()
