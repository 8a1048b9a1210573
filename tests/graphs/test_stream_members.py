"""Every public member of what ``client.threads.stream()`` returns, in journeys on one server."""

import asyncio
from typing import Any

from langgraph_sdk._async.stream import AsyncThreadStream
from langgraph_sdk.client import LangGraphClient

HELLO: Any = {"messages": [{"role": "user", "content": "weather in Rome"}]}


async def subgraphs_and_questions(client: LangGraphClient) -> set[str]:
    """Return the members that were used."""
    async with client.threads.stream(assistant_id="nested") as thread:
        assert thread.subagents is thread.subgraphs
        await thread.run.start(input={"text": "hi"})
        (child,) = [handle async for handle in thread.subgraphs]
        assert (child.graph_name, thread.interrupted) == ("child", True)
        (asked,) = thread.interrupts
        await thread.run.respond("yes", interrupt_id=asked["interrupt_id"])
        assert (await thread.output)["text"] == "draft published: yes"
        assert not thread.interrupted
        thread_id = thread.thread_id

    async with client.threads.stream(thread_id, assistant_id="nested") as thread:
        async for event in thread.events:
            data: Any = event["params"]["data"]
            if not event["params"]["namespace"] and data.get("event") == "completed":
                break
        await thread.close()
    return {"subgraphs", "subagents", "interrupted", "interrupts", "events", "close"}


async def test_every_member_of_a_thread_stream_works(client: LangGraphClient) -> None:
    used: set[str] = set()
    async with asyncio.timeout(12):
        async with client.threads.stream(assistant_id="agent") as thread:
            used |= {"run", "thread_id", "assistant_id", "messages", "output", "agent"}
            used.add("observe_applied_through_seq")  # takes the answer of each command
            await thread.run.start(input=HELLO, metadata={"a": 1})
            messages = [message async for message in thread.messages]  # reading on is what completes them
            texts = [await message.text for message in messages]
            output: Any = await thread.output
            assert texts[-1] == output["messages"][-1]["content"]
            assert (await thread.agent.get_tree())["nodes"]
            run: Any = (await client.runs.list(thread.thread_id))[0]
            assert (run["assistant_id"] != thread.assistant_id, run["metadata"]["a"]) == (True, 1)

        async with client.threads.stream(assistant_id="agent") as thread:
            used |= {"tool_calls"}
            await thread.run.start(input=HELLO)
            (called,) = [one async for one in thread.tool_calls]
            assert (called.name, called.input) == ("weather", {"city": "Bonn"})
            assert (await called.output)["tool_call_id"] == called.tool_call_id

        async with client.threads.stream(assistant_id="agent") as thread:
            used |= {"interleave_projections"}
            await thread.run.start(input=HELLO)
            channels = ["values", "messages", "tool_calls", "updates", "tasks", "checkpoints"]
            seen = {name async for name, _ in thread.interleave_projections(channels)}
            assert seen == set(channels)

        async with client.threads.stream(assistant_id="agent") as thread:
            used |= {"subscribe", "values"}
            await thread.run.start(input=HELLO)
            nodes = [event["params"]["data"]["node"] async for event in thread.subscribe(["updates"])]
            assert len(nodes) == 3
            final: Any = await thread.values
            assert len(final["messages"]) == 4

        used |= await subgraphs_and_questions(client)

        async with client.threads.stream(assistant_id="watched") as thread:
            used |= {"extensions"}
            await thread.run.start(input={"numbers": [1, 2]})
            sent = [payload async for payload in thread.extensions["progress"]]
            assert len(sent) == 2
    assert used == {name for name in vars(thread) | vars(AsyncThreadStream) if not name.startswith("_")}
