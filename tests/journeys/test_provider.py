"""A server with a provider: tools, usage, images and failures."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from langgraph_sdk import get_client

from tests.database import clone, drop
from tests.journeys.conftest import Served
from tests.llm.fake_provider import FakeProvider
from tests.llm.faults import Fault
from tests.llm.wires import Say

KEY = "sk-canary-0123456789"
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}


@pytest.fixture(params=["openai", "anthropic"])
async def served_by(
    request: pytest.FixtureRequest, server_url: str, tmp_path: Path
) -> AsyncIterator[tuple[Served, FakeProvider]]:
    url = await clone(server_url)
    async with FakeProvider() as provider:
        environment = (
            {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": f"{provider.url}/v1"}
            if request.param == "openai"
            else {"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": provider.url}
        )
        server = Served(url, tmp_path, **environment)
        try:
            await asyncio.to_thread(server.wait_until_ready)
            yield server, provider
        finally:
            await asyncio.to_thread(server.stop)
    await drop(server_url, url)


async def test_a_tool_using_answer_comes_through_with_its_usage_and_images_go_out(
    served_by: tuple[Served, FakeProvider],
) -> None:
    server, provider = served_by
    provider.plan(Say(text="", calls=[("calculator", '{"expression":"6*7"}')]), Say(text="It is 42."))
    question = cast("Any", {"messages": [{"role": "user", "content": [{"type": "text", "text": "?"}, IMAGE]}]})
    async with get_client(url=server.base) as client:
        thread_id = (await client.threads.create())["thread_id"]
        parts = [
            part
            async for part in client.runs.stream(
                thread_id, "assistant", input=question, stream_mode=["messages-tuple", "updates"]
            )
        ]
        messages = cast("Any", await client.threads.get_state(thread_id))["values"]["messages"]
    assert [m["type"] for m in messages] == ["human", "ai", "tool", "ai"]
    assert messages[2]["content"] == "42"
    assert messages[3]["content"] == "It is 42."
    assert messages[3]["usage_metadata"]["total_tokens"] > 0
    assert parts[-1].data["status"] == "success"
    streamed = [p.data[0] for p in parts if p.event == "messages" and p.data[0]["id"] == messages[3]["id"]]
    assert "".join(chunk["content"] for chunk in streamed) == "It is 42."
    asked = [one for one in provider.requests if one.body]
    assert "iVBORw0KGgo=" in str(asked[0].body)
    assert "42" in str(asked[1].body["messages"][-1])
    assert KEY not in server.log.read_text()


@pytest.mark.parametrize(
    "fault,name,tries",
    [
        (Fault.UNAUTHORIZED, "ModelCredentials", 1),
        (Fault.BAD_REQUEST, "ModelRejected", 1),
        (Fault.CUT, "ModelUnavailable", 3),
        (Fault.BAD_JSON, "ModelProtocol", 3),
    ],
)
async def test_a_provider_that_fails_ends_the_run_with_its_error_and_no_secret(
    served_by: tuple[Served, FakeProvider], fault: Fault, name: str, tries: int
) -> None:
    server, provider = served_by
    provider.plan(*[fault] * tries)
    async with httpx.AsyncClient(base_url=server.base, timeout=30) as http:
        thread_id = (await http.post("/threads", json={})).json()["thread_id"]
        body = {"assistant_id": "assistant", "input": "hi"}
        answer = await http.post(f"/threads/{thread_id}/runs/wait", json=body)
        assert answer.status_code == 200
        assert answer.json()["__error__"]["error"] == name
        thread = (await http.get(f"/threads/{thread_id}")).json()
        assert thread["status"] == "error"
        assert [m["content"] for m in thread["values"]["messages"]] == ["hi"]
        provider.plan(Say(text="better now"))
        again = await http.post(f"/threads/{thread_id}/runs/wait", json={"assistant_id": "assistant", "input": None})
        assert again.json()["messages"][-1]["content"] == "better now"
        health = (await http.get("/health")).json()
    assert KEY not in answer.text + server.log.read_text() + str(health)
