"""Stream output of LangGraph as reports to the engine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from langchain_core.messages import AIMessageChunk, BaseMessage

from agent_service_graphs.projection import json_of

Report = dict[str, Any]


class MessageReports:
    """Reports for the items of the stream mode ``messages`` of one run.

    What a client reads with every chunk of a message is sent when it differs from the chunk before: the ``metadata`` of
    the model's call, and the ``fields`` of the chunk other than its id and its text.
    """

    def __init__(self) -> None:
        self._sent: dict[str, bytes] = {}

    def of(self, message: BaseMessage, metadata: dict[str, Any]) -> Iterator[Report]:
        """Yield reports for an item: chunks of a model's message, or a whole one."""
        where = {"node": metadata.get("langgraph_node", ""), "step": metadata.get("langgraph_step", 0)}
        if not isinstance(message, AIMessageChunk) or not message.id:
            yield {**where, "kind": "message", "data": json_of(message), "metadata": json_of(metadata)}
            return
        about: Report = {**where, "kind": "delta", "id": message.id}
        if message.id not in self._sent:
            about["metadata"] = json_of(metadata)
        pieces = _pieces(message)
        for position, (piece, call) in enumerate(pieces):
            text, reasoning = ("", "") if position else _texts(message)
            report = {
                **about,
                "text": text,
                "reasoning": reasoning,
                "call": call,
                "last": piece["chunk_position"] == "last",
            }
            fields = json_of(piece)
            if fields != self._sent.get(message.id):
                self._sent[message.id] = report["fields"] = fields
            yield report
            about.pop("metadata", None)
        if message.chunk_position == "last":
            del self._sent[message.id]


def _pieces(message: AIMessageChunk) -> list[tuple[dict[str, Any], dict[str, Any] | None]]:
    """Return the fields of ``message`` besides its id and its text, and its call; one with several makes several."""
    fields = {**message.__dict__, **(message.__pydantic_extra__ or {})}
    del fields["id"]
    if isinstance(message.content, str):
        del fields["content"]
    calls = [_call(one) for one in message.tool_call_chunks]
    if len(calls) <= 1:
        return [(fields, calls[0] if calls else None)]
    once: dict[str, Any] = {
        "additional_kwargs": {},
        "response_metadata": {},
        "usage_metadata": None,
        "chunk_position": None,
    }
    pieces: list[tuple[dict[str, Any], dict[str, Any] | None]] = []
    for position, call in enumerate(calls):
        own = {
            name: [one for one in fields[name] if one["id"] == call["id"]]
            for name in ("tool_calls", "invalid_tool_calls")
        }
        piece = {**fields, **own, "tool_call_chunks": [message.tool_call_chunks[position]]}
        if position:
            piece = {**piece, **once}
            piece.pop("content", None)
        pieces.append(({**piece, "chunk_position": None}, call))
    pieces[-1][0]["chunk_position"] = message.chunk_position
    return pieces


def _call(chunk: Any) -> dict[str, Any]:
    return {"index": chunk["index"] or 0, "id": chunk["id"], "name": chunk["name"], "args": chunk["args"]}


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
