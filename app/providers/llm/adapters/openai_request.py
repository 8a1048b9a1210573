"""Build request bodies of the Chat Completions API."""

from collections.abc import Iterable
from typing import Any

import msgspec

from app.domain.messages import AIMessage, Content, HumanMessage, Message, SystemMessage, ToolMessage, text_of
from app.providers.llm.adapters.content_blocks import calls_of, data_url, image_of
from app.providers.llm.port import ModelRequest, ToolSpec
from app.providers.llm.profiles import OpenAIProfile


def body_of(model: str, request: ModelRequest, profile: OpenAIProfile) -> dict[str, Any]:
    """Build the JSON body. ``model_settings`` are passed through; fields of the request take precedence."""
    body: dict[str, Any] = dict(request.model_settings)
    if request.temperature is not None:
        body["temperature"] = request.temperature
    if not profile.temperature:
        body.pop("temperature", None)
    if request.max_tokens is not None:
        body[profile.max_tokens] = request.max_tokens
    if request.tools:
        body["tools"] = [tool_of(spec) for spec in request.tools]
        if request.tool_choice.mode != "auto":
            body["tool_choice"] = request.tool_choice.mode
        if not request.parallel_tool_calls:
            body["parallel_tool_calls"] = False
    instructions = request.instructions
    if (output := request.output_schema) is not None:
        if profile.output_schema:
            schema = {"name": output.name, "schema": output.schema, "strict": output.strict}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        else:
            instructions = "\n\n".join(text for text in (instructions, output.prompt()) if text)
    if profile.usage_option:
        body["stream_options"] = {"include_usage": True}
    body["model"] = model
    body["messages"] = messages_of(instructions, request.messages)
    body["stream"] = True
    return body


def tool_of(spec: ToolSpec) -> dict[str, Any]:
    """Convert a tool to this API's format."""
    return {
        "type": "function",
        "function": {"name": spec.name, "description": spec.description, "parameters": spec.parameters},
    }


def messages_of(instructions: str, messages: Iterable[Message]) -> list[dict[str, Any]]:
    """Convert the conversation. Images of tool answers move to a user message: tool messages hold text only."""
    turns: list[dict[str, Any]] = [{"role": "system", "content": instructions}] if instructions else []
    shown: list[dict[str, Any]] = []
    for message in messages:
        if shown and not isinstance(message, ToolMessage):
            turns.append({"role": "user", "content": shown})
            shown = []
        if isinstance(message, HumanMessage):
            turns.append({"role": "user", "content": content_of(message.content)})
        elif isinstance(message, SystemMessage):
            turns.append({"role": "system", "content": text_of(message.content)})
        elif isinstance(message, AIMessage):
            turns.append(assistant_of(message))
        else:
            text = text_of(message.content)
            turns.append({"role": "tool", "tool_call_id": message.tool_call_id, "content": text})
            shown += images_in(message.content)
    if shown:
        turns.append({"role": "user", "content": shown})
    return turns


def assistant_of(message: AIMessage) -> dict[str, Any]:
    """Convert a model's message: its text and its calls, including those with invalid arguments."""
    calls = [
        {
            "id": call.id,
            "type": "function",
            "function": {"name": call.name, "arguments": msgspec.json.encode(call.args).decode()},
        }
        for call in calls_of(message)
    ]
    turn: dict[str, Any] = {"role": "assistant", "content": text_of(message.content)}
    if calls:
        turn["tool_calls"] = calls
        turn["content"] = turn["content"] or None
    return turn


def content_of(content: Content) -> Content:
    """Convert content: text and image blocks to this API's format; others are unchanged."""
    if isinstance(content, str):
        return content
    return [block_of(block) for block in content]


def block_of(block: dict[str, Any]) -> dict[str, Any]:
    """Convert one content block to this API's format."""
    if block.get("type") == "text":
        return {"type": "text", "text": block.get("text", "")}
    image = image_of(block)
    if image is None:
        return block
    image_url = {"url": data_url(image)}
    if image.detail:
        image_url["detail"] = image.detail
    return {"type": "image_url", "image_url": image_url}


def images_in(content: Content) -> list[dict[str, Any]]:
    """Return the converted image blocks of ``content``."""
    if isinstance(content, str):
        return []
    return [block_of(block) for block in content if image_of(block) is not None]
