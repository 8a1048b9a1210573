"""Long-term memory for agents: texts in the store, found again in any later thread."""

from typing import Any, Literal
from uuid import UUID

from app.tools.function import FunctionTool, tool
from app.tools.port import Memories, ToolContext

LONGEST = 4000
MOST = 10
ROOT = "memories"
WHOSE = "user_id"
"""The entry of the caller's ``configurable`` that tells people apart."""


def memory_tool(memories: Memories | None) -> FunctionTool:
    """The tool over ``memories``; None where agents are only looked at."""

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
        if memories is None:
            raise RuntimeError("there is no store here")
        tenant, place = UUID(context.tenant_id), namespace_of(context.configurable)
        if len(text) > LONGEST:
            raise ValueError(f"at most {LONGEST} characters")
        if action == "forget":
            if not key:
                raise ValueError("give the key of the memory to forget")
            await memories.forget(tenant, place, key)
            return f"Forgotten: {key}"
        if action == "recall":
            found = await memories.recall(tenant, place, text, MOST)
            return "\n".join(f"[{name}] {what}" for name, what in found) or "Nothing is remembered."
        if not text.strip():
            raise ValueError("give the text to remember")
        # the same key for every attempt of this call: a call that is made again remembers nothing twice
        await memories.remember(tenant, place, context.idempotency_key, text)
        return f"Remembered as {context.idempotency_key}."

    return FunctionTool(memory)


def namespace_of(configurable: dict[str, Any]) -> list[str]:
    """Where the memories of a person lie; those that all of a tenant share, where the caller names nobody."""
    whose = str(configurable.get(WHOSE) or "")
    # a label has no dot, and an address of a person may
    return [ROOT, "user", whose.replace("%", "%25").replace(".", "%2E")] if whose else [ROOT, "shared"]
