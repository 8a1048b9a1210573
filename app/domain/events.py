"""Events of a run, as one tagged union.

Events are what the engine stores: compact, independent of stream modes, written with the step that commits them. Frames
(the bytes on a stream) are rendered from them (``app.engine.streams.frames``), now or when the run is replayed.
"""

from typing import Any

import msgspec

UNCHANGED = msgspec.Raw()
"""Stands for JSON that is not given again."""


class RunStarted(msgspec.Struct, frozen=True, tag="started", omit_defaults=True):
    """The run was started; ``attempt`` counts from 1 and grows with each owner that resumes it.

    ``subgraphs``: whether its stream names the subgraphs that events come from. ``answered``: ids of the questions that
    it brings answers to.
    """

    run_id: str
    attempt: int
    thread_id: str = ""
    agent: str = ""
    input: msgspec.Raw = msgspec.Raw(b"null")
    subgraphs: bool = False
    answered: tuple[str, ...] = ()


class CheckpointPosition(msgspec.Struct, frozen=True, omit_defaults=True):
    """Position of a checkpoint in its run; sent only if a subscriber requests the steps of a run.

    ``parent_id``: the previous checkpoint (empty: the first). ``source``: what created it (empty: it existed before).
    ``next``: the nodes that follow it. ``starts``: those that start now. ``at``: an RFC 3339 time.
    """

    parent_id: str = ""
    step: int = -1
    source: str = ""
    next: tuple[str, ...] = ()
    starts: tuple[str, ...] = ()
    at: str = ""


class InputApplied(msgspec.Struct, frozen=True, tag="input", omit_defaults=True):
    """The input is stored: the state at ``checkpoint_id``, whose values show it once the agent has ``read`` it."""

    checkpoint_id: str
    move: CheckpointPosition | None = None
    read: bool = True


class MessageDelta(msgspec.Struct, frozen=True, tag="delta", omit_defaults=True, gc=False):
    """A chunk of the message ``message_id`` streamed by the model: provisional until its step commits.

    ``tool_call`` is ``{"index", "id", "name", "args"}`` with ``args`` a chunk of JSON text; ``last`` closes it.
    ``namespace``: path of the subgraph that streams it, joined by ``|``; empty for the agent itself. For chunks in
    LangChain's form: ``metadata`` of the model's call and ``fields`` of the chunk besides id and text (first of them a
    ``content`` that is not a text), both JSON objects; empty if they are those of the message's chunk before.
    """

    message_id: str
    node: str
    step: int
    text: str = ""
    reasoning: str = ""
    tool_call: dict[str, Any] | None = None
    last: bool = False
    namespace: str = ""
    fields: msgspec.Raw = UNCHANGED
    metadata: msgspec.Raw = UNCHANGED


class MessageAdded(msgspec.Struct, frozen=True, tag="message", omit_defaults=True):
    """A whole message that was not streamed in chunks (a tool's result), as JSON; the rest as of its chunks."""

    node: str
    step: int
    message: msgspec.Raw
    namespace: str = ""
    metadata: msgspec.Raw = UNCHANGED


class Custom(msgspec.Struct, frozen=True, tag="custom"):
    """A custom value that a tool or a function agent sent to its clients, as JSON."""

    data: msgspec.Raw


class StepCommitted(msgspec.Struct, frozen=True, tag="step", omit_defaults=True):
    """The step ``step`` is durable; ``updates`` is JSON ``{node: {channel: value}}``, empty if no node has output.

    ``others``: the same for further nodes that ran in the step.
    """

    step: int
    checkpoint_id: str
    updates: msgspec.Raw
    node: str = ""
    move: CheckpointPosition | None = None
    others: tuple[msgspec.Raw, ...] = ()

    def outputs(self) -> list[tuple[str, msgspec.Raw]]:
        """Return the nodes that ran in the step, each with its update; an empty one for a step without any."""
        found = [
            (node, update)
            for updates in (self.updates, *self.others)
            for node, update in msgspec.json.decode(updates, type=dict[str, msgspec.Raw]).items()
        ]
        return found or [(self.node, msgspec.Raw(b"{}"))]


class SubgraphOutput(msgspec.Struct, frozen=True, tag="subgraph"):
    """Output of a subgraph in the stream mode ``mode``, as JSON; ``namespace`` is its path, joined by ``|``.

    Without one: an update of the graph itself, of a node in a superstep that has not ended, or that the run pauses.
    """

    mode: str
    namespace: str
    data: msgspec.Raw


class Interrupted(msgspec.Struct, frozen=True, tag="interrupt", omit_defaults=True):
    """The run waits for a person; ``interrupts`` is the JSON list of ``{"id", "value"}``."""

    checkpoint_id: str
    interrupts: msgspec.Raw
    move: CheckpointPosition | None = None


class Retracted(msgspec.Struct, frozen=True, tag="retracted"):
    """Chunks that an earlier attempt streamed for ``step`` did not commit; the new attempt streams under new ids.

    ``message_ids``: the ids under which earlier attempts may have streamed first in that step. ``epoch``: that of the
    attempt, if the event log may lack what was streamed before; 0 if it has all of it.
    """

    message_ids: list[str]
    step: int = -1
    epoch: int = 0


class Failed(msgspec.Struct, frozen=True, tag="failed", omit_defaults=True):
    """The run failed: name of the error and a sentence."""

    error: str
    message: str
    move: CheckpointPosition | None = None


class Ended(msgspec.Struct, frozen=True, tag="ended"):
    """The last event of every run: its final status on the wire."""

    run_id: str
    status: str


Event = (
    RunStarted
    | InputApplied
    | MessageDelta
    | MessageAdded
    | Custom
    | StepCommitted
    | SubgraphOutput
    | Interrupted
    | Retracted
    | Failed
    | Ended
)
