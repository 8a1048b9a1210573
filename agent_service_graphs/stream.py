"""Stream output of LangGraph as reports to the engine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage

from agent_service_graphs.projection import json_of

Report = dict[str, Any]


def usage_of(updates: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the tokens of the models' messages in the outputs of nodes, with the name of the last model."""
    found: dict[str, Any] = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0, "model": ""}
    for update in updates:
        for output in update.values():
            messages = output.get("messages") if isinstance(output, dict) else None
            for message in messages if isinstance(messages, list) else [messages]:
                if isinstance(message, AIMessage) and message.usage_metadata:
                    for name in ("input_tokens", "output_tokens", "total_tokens"):
                        found[name] += message.usage_metadata.get(name) or 0
                    found["model"] = str(message.response_metadata.get("model_name") or "")
    return found if found["total_tokens"] else None


def message_reports(message: BaseMessage, metadata: dict[str, Any]) -> Iterator[Report]:
    """Yield reports for an item of the stream mode ``messages``: chunks of a model's message, or a whole one."""
    where = {"node": metadata.get("langgraph_node", ""), "step": metadata.get("langgraph_step", 0)}
    if not isinstance(message, AIMessageChunk) or not message.id:
        yield {**where, "kind": "message", "data": json_of(message)}
        return
    about = {**where, "kind": "delta", "id": message.id}
    calls = message.tool_call_chunks
    text, reasoning = _texts(message)
    last = message.chunk_position == "last"
    if text or reasoning or not calls:
        yield {**about, "text": text, "reasoning": reasoning, "last": last and not calls}
    for position, call in enumerate(calls):
        chunk = {"index": call["index"] or 0, "id": call["id"], "name": call["name"], "args": call["args"]}
        yield {**about, "call": chunk, "last": last and position == len(calls) - 1}


def _texts(message: AIMessageChunk) -> tuple[str, str]:
    """Return the text and the reasoning in a chunk."""
    reasoning = message.additional_kwargs.get("reasoning_content") or ""
    if isinstance(message.content, str):
        return message.content, str(reasoning)
    text = ""
    for block in message.content:
        if isinstance(block, str):
            text += block
        elif block.get("type") == "text":
            text += block.get("text") or ""
        elif block.get("type") in {"thinking", "reasoning"}:
            reasoning += block.get("thinking") or block.get("reasoning") or ""
    return text, str(reasoning)
