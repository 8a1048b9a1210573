"""Hosted graphs through ``client.threads.stream()`` of ``langgraph_sdk``."""

import asyncio
import json
from typing import Any

import httpx
from langgraph_sdk.client import LangGraphClient

from tests.journeys.conftest import Served

SAID: Any = {"messages": [{"role": "user", "content": "weather in Rome"}]}


async def test_a_subgraph_asks_under_its_namespace_and_the_answer_goes_on(client: LangGraphClient) -> None:
    async with asyncio.timeout(60), client.threads.stream(assistant_id="nested") as thread:
        await thread.run.start(input={"text": "hi"})
        (child,) = [handle async for handle in thread.subgraphs]
        assert child.graph_name == "child"
        assert child.trigger_call_id
        assert thread.interrupted
        command = {"id": 1, "method": "agent.getTree", "params": {}}
        tree: Any = await client.http.post(f"/threads/{thread.thread_id}/commands", json=command)
        (node,) = tree["result"]["tree"]["children"]
        assert node == {"namespace": child.namespace, "status": "interrupted", "graph_name": "child"}
        await thread.run.respond("yes")
        assert (await thread.output)["text"] == "draft published: yes"
        methods = set()
        async for event in thread.events:
            if event["params"]["namespace"]:
                methods.add(event["method"])
            elif event["method"] == "lifecycle" and event["params"]["data"]["event"] == "completed":
                break
        assert methods == {"lifecycle", "updates", "values"}


async def test_chunks_tools_and_custom_values_of_graphs(client: LangGraphClient) -> None:
    async with asyncio.timeout(60), client.threads.stream(assistant_id="tokens") as thread:
        await thread.run.start(input=SAID)
        (message,) = [stream async for stream in thread.messages]
        assert "".join([text async for text in message.text]) == "one two three"
        assert message.node == "speak"
    async with asyncio.timeout(60), client.threads.stream(assistant_id="agent") as thread:
        await thread.run.start(input=SAID)
        (call,) = [handle async for handle in thread.tool_calls]
        assert call.name == "weather"
        assert (await call.output)["status"] == "success"
        await thread.output


async def test_a_reader_sees_live_what_a_replay_shows(client: LangGraphClient, hosted: Served) -> None:
    """Attached before the run and after it, event by event; a second turn, whose input adds to values."""
    everything = ["values", "updates", "messages", "tools", "lifecycle", "checkpoints", "tasks", "custom"]
    thread_id = (await client.threads.create())["thread_id"]
    async with httpx.AsyncClient(base_url=hosted.base, timeout=60) as http:

        async def events(since: int | None, ends: int) -> list[Any]:
            body = {"channels": everything} if since is None else {"channels": everything, "since": since}
            found: list[Any] = []
            async with http.stream("POST", f"/threads/{thread_id}/stream/events", json=body) as stream:
                async for line in stream.aiter_lines():
                    opened.set()
                    if line.startswith("data: "):
                        found.append(json.loads(line.removeprefix("data: ")))
                        if sum(is_end(one) for one in found) == ends:
                            return found
            return found

        def is_end(event: Any) -> bool:
            about = event["params"]
            return bool(event["method"] == "lifecycle" and about["data"]["event"] == "completed")

        live: list[Any] = []
        opened = asyncio.Event()
        for turn in (1, 2):
            reading = asyncio.create_task(events(live[-1]["seq"] if live else None, 1))
            await opened.wait()
            opened.clear()
            text = {"messages": [{"role": "user", "content": f"turn {turn}"}]}
            start = {"assistant_id": "chat", "input": text}
            await http.post(f"/threads/{thread_id}/commands", json={"id": turn, "method": "run.start", "params": start})
            live += await reading
        replayed = await events(None, 2)
    assert [(one["seq"], one["method"]) for one in live] == [(one["seq"], one["method"]) for one in replayed]
    assert live == replayed
    values = [one["params"]["data"]["messages"] for one in live if one["method"] == "values"]
    assert [len(one) for one in values] == [1, 2, 3, 4]


async def test_transformers_of_a_graph_fill_channels_of_their_own(client: LangGraphClient, hosted: Served) -> None:
    """The node of the graph reads another graph's stream of events, version 3."""
    found: list[Any] = []
    async with asyncio.timeout(60), client.threads.stream(assistant_id="watched") as thread:
        await thread.run.start(input={"numbers": [1, 2]})
        output: Any = await thread.output
        assert output["done"] == [[0, 1], [3]]
        path, body = f"/threads/{thread.thread_id}/stream/events", {"channels": ["custom:progress", "lifecycle"]}
        async with httpx.AsyncClient(base_url=hosted.base) as http, http.stream("POST", path, json=body) as stream:
            async for line in stream.aiter_lines():
                if line.startswith("data: "):
                    event = json.loads(line.removeprefix("data: "))
                    if event["method"] == "custom":
                        found.append(event["params"]["data"])
                    elif event["params"]["data"]["event"] == "completed" and not event["params"]["namespace"]:
                        break
    assert found == [{"name": "progress", "payload": {"ended": one}} for one in (["watch"], "all")]
