"""A request in the words of the Chat Completions wire."""

from collections.abc import Iterable
from typing import Any

import msgspec

from app.domain.messages import AIMessage, Content, HumanMessage, Message, SystemMessage, ToolMessage, text_of
from app.providers.llm.adapters.content_blocks import calls_of, data_url, image_of
from app.providers.llm.port import ModelRequest, ToolSpec
from app.providers.llm.profiles import OpenAIProfile


def body_of(model: str, request: ModelRequest, profile: OpenAIProfile) -> dict[str, Any]:
    """The JSON object to POST. ``model_settings`` reach the wire as they are, but where the request itself speaks."""
    body: dict[str, Any] = dict(request.model_settings)
    if request.temperature is not None:
        body["temperature"] = request.temperature
    if not profile.temperature:
        body.pop("temperature", None)
    if request.max_tokens is not None:
        body[profile.max_tokens] = request.max_tokens
    if request.tools:
        body["tools"] = [tool_of(spec) for spec in request.tools]
    if profile.usage_option:
        body["stream_options"] = {"include_usage": True}
    body["model"] = model
    body["messages"] = messages_of(request.instructions, request.messages)
    body["stream"] = True
    return body


def tool_of(spec: ToolSpec) -> dict[str, Any]:
    """A tool as this wire describes it."""
    return {
        "type": "function",
        "function": {"name": spec.name, "description": spec.description, "parameters": spec.parameters},
    }


def messages_of(instructions: str, messages: Iterable[Message]) -> list[dict[str, Any]]:
    """The conversation. Images in tools' answers follow in a user message, since tool messages can hold text only."""
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
    """What the model said earlier: its text and its calls, those included whose arguments were no JSON object."""
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
    """Text as it is; of blocks, texts and images in this wire's shape and all others unchanged."""
    if isinstance(content, str):
        return content
    return [block_of(block) for block in content]


def block_of(block: dict[str, Any]) -> dict[str, Any]:
    """One content block in this wire's shape."""
    if block.get("type") == "text":
        return {"type": "text", "text": block.get("text", "")}
    image = image_of(block)
    if image is None:
        return block
    place = {"url": data_url(image)}
    if image.detail:
        place["detail"] = image.detail
    return {"type": "image_url", "image_url": place}


def images_in(content: Content) -> list[dict[str, Any]]:
    """The images among the blocks of ``content``."""
    if isinstance(content, str):
        return []
    return [block_of(block) for block in content if image_of(block) is not None]
