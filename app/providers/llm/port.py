"""The language model port: the interface of provider adapters, and the events of a streamed answer."""

from collections.abc import AsyncIterator, Sequence
from typing import Any, Literal, Protocol

import msgspec

from app.domain.messages import Message, Usage


class ToolSpec(msgspec.Struct, frozen=True):
    """A tool offered to the model: ``parameters`` is the JSON Schema (an object schema) of its arguments."""

    name: str
    description: str
    parameters: dict[str, Any]


class ToolChoice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which tools the model calls: any it wants (``auto``), none, or at least one (``required``).

    ``names``: only these tools may be called; empty for all.
    """

    mode: Literal["auto", "none", "required"] = "auto"
    names: tuple[str, ...] = ()

    def allows(self, name: str) -> bool:
        """Whether calls of the tool ``name`` are allowed."""
        return self.mode != "none" and (not self.names or name in self.names)


ANY_TOOL = ToolChoice()


class OutputSchema(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The JSON Schema that an answer must fit; ``strict``: the provider keeps to it by itself, if it can."""

    schema: dict[str, Any]
    name: str = "answer"
    strict: bool = True

    def prompt(self) -> str:
        """Return the instruction for a model whose provider does not take the schema."""
        schema = msgspec.json.encode(self.schema).decode()
        return f"Answer with JSON alone, without a code fence or other words. It must fit this JSON Schema:\n{schema}"


class ModelRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request to a model. ``messages`` are in conversation order; ``instructions`` is the system prompt.

    ``tools`` are those that ``tool_choice`` allows; without ``parallel_tool_calls`` the model calls one at a time.
    ``tenant``: id of the calling tenant. Answers are cached per tenant, and not at all if it is empty.
    """

    messages: Sequence[Message]
    instructions: str = ""
    tools: list[ToolSpec] = []
    tool_choice: ToolChoice = ANY_TOOL
    parallel_tool_calls: bool = True
    output_schema: OutputSchema | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    model_settings: dict[str, Any] = {}
    tenant: str = ""


class TextDelta(msgspec.Struct, frozen=True, tag=True):
    """The next part of the answer's text (never empty)."""

    text: str


class ReasoningDelta(msgspec.Struct, frozen=True, tag=True):
    """The next part of the model's visible reasoning (never empty)."""

    text: str


class ToolCallDelta(msgspec.Struct, frozen=True, tag=True):
    """A part of the tool call number ``index``: ``id`` and ``name`` come with the first, ``args`` is JSON text."""

    index: int
    id: str | None = None
    name: str | None = None
    args: str = ""


class Finished(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """The end of an answer, always the last event: finish reason, answering model and usage.

    ``reason`` is one of ``stop``, ``tool_calls``, ``length``, ``content_filter`` or the provider's own word.
    ``instead``: a fallback answered in place of the requested model. ``retries``: calls that failed before this one.
    ``cached``: the answer is from the cache; its ``usage`` is zero, with the original counts in its details.
    """

    reason: str
    model: str
    vendor: str
    usage: Usage | None = None
    instead: bool = False
    retries: int = 0
    cached: bool = False


ModelEvent = TextDelta | ReasoningDelta | ToolCallDelta | Finished


class Model(Protocol):
    """A language model.

    ``vendor`` and ``name`` identify it (``openai``, ``gpt-5-mini``). ``stream`` yields events as they arrive and
    ends with exactly one ``Finished``; it raises a subclass of ``app.base.errors.ModelError`` and nothing else.
    Closing the iterator early (``aclose``) frees the connection. Implementations are safe for concurrent calls.
    """

    vendor: str
    name: str

    def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """Send ``request`` and yield the answer's events."""
        ...
