"""Wire shapes of AG-UI: https://docs.ag-ui.com/spec/1.0/schema

Members that this server does not know are ignored, as the specification asks.
"""

from typing import Any, Literal

import msgspec

PROTOCOL_VERSION = "1.0"


class FunctionCall(msgspec.Struct, kw_only=True):
    """The function of a tool call; ``arguments`` is JSON text."""

    name: str
    arguments: str = ""


class ToolCall(msgspec.Struct, kw_only=True):
    """A tool call in a message of the assistant."""

    id: str
    function: FunctionCall


class AGUIMessage(msgspec.Struct, kw_only=True):
    """A message: ``content`` is text, a list of content parts, or the content of an activity."""

    id: str
    role: Literal["developer", "system", "assistant", "user", "tool", "activity", "reasoning"]
    content: str | list[dict[str, Any]] | dict[str, Any] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = msgspec.field(default=None, name="toolCalls")
    tool_call_id: str | None = msgspec.field(default=None, name="toolCallId")
    error: str | None = None


class ClientTool(msgspec.Struct, kw_only=True):
    """A tool of the application; ``parameters`` is the JSON Schema of its arguments."""

    name: str
    description: str = ""
    parameters: Any = None


class ContextEntry(msgspec.Struct, kw_only=True):
    """What the application wants the model to know."""

    description: str
    value: str


class ResumeEntry(msgspec.Struct, kw_only=True):
    """The answer to an interrupt; ``cancelled``: it is given up without one."""

    interrupt_id: str = msgspec.field(name="interruptId")
    status: Literal["resolved", "cancelled"]
    payload: Any = None


class RunAgentInput(msgspec.Struct, kw_only=True):
    """What a client sends to start a run: the whole conversation, of which the thread knows most.

    ``protocol_version``: not sent by clients from before 1.0. ``last_seen_event_id``: the id of the last event that a
    client has, in CopilotKit's ``connect``.
    """

    thread_id: str = msgspec.field(name="threadId")
    run_id: str = msgspec.field(name="runId")
    protocol_version: str | None = msgspec.field(default=None, name="protocolVersion")
    parent_run_id: str | None = msgspec.field(default=None, name="parentRunId")
    state: Any = None
    messages: list[AGUIMessage] = []
    tools: list[ClientTool] | None = None
    context: list[ContextEntry] | None = None
    forwarded_props: Any = msgspec.field(default=None, name="forwardedProps")
    resume: list[ResumeEntry] | None = None
    last_seen_event_id: str | None = msgspec.field(default=None, name="lastSeenEventId")

    @property
    def is_legacy(self) -> bool:
        """Whether the client is older than 1.0: its parser refuses some outcomes of runs."""
        return self.protocol_version is None

    def option(self, name: str) -> Any:
        """Return a member of ``forwarded_props``, which applications pass through their front end."""
        return self.forwarded_props.get(name) if isinstance(self.forwarded_props, dict) else None
