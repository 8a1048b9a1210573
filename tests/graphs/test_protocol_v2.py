"""Hosted graphs through ``client.threads.stream()`` of ``langgraph_sdk``."""

import asyncio
from typing import Any

from langgraph_sdk.client import LangGraphClient

SAID: Any = {"messages": [{"role": "user", "content": "weather in Rome"}]}


async def test_a_subgraph_asks_under_its_namespace_and_the_answer_goes_on(client: LangGraphClient) -> None:
    async with asyncio.timeout(60), client.threads.stream(assistant_id="nested") as thread:
        await thread.run.start(input={"text": "hi"})
        (child,) = [handle async for handle in thread.subgraphs]
        assert child.graph_name == "child"
        assert child.trigger_call_id
        assert thread.interrupted
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
