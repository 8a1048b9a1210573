"""Every public method of the SDK in the supported areas, async and sync, against a server."""

import inspect
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from langgraph_sdk import get_client, get_sync_client

from docs.langgraph import PAGE, page
from tests.journeys.conftest import Served

HELLO: Any = {"messages": [{"role": "user", "content": "hello"}]}


class Spoken:
    """A wrapper of both kinds of client that records the called methods."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.called: set[tuple[str, str]] = set()

    async def __call__(self, area: str, method: str, *args: Any, **more: Any) -> Any:
        self.called.add((area, method))
        answer = getattr(getattr(self.client, area), method)(*args, **more)
        if inspect.isawaitable(answer):
            answer = await answer
        if hasattr(answer, "__aiter__"):
            return [part async for part in answer]
        return list(answer) if inspect.isgenerator(answer) else answer

    async def first(self, count: int, area: str, method: str, *args: Any, **more: Any) -> list[Any]:
        """Return the first parts of an endless stream."""
        self.called.add((area, method))
        stream = getattr(getattr(self.client, area), method)(*args, **more)
        if inspect.isawaitable(stream):
            stream = await stream
        parts: list[Any] = []
        if hasattr(stream, "__aiter__"):
            async for part in stream:
                parts.append(part)
                if len(parts) == count:
                    break
            return parts
        for part in stream:
            parts.append(part)
            if len(parts) == count:
                break
        return parts


@pytest.fixture(params=["async", "sync"])
async def sdk(request: pytest.FixtureRequest, served: Served) -> AsyncIterator[Spoken]:
    if request.param == "async":
        async with get_client(url=served.base) as client:
            yield Spoken(client)
    else:
        with get_sync_client(url=served.base) as client:
            yield Spoken(client)


async def assistants(sdk: Spoken) -> None:
    made = await sdk("assistants", "create", "echo", name="mine", metadata={"a": str(uuid.uuid4())})
    id_ = made["assistant_id"]
    assert (await sdk("assistants", "get", id_))["name"] == "mine"
    assert (await sdk("assistants", "update", id_, name="ours"))["version"] == 2
    assert [v["version"] for v in await sdk("assistants", "get_versions", id_)] == [2, 1]
    assert (await sdk("assistants", "set_latest", id_, 1))["name"] == "mine"
    assert [a["assistant_id"] for a in await sdk("assistants", "search", metadata=made["metadata"])] == [id_]
    assert await sdk("assistants", "count", metadata=made["metadata"]) == 1
    assert (await sdk("assistants", "get_graph", id_))["nodes"]
    assert (await sdk("assistants", "get_schemas", id_))["graph_id"] == "echo"
    assert await sdk("assistants", "get_subgraphs", id_) == {}
    await sdk("assistants", "delete", id_)


async def conversation(sdk: Spoken, thread_id: str) -> None:
    """Say something by protocol version 2."""
    sdk.called.add(("threads", "stream"))
    opened = sdk.client.threads.stream(thread_id, assistant_id="echo")
    if hasattr(opened, "__aenter__"):
        async with opened as thread:
            await thread.run.start(input=HELLO)
            assert [message.message_id async for message in thread.messages]
            assert (await thread.agent.get_tree())["nodes"]
    else:
        with opened as thread:
            thread.run.start(input=HELLO)
            assert [message.message_id for message in thread.messages]
            assert thread.agent.get_tree()["nodes"]


async def threads(sdk: Spoken) -> None:
    mark = {"mark": str(uuid.uuid4())}
    thread_id = (await sdk("threads", "create", metadata=mark))["thread_id"]
    await sdk("runs", "wait", thread_id, "echo", input=HELLO)
    assert (await sdk("threads", "get", thread_id))["status"] == "idle"
    assert (await sdk("threads", "update", thread_id, metadata={"more": 1}))["metadata"]["more"] == 1
    assert len(await sdk("threads", "search", metadata=mark)) == await sdk("threads", "count", metadata=mark) == 1
    assert len((await sdk("threads", "get_state", thread_id))["values"]["messages"]) == 2
    assert (await sdk("threads", "update_state", thread_id, {"x": 1}))["checkpoint"]
    assert len(await sdk("threads", "get_history", thread_id)) == 4
    assert len(await sdk.first(4, "threads", "join_stream", thread_id, last_event_id="-1")) == 4
    await conversation(sdk, thread_id)
    await sdk("threads", "copy", thread_id)
    assert await sdk("threads", "count", metadata=mark) == 2
    assert (await sdk("threads", "prune", [thread_id], strategy="keep_latest"))["pruned_count"] == 1
    await sdk("threads", "delete", thread_id)
    assert await sdk("threads", "count", metadata=mark) == 1


async def runs(sdk: Spoken) -> None:
    thread_id = (await sdk("threads", "create"))["thread_id"]
    run_id = (await sdk("runs", "create", thread_id, "echo", input=HELLO))["run_id"]
    assert len((await sdk("runs", "join", thread_id, run_id))["messages"]) == 2
    assert (await sdk("runs", "get", thread_id, run_id))["status"] == "success"
    assert [part.event for part in await sdk("runs", "join_stream", thread_id, run_id)][-1] == "end"
    assert len((await sdk("runs", "wait", thread_id, "echo", input=HELLO))["messages"]) == 4
    streamed = await sdk("runs", "stream", thread_id, "echo", input=HELLO, stream_mode=["values", "messages-tuple"])
    assert [part.event for part in streamed][0 :: len(streamed) - 1] == ["metadata", "end"]
    assert len(await sdk("runs", "list", thread_id)) == 3
    batch: Any = [{"assistant_id": "echo", "input": HELLO}] * 2
    assert len(await sdk("runs", "create_batch", batch)) == 2
    late = [
        (await sdk("runs", "create", thread_id, "echo", input=HELLO, after_seconds=3600))["run_id"] for _ in range(2)
    ]
    await sdk("runs", "cancel", thread_id, late[0])
    await sdk("runs", "cancel_many", thread_id=thread_id, run_ids=[late[1]])
    assert {(await sdk("runs", "get", thread_id, one))["status"] for one in late} == {"interrupted"}
    await sdk("runs", "delete", thread_id, run_id)
    assert len(await sdk("runs", "list", thread_id)) == 4


async def crons(sdk: Spoken) -> None:
    mark = {"mark": str(uuid.uuid4())}
    thread_id = (await sdk("threads", "create"))["thread_id"]
    bound = await sdk("crons", "create_for_thread", thread_id, "echo", schedule="0 0 1 1 *", input=HELLO)
    cron = await sdk("crons", "create", "echo", schedule="0 0 1 1 *", input=HELLO, metadata=mark, timezone="Asia/Tokyo")
    assert cron["next_run_date"].endswith("12-31T15:00:00Z")
    assert [one["cron_id"] for one in await sdk("crons", "search", thread_id=thread_id)] == [bound["cron_id"]]
    assert [one["cron_id"] for one in await sdk("crons", "search", metadata=mark)] == [cron["cron_id"]]
    assert (await sdk("crons", "update", cron["cron_id"], enabled=False))["next_run_date"] is None
    for one in (bound, cron):
        await sdk("crons", "delete", one["cron_id"])
    assert await sdk("crons", "count", metadata=mark) == await sdk("crons", "count", thread_id=thread_id) == 0


async def store(sdk: Spoken) -> None:
    place = ["users", str(uuid.uuid4())]
    await sdk("store", "put_item", place, "k", {"likes": "tea"}, index=["likes"], ttl=60)
    assert (await sdk("store", "get_item", place, "k", refresh_ttl=False))["value"] == {"likes": "tea"}
    assert [i["key"] for i in (await sdk("store", "search_items", place, filter={"likes": "tea"}))["items"]] == ["k"]
    assert await sdk("store", "list_namespaces", suffix=place[1:]) == {"namespaces": [place]}
    await sdk("store", "delete_item", place, "k")
    assert await sdk("store", "get_item", place, "k") is None


@pytest.mark.parametrize("area", [assistants, threads, runs, crons, store], ids=lambda area: area.__name__)
async def test_every_method_works(sdk: Spoken, area: Callable[[Spoken], Awaitable[None]]) -> None:
    await area(sdk)
    name = area.__name__
    public = {
        (name, method)
        for method, found in inspect.getmembers(type(getattr(sdk.client, name)), inspect.isfunction)
        if not method.startswith("_")
    }
    assert public <= sdk.called


def test_the_table_of_methods_is_current() -> None:
    """docs/reference/langgraph-compatibility.md has what `make docs-langgraph` writes."""
    assert PAGE.read_text() == page(), "run: make docs-langgraph"
