"""Wire shapes of the AI SDK's chat transport: https://ai-sdk.dev/docs/ai-sdk-ui/transport"""

from typing import Any, Literal

import msgspec


class UIMessage(msgspec.Struct, kw_only=True):
    """A message of a chat: ``parts`` are text, files, tool calls with their results, and data."""

    id: str
    role: Literal["system", "user", "assistant"]
    parts: list[dict[str, Any]] = []
    metadata: Any = None


class ChatPost(msgspec.Struct, kw_only=True):
    """What ``useChat`` sends: all messages of the chat ``id``; ``message_id``: the one to regenerate.

    ``answers``: answers to questions by their id, which the application puts into the body.
    """

    id: str
    messages: list[UIMessage]
    trigger: Literal["submit-message", "regenerate-message"] = "submit-message"
    message_id: str | None = msgspec.field(default=None, name="messageId")
    answers: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
