"""Parse images and tool calls of messages into one form for all adapters."""

from typing import Any

import msgspec

from app.domain.messages import AIMessage, ToolCall


class Image(msgspec.Struct, frozen=True):
    """An image: its ``url``, or its ``data`` (base64) and ``media_type``."""

    url: str = ""
    data: str = ""
    media_type: str = "image/png"
    detail: str = ""


def image_of(block: dict[str, Any]) -> Image | None:
    """Return the image in a content block, or None for any other block.

    Supported: OpenAI's and LangChain's ``image_url`` (an address, a data URL, or an object with either);
    LangChain's ``{"type": "image", "source_type": "base64" | "url", …}`` and its later form with ``base64`` or ``url``
    at the top; Anthropic's ``{"type": "image", "source": {…}}``.
    """
    kind = block.get("type")
    if kind == "image_url":
        image = block.get("image_url")
        if isinstance(image, dict):
            return _from_url(image.get("url"), str(image.get("detail") or ""))
        return _from_url(image)
    if kind != "image":
        return None
    source = block["source"] if isinstance(block.get("source"), dict) else block
    media_type = source.get("media_type") or source.get("mime_type") or "image/png"
    data = source.get("data") or source.get("base64")
    if isinstance(data, str) and isinstance(media_type, str):
        return Image(data=data, media_type=media_type)
    return _from_url(source.get("url"))


def data_url(image: Image) -> str:
    """Return the URL of ``image``: its own, or a data URL (RFC 2397)."""
    return image.url or f"data:{image.media_type};base64,{image.data}"


def calls_of(message: AIMessage) -> list[ToolCall]:
    """Return the calls of ``message``. Arguments that are not a JSON object are wrapped as text in one.

    Providers reject a tool's answer without its call, so an invalid call must stay in the conversation.
    """
    invalid = [ToolCall(call.name, {"invalid_arguments": call.args}, call.id) for call in message.invalid_tool_calls]
    return [*message.tool_calls, *invalid]


def _from_url(url: Any, detail: str = "") -> Image | None:
    if not isinstance(url, str) or not url:
        return None
    if url.startswith("data:"):
        head, comma, data = url[5:].partition(",")
        if comma and head.endswith(";base64"):
            return Image(data=data, media_type=head.split(";")[0] or "image/png", detail=detail)
    return Image(url=url, detail=detail)
