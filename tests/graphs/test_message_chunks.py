"""Chunks of messages have the fields, the metadata and the namespace that LangGraph gives them."""

from collections.abc import Iterator
from typing import Any

import msgspec
from langgraph_sdk.client import LangGraphClient

from agent_service_graphs.projection import json_of
from tests.graphs.project.chunks import reporting, supervised

GIVEN: Any = {"messages": [{"role": "user", "content": "hi", "id": "m"}]}
ONLY_HERE = {"assistant_id", "created_by", "graph_id", "run_id", "thread_id"}


def _fields(namespace: Any, chunk: Any, metadata: Any) -> tuple[list[str], dict[str, Any], dict[str, Any]]:
    """Return what is the same in every run: without ids of runs, tasks and messages."""
    places = [one.split(":")[0] for one in namespace]
    named = {name: value for name, value in metadata.items() if name not in ONLY_HERE}
    for name in ("checkpoint_ns", "langgraph_checkpoint_ns", "langgraph_path"):
        named[name] = [str(one).split(":")[0] for one in named[name]] if name == "langgraph_path" else "ns"
    return places, {name: value for name, value in chunk.items() if name != "id"}, named


def _whole(chunks: list[Any]) -> Iterator[Any]:
    """Join a chunk with several calls again, which the server sends as one chunk for each call."""
    for namespace, chunk, metadata in chunks:
        calls = chunk.get("tool_call_chunks") or []
        for call in calls if len(calls) > 1 else [None]:
            own = {
                name: [one for one in chunk[name] if one["id"] == call["id"]]
                for name in ("tool_calls", "tool_call_chunks")
                if call
            }
            yield namespace, {**chunk, **own}, metadata


async def test_chunks_are_those_of_langgraph_with_metadata_and_namespaces(client: LangGraphClient) -> None:
    local = []
    streamed: Any = supervised.astream(GIVEN, stream_mode="messages", subgraphs=True)
    async for namespace, (message, metadata) in streamed:
        chunk, about = (msgspec.json.decode(json_of(one)) for one in (message, metadata))
        local.append(_fields(namespace, chunk, about))
    parts = [
        part
        async for part in client.runs.stream(
            None, "supervised", input=GIVEN, stream_mode="messages-tuple", stream_subgraphs=True
        )
        if part.event.startswith("messages")
    ]
    hosted = [_fields(part.event.split("|")[1:], *part.data) for part in parts]
    assert hosted == list(_whole(local))
    assert {part.data[1]["tags"][0] for part in parts if "tags" in part.data[1]} == {"thinks", "calls"}
    assert all(part.data[1]["thread_id"] and part.data[1]["run_id"] for part in parts)


async def test_custom_values_of_tasks_are_those_of_the_graph(client: LangGraphClient) -> None:
    given: Any = {"numbers": [1, 2]}
    streamed: Any = reporting.astream(given, stream_mode="custom")
    local = [one async for one in streamed]
    parts = [part async for part in client.runs.stream(None, "reporting", input=given, stream_mode="custom")]
    assert [part.data for part in parts if part.event == "custom"] == local
    assert local == ["of the entry point", "of task 1", "of task 2"]
