"""One run on every wire: what each protocol sends for each state of a run and each piece of its output.

The table is what docs/reference/wires.md shows, and what the projections are tested against
(tests/protocols/test_meanings.py). A state, an event of a run or a protocol without its cell fails the test.
"""

from enum import StrEnum
from typing import NamedTuple

from app.domain import events
from app.protocols.states import RunState


class Piece(StrEnum):
    """A piece of a run's output, in one of its events."""

    START = "the run starts"
    INPUT = "its input is stored"
    TEXT = "a chunk of text"
    REASONING = "a chunk of reasoning"
    TOOL_CALL = "a chunk of a tool call"
    MESSAGE_END = "the message is complete"
    TOOL_RESULT = "the result of a tool"
    CUSTOM = "a custom value"
    STEP = "a step is committed"
    SUBGRAPH = "the output of a subgraph"
    QUESTION = "a question to a person"
    RETRACTED = "streamed chunks are withdrawn"
    FAILURE = "the run fails"
    END = "the run ends"


PIECES: dict[type, tuple[Piece, ...]] = {
    events.RunStarted: (Piece.START,),
    events.InputApplied: (Piece.INPUT,),
    events.MessageDelta: (Piece.TEXT, Piece.REASONING, Piece.TOOL_CALL, Piece.MESSAGE_END),
    events.MessageAdded: (Piece.TOOL_RESULT,),
    events.Custom: (Piece.CUSTOM,),
    events.StepCommitted: (Piece.STEP,),
    events.SubgraphOutput: (Piece.SUBGRAPH,),
    events.Interrupted: (Piece.QUESTION,),
    events.Retracted: (Piece.RETRACTED,),
    events.Failed: (Piece.FAILURE,),
    events.Ended: (Piece.END,),
}
"""The pieces that each event of a run may be."""


class Meaning(NamedTuple):
    """What a protocol sends: the kinds of its frames, in order; or nothing on purpose, and ``why``."""

    sends: tuple[str, ...] = ()
    why: str = ""


def says(*kinds: str) -> Meaning:
    """Return the meaning of what is sent."""
    return Meaning(kinds)


def nothing(why: str) -> Meaning:
    """Return the meaning of what is not sent."""
    return Meaning((), why)


class Wire(NamedTuple):
    """A protocol: what it sends when a run gets to a state, and for each piece."""

    title: str
    states: dict[RunState, Meaning]
    pieces: dict[Piece, Meaning]


_WAITS = nothing("the response waits")
_NO_SUBGRAPHS = nothing("its runs do not stream subgraphs")
_AT_THE_END = nothing("the end of the run reports it")

CHAT = Wire(
    "Chat Completions",
    {
        RunState.QUEUED: _WAITS,
        RunState.RUNNING: says("delta.role"),
        RunState.ASKING: says("finish_reason stop", "[DONE]"),
        RunState.SUCCESS: says("finish_reason stop", "[DONE]"),
        RunState.ERROR: says("error", "[DONE]"),
        RunState.TIMEOUT: says("finish_reason length", "[DONE]"),
        RunState.CANCELLED: says("finish_reason stop", "[DONE]"),
    },
    {
        Piece.START: says("delta.role"),
        Piece.INPUT: nothing("a completion has no state"),
        Piece.TEXT: says("delta.content"),
        Piece.REASONING: says("delta.reasoning_content"),
        Piece.TOOL_CALL: nothing("a client would take the agent's own calls for requests to run them"),
        Piece.MESSAGE_END: nothing("chunks have no end"),
        Piece.TOOL_RESULT: nothing("the agent's own tools are not shown"),
        Piece.CUSTOM: nothing("a completion has no field for it"),
        Piece.STEP: nothing("a completion has no steps"),
        Piece.SUBGRAPH: _NO_SUBGRAPHS,
        Piece.QUESTION: says("delta.content"),
        Piece.RETRACTED: nothing("chunks cannot be withdrawn"),
        Piece.FAILURE: _AT_THE_END,
        Piece.END: says("finish_reason stop", "[DONE]"),
    },
)

AI_SDK = Wire(
    "AI SDK",
    {
        RunState.QUEUED: _WAITS,
        RunState.RUNNING: says("start"),
        RunState.ASKING: says("finish tool-calls", "[DONE]"),
        RunState.SUCCESS: says("finish stop", "[DONE]"),
        RunState.ERROR: says("finish error", "[DONE]"),
        RunState.TIMEOUT: says("finish length", "[DONE]"),
        RunState.CANCELLED: says("abort", "[DONE]"),
    },
    {
        Piece.START: says("start"),
        Piece.INPUT: nothing("a UI message has no state"),
        Piece.TEXT: says("start-step", "text-start", "text-delta"),
        Piece.REASONING: says("start-step", "reasoning-start", "reasoning-delta"),
        Piece.TOOL_CALL: says("start-step", "tool-input-start", "tool-input-delta"),
        Piece.MESSAGE_END: says("text-end"),
        Piece.TOOL_RESULT: says("start-step", "tool-output-available"),
        Piece.CUSTOM: says("data-custom"),
        Piece.STEP: says("finish-step"),
        Piece.SUBGRAPH: _NO_SUBGRAPHS,
        Piece.QUESTION: says("tool-approval-request"),
        Piece.RETRACTED: says("text-end", "reset-step"),
        Piece.FAILURE: says("error"),
        Piece.END: says("finish stop", "[DONE]"),
    },
)

AG_UI = Wire(
    "AG-UI, CopilotKit",
    {
        RunState.QUEUED: _WAITS,
        RunState.RUNNING: says("RUN_STARTED", "STATE_SNAPSHOT", "MESSAGES_SNAPSHOT"),
        RunState.ASKING: says("RUN_FINISHED interrupt"),
        RunState.SUCCESS: says("RUN_FINISHED success"),
        RunState.ERROR: says("RUN_ERROR"),
        RunState.TIMEOUT: says("RUN_ERROR"),
        RunState.CANCELLED: says("RUN_FINISHED cancelled"),
    },
    {
        Piece.START: says("RUN_STARTED", "STATE_SNAPSHOT", "MESSAGES_SNAPSHOT"),
        Piece.INPUT: nothing("the snapshots at the start have it"),
        Piece.TEXT: says("STEP_STARTED", "TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT"),
        Piece.REASONING: says(
            "STEP_STARTED", "REASONING_START", "REASONING_MESSAGE_START", "REASONING_MESSAGE_CONTENT"
        ),
        Piece.TOOL_CALL: says("STEP_STARTED", "TOOL_CALL_START", "TOOL_CALL_ARGS"),
        Piece.MESSAGE_END: says("TEXT_MESSAGE_END"),
        Piece.TOOL_RESULT: says("TOOL_CALL_RESULT"),
        Piece.CUSTOM: says("CUSTOM"),
        Piece.STEP: says("STEP_FINISHED"),
        Piece.SUBGRAPH: says("SUBAGENT_STARTED"),
        Piece.QUESTION: says("STATE_SNAPSHOT", "MESSAGES_SNAPSHOT"),
        Piece.RETRACTED: says("TEXT_MESSAGE_END", "STEP_FINISHED", "MESSAGES_SNAPSHOT"),
        Piece.FAILURE: _AT_THE_END,
        Piece.END: says("RUN_FINISHED success"),
    },
)

_MESSAGE_BEGINS = says("messages message-start", "messages content-block-start", "messages content-block-delta")

LANGGRAPH_V2 = Wire(
    "LangGraph protocol v2",
    {
        RunState.QUEUED: nothing("the response to the command names the run"),
        RunState.RUNNING: says("lifecycle running"),
        RunState.ASKING: says("lifecycle interrupted"),
        RunState.SUCCESS: says("lifecycle completed"),
        RunState.ERROR: says("lifecycle failed"),
        RunState.TIMEOUT: says("lifecycle failed"),
        RunState.CANCELLED: says("lifecycle failed"),
    },
    {
        Piece.START: says("lifecycle running"),
        Piece.INPUT: says("values"),
        Piece.TEXT: _MESSAGE_BEGINS,
        Piece.REASONING: _MESSAGE_BEGINS,
        Piece.TOOL_CALL: _MESSAGE_BEGINS,
        Piece.MESSAGE_END: says("messages content-block-finish"),
        Piece.TOOL_RESULT: says("tools tool-finished"),
        Piece.CUSTOM: says("custom"),
        Piece.STEP: says("messages message-finish", "updates", "checkpoints", "values"),
        Piece.SUBGRAPH: says("lifecycle started", "values"),
        Piece.QUESTION: says("input.requested"),
        Piece.RETRACTED: says("messages content-block-finish", "messages error"),
        Piece.FAILURE: _AT_THE_END,
        Piece.END: says("lifecycle completed"),
    },
)

_IN_THE_RESULT = nothing("the result has it")

MCP = Wire(
    "MCP",
    {
        RunState.QUEUED: nothing("the call waits; a task is working"),
        RunState.RUNNING: nothing("the call continues; a task is working"),
        RunState.ASKING: says("input_required"),
        RunState.SUCCESS: says("result"),
        RunState.ERROR: says("result isError"),
        RunState.TIMEOUT: says("result isError"),
        RunState.CANCELLED: says("result isError"),
    },
    {
        Piece.START: nothing("the call itself started it"),
        Piece.INPUT: nothing("a call has no state"),
        Piece.TEXT: _IN_THE_RESULT,
        Piece.REASONING: nothing("a result has no field for it"),
        Piece.TOOL_CALL: nothing("progress names it once it is complete"),
        Piece.MESSAGE_END: _IN_THE_RESULT,
        Piece.TOOL_RESULT: nothing("the agent's own tools are not shown"),
        Piece.CUSTOM: nothing("a result has no field for it"),
        Piece.STEP: says("notifications/progress"),
        Piece.SUBGRAPH: _NO_SUBGRAPHS,
        Piece.QUESTION: _AT_THE_END,
        Piece.RETRACTED: nothing("the result does not contain it"),
        Piece.FAILURE: _AT_THE_END,
        Piece.END: says("result"),
    },
)

RESPONSES = Wire(
    "Responses",
    {
        RunState.QUEUED: _WAITS,
        RunState.RUNNING: says("response.created", "response.in_progress"),
        RunState.ASKING: says("response.completed", "[DONE]"),
        RunState.SUCCESS: says("response.completed", "[DONE]"),
        RunState.ERROR: says("response.failed", "[DONE]"),
        RunState.TIMEOUT: says("response.failed", "[DONE]"),
        RunState.CANCELLED: says("response.incomplete", "[DONE]"),
    },
    {
        Piece.START: says("response.created", "response.in_progress"),
        Piece.INPUT: nothing("a response has no state"),
        Piece.TEXT: says("response.output_item.added", "response.content_part.added", "response.output_text.delta"),
        Piece.REASONING: says(
            "response.output_item.added",
            "response.reasoning_summary_part.added",
            "response.reasoning_summary_text.delta",
        ),
        Piece.TOOL_CALL: nothing("an item of the agent's own tool has its result"),
        Piece.MESSAGE_END: says("response.output_text.done"),
        Piece.TOOL_RESULT: says("response.mcp_call.completed", "response.output_item.done"),
        Piece.CUSTOM: nothing("a response has no field for it"),
        Piece.STEP: says("response.content_part.done", "response.output_item.done"),
        Piece.SUBGRAPH: _NO_SUBGRAPHS,
        Piece.QUESTION: says("response.output_item.added", "response.output_item.done"),
        Piece.RETRACTED: says(
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            *["response.output_item.added", "response.output_item.done"] * 7,
        ),
        Piece.FAILURE: _AT_THE_END,
        Piece.END: says("response.completed", "[DONE]"),
    },
)

_OWN_WORK = nothing("peers see the results of an agent, not its tool calls")

A2A = Wire(
    "A2A",
    {
        RunState.QUEUED: nothing("the task is submitted"),
        RunState.RUNNING: says("TASK_STATE_WORKING"),
        RunState.ASKING: says("TASK_STATE_INPUT_REQUIRED"),
        RunState.SUCCESS: says("TASK_STATE_COMPLETED"),
        RunState.ERROR: says("TASK_STATE_FAILED"),
        RunState.TIMEOUT: says("TASK_STATE_FAILED"),
        RunState.CANCELLED: says("TASK_STATE_CANCELED"),
    },
    {
        Piece.START: says("TASK_STATE_WORKING"),
        Piece.INPUT: nothing("a task has no state of its own"),
        Piece.TEXT: says("artifactUpdate"),
        Piece.REASONING: _OWN_WORK,
        Piece.TOOL_CALL: _OWN_WORK,
        Piece.MESSAGE_END: nothing("the step that commits it ends its artifact"),
        Piece.TOOL_RESULT: _OWN_WORK,
        Piece.CUSTOM: says("TASK_STATE_WORKING"),
        Piece.STEP: says("artifactUpdate"),
        Piece.SUBGRAPH: _OWN_WORK,
        Piece.QUESTION: _AT_THE_END,
        Piece.RETRACTED: says("artifactUpdate"),
        Piece.FAILURE: _AT_THE_END,
        Piece.END: says("TASK_STATE_COMPLETED"),
    },
)

WIRES = {
    "openai.chat": CHAT,
    "openai.responses": RESPONSES,
    "ai_sdk": AI_SDK,
    "ag_ui": AG_UI,
    "langgraph_v2": LANGGRAPH_V2,
    "mcp": MCP,
    "a2a": A2A,
}
"""All protocols, by the package (and the part of it) that speaks them."""
