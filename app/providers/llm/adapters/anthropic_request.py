"""Build request bodies of Anthropic's Messages API."""

from collections.abc import Iterable
from typing import Any

from app.domain.messages import AIMessage, Content, Message, SystemMessage, ToolMessage, text_of
from app.providers.llm.adapters.content_blocks import calls_of, image_of
from app.providers.llm.port import ModelRequest, ToolSpec
from app.providers.llm.profiles import AnthropicProfile

Blocks = list[dict[str, Any]]


def body_of(model: str, request: ModelRequest, profile: AnthropicProfile) -> dict[str, Any]:
    """Build the JSON body. ``model_settings`` are passed through; fields of the request take precedence."""
    body: dict[str, Any] = {"max_tokens": profile.max_tokens, **request.model_settings}
    if request.temperature is not None:
        body["temperature"] = request.temperature
    if request.max_tokens is not None:
        body["max_tokens"] = request.max_tokens
    if request.tools:
        body["tools"] = [tool_of(spec) for spec in request.tools]
        if choice := choice_of(request):
            body["tool_choice"] = choice
    if system := system_of(request):
        body["system"] = system
    body["model"] = model
    body["messages"] = turns_of(request.messages)
    body["stream"] = True
    return body


def tool_of(spec: ToolSpec) -> dict[str, Any]:
    """Convert a tool to this API's format."""
    return {"name": spec.name, "description": spec.description, "input_schema": spec.parameters}


def choice_of(request: ModelRequest) -> dict[str, Any]:
    """Return the choice among the tools in this API's format; empty for its default."""
    mode = request.tool_choice.mode
    if mode == "none" or (mode == "auto" and request.parallel_tool_calls):
        return {"type": "none"} if mode == "none" else {}
    choice = {"type": "any" if mode == "required" else "auto"}
    return choice if request.parallel_tool_calls else {**choice, "disable_parallel_tool_use": True}


def system_of(request: ModelRequest) -> str:
    """Join the instructions, all system messages and the schema of the answer: this API has one system prompt."""
    said = [text_of(message.content) for message in request.messages if isinstance(message, SystemMessage)]
    wanted = "" if request.output_schema is None else request.output_schema.prompt()
    return "\n\n".join(text for text in (request.instructions, *said, wanted) if text)


def turns_of(messages: Iterable[Message]) -> list[dict[str, Any]]:
    """Convert the conversation to turns of ``user`` and ``assistant``.

    Consecutive messages of one role are merged: this API requires the results of parallel calls in one turn. Empty
    texts are omitted, because it rejects them.
    """
    turns: list[tuple[str, Blocks]] = []
    for message in messages:
        if isinstance(message, SystemMessage):
            continue
        role, blocks = ("assistant", assistant_of(message)) if isinstance(message, AIMessage) else user_of(message)
        if not blocks:
            continue
        if turns and turns[-1][0] == role:
            turns[-1][1].extend(blocks)
        else:
            turns.append((role, blocks))
    return [{"role": role, "content": blocks} for role, blocks in turns]


def user_of(message: Message) -> tuple[str, Blocks]:
    """Convert a human or tool message to a role and blocks."""
    if not isinstance(message, ToolMessage):
        return "user", blocks_of(message.content)
    result: dict[str, Any] = {"type": "tool_result", "tool_use_id": message.tool_call_id}
    if blocks := blocks_of(message.content):
        result["content"] = blocks
    if message.status == "error":
        result["is_error"] = True
    return "user", [result]


def assistant_of(message: AIMessage) -> Blocks:
    """Convert a model's message: its text and its calls. Its ``tool_use`` blocks are dropped as duplicates."""
    said = [block for block in blocks_of(message.content) if block.get("type") != "tool_use"]
    calls = [{"type": "tool_use", "id": call.id, "name": call.name, "input": call.args} for call in calls_of(message)]
    return [*said, *calls]


def blocks_of(content: Content) -> Blocks:
    """Convert content to this API's blocks; unknown kinds are unchanged."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content.strip() else []
    return [block_of(block) for block in content if block.get("type") != "text" or block.get("text", "").strip()]


def block_of(block: dict[str, Any]) -> dict[str, Any]:
    """Convert one content block to this API's format."""
    if block.get("type") == "text":
        return {name: block[name] for name in ("type", "text", "cache_control") if name in block}
    image = image_of(block)
    if image is None:
        return document_of(block) or block
    if image.url:
        return {"type": "image", "source": {"type": "url", "url": image.url}}
    return {"type": "image", "source": {"type": "base64", "media_type": image.media_type, "data": image.data}}


def document_of(block: dict[str, Any]) -> dict[str, Any] | None:
    """Convert a PDF, in the form of OpenAI's file blocks; None for any other block."""
    file = block.get("file")
    if block.get("type") != "file" or not isinstance(file, dict):
        return None
    if isinstance(url := file.get("file_url"), str):
        return {"type": "document", "source": {"type": "url", "url": url}}
    media_type, _, data = str(file.get("file_data") or "").removeprefix("data:").partition(";base64,")
    if not data:
        return None
    return {"type": "document", "source": {"type": "base64", "media_type": media_type, "data": data}}
