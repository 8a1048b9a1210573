"""Long-term memory tool: texts in the store, recalled in any later thread."""

from typing import Any, Literal
from uuid import UUID

import msgspec

from app.agents.tools.function_tool import FunctionTool, tool
from app.agents.tools.port import LongTerm, ToolContext
from app.domain.caller import AUTH_USER_ID, Caller

MAX_TEXT_LENGTH = 4000
MAX_RESULTS = 10
ROOT = "memories"
FIELD = "text"
OWNER_FIELD = "user_id"
"""The key of the caller's ``configurable`` that identifies the user."""


def memory_tool(store: LongTerm | None) -> FunctionTool:
    """Build the tool on ``store`` (None to inspect agents only)."""

    @tool(tool_class="idempotent", timeout=30)
    async def memory(
        context: ToolContext, action: Literal["remember", "recall", "forget"], text: str = "", key: str = ""
    ) -> str:
        """Remember facts for later conversations, recall those that matter now, or forget one.

        Args:
            action: remember a text, recall what is like a text (the newest when it is empty), forget by key
            text: what to remember, one fact at a time, or what to recall
            key: of the memory to forget, as recall has shown it
        """
        if store is None:
            raise RuntimeError("no store is available here")
        # The namespace is internal and per user, so the operator's namespace handlers are bypassed.
        tenant, namespace = Caller(tenant_id=UUID(context.tenant_id)), namespace_of(context.configurable)
        if len(text) > MAX_TEXT_LENGTH:
            raise ValueError(f"at most {MAX_TEXT_LENGTH} characters")
        if action == "forget":
            if not key:
                raise ValueError("give the key of the memory to forget")
            await store.delete(tenant, namespace, key)
            return f"Forgotten: {key}"
        if action == "recall":
            found = await store.search(tenant, namespace, text, None, MAX_RESULTS)
            return "\n".join(f"[{one.key}] {_text(one.value)}" for one in found) or "Nothing is remembered."
        if not text.strip():
            raise ValueError("give the text to remember")
        # The idempotency key as item key: a repeated call overwrites its own item.
        await store.put(tenant, namespace, context.idempotency_key, {FIELD: text}, [FIELD])
        return f"Remembered as {context.idempotency_key}."

    return FunctionTool(memory)


def namespace_of(configurable: dict[str, Any]) -> list[str]:
    """Return the namespace of a user's memories, or the tenant's shared one if no user is named.

    The user of the request's credential takes precedence over one named by the client.
    """
    owner = str(configurable.get(AUTH_USER_ID) or configurable.get(OWNER_FIELD) or "")
    # labels must not contain dots, but e-mail addresses do
    return [ROOT, "user", owner.replace("%", "%25").replace(".", "%2E")] if owner else [ROOT, "shared"]


def _text(value: dict[str, Any]) -> str:
    """Return an item's text, or its JSON: anyone with a key may have stored another shape."""
    text = value.get(FIELD)
    return text if isinstance(text, str) else msgspec.json.encode(value).decode()
