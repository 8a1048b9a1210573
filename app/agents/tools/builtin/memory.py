"""Long-term memory for agents: texts in the store, found again in any later thread."""

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
"""The entry of the caller's ``configurable`` that tells people apart."""


def memory_tool(store: LongTerm | None) -> FunctionTool:
    """The tool over ``store``; None where agents are only looked at."""

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
            raise RuntimeError("there is no store here")
        # the place is the person's own whatever handlers say of namespaces, which they know nothing of
        tenant, place = Caller(tenant_id=UUID(context.tenant_id)), namespace_of(context.configurable)
        if len(text) > MAX_TEXT_LENGTH:
            raise ValueError(f"at most {MAX_TEXT_LENGTH} characters")
        if action == "forget":
            if not key:
                raise ValueError("give the key of the memory to forget")
            await store.delete(tenant, place, key)
            return f"Forgotten: {key}"
        if action == "recall":
            found = await store.search(tenant, place, text, None, MAX_RESULTS)
            return "\n".join(f"[{one.key}] {_text(one.value)}" for one in found) or "Nothing is remembered."
        if not text.strip():
            raise ValueError("give the text to remember")
        # the same key for every attempt of this call: a call that is made again remembers nothing twice
        await store.put(tenant, place, context.idempotency_key, {FIELD: text}, [FIELD])
        return f"Remembered as {context.idempotency_key}."

    return FunctionTool(memory)


def namespace_of(configurable: dict[str, Any]) -> list[str]:
    """The namespace of a person's memories; the one that a whole tenant shares, where no person is named.

    The person whom the credential of the request names comes before the one that a client names.
    """
    owner = str(configurable.get(AUTH_USER_ID) or configurable.get(OWNER_FIELD) or "")
    # a label has no dot, and an address of a person may
    return [ROOT, "user", owner.replace("%", "%25").replace(".", "%2E")] if owner else [ROOT, "shared"]


def _text(value: dict[str, Any]) -> str:
    """What an item says, which anybody with a key may have stored."""
    text = value.get(FIELD)
    return text if isinstance(text, str) else msgspec.json.encode(value).decode()
