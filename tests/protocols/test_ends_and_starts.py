"""A run may end, wait for its time, or be answered while a client asks for it: each protocol says what is so now."""

import asyncio
import contextlib
import json
import threading
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from app.base.ids import time_of
from app.protocols.a2a import agent_tasks
from app.protocols.a2a.agent_tasks import AgentTasks
from app.protocols.ag_ui import connection, inbound, starting
from app.protocols.ai_sdk.projection import UIMessageProjection
from app.protocols.live_runs import live_run, stop_run
from app.security.access.structs import DEFAULT_TENANT, Principal
from tests.database import age
from tests.protocols.ag_ui_streams import checked, run_input, types_of
from tests.system.services import API, Service, serving
from tests.waiting import eventually

AGENTS = Path(__file__).parent / "agents" / "agents.toml"
PATIENCE = 20.0


@pytest.fixture
async def service(database_url: str) -> AsyncIterator[Service]:
    async with serving(database_url, AGENT_AUTH="none", AGENT_CONFIG=str(AGENTS)) as service:
        yield service


def said(words: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": words}]}


async def run_on(service: Service, thread: str, agent: str, words: str, **rest: Any) -> str:
    """Run an agent on a thread; return the run's id."""
    body = {"assistant_id": agent, "input": said(words), "if_not_exists": "create", **rest}
    started = await service.client.post(f"{API}/threads/{thread}/runs", json=body)
    run_id = str(started.json()["run_id"])
    if not rest:
        await service.get(f"/threads/{thread}/runs/{run_id}/join")
    return run_id


async def test_a_scheduled_run_hides_nothing_of_its_thread(service: Service) -> None:
    thread, principal = str(uuid.uuid4()), Principal(DEFAULT_TENANT)
    first = await run_on(service, thread, "helper", "one")
    await run_on(service, thread, "helper", "two", after_seconds=3600)
    connected = await service.client.post("/copilotkit/agent/helper/connect", json=run_input(thread))
    events = checked(connected.text)
    assert types_of(events) == ["RUN_STARTED", "STATE_SNAPSHOT", "MESSAGES_SNAPSHOT", "RUN_FINISHED"]
    assert "did one" in connected.text
    assert (await service.client.get(f"/ai-sdk/helper/chat/{thread}/stream")).status_code == 204
    stopped = await service.client.post(f"/copilotkit/agent/helper/stop/{thread}")
    assert stopped.json()["stopped"] is False
    gateway = service.services.gateway
    assert await live_run(gateway, principal, uuid.UUID(thread)) is None
    assert not await stop_run(gateway, principal, uuid.UUID(thread), uuid.UUID(first), wait=True)


async def test_a_repeated_background_response_is_shown_as_it_is(service: Service, tmp_path: Path) -> None:
    done = tmp_path / "done"
    body = {"model": "helper", "input": f"until {done}", "background": True}
    async with asyncio.timeout(PATIENCE):
        first, again = [
            (await service.client.post("/v1/responses", json=body, headers={"idempotency-key": "k"})).json()
            for _ in range(2)
        ]
    assert again["id"] == first["id"]
    assert again["status"] in {"queued", "in_progress"}
    done.touch()


async def test_a_repeated_completion_is_the_same_to_the_byte(service: Service) -> None:
    headers = {"idempotency-key": "k", "x-chat-id": "c"}
    body: dict[str, Any] = {"model": "helper", **said("hello")}
    first, again = [await service.client.post("/v1/chat/completions", json=body, headers=headers) for _ in range(2)]
    assert first.content == again.content
    made = time_of(first.headers["x-run-id"])
    assert made is not None
    assert first.json()["created"] == int(made.timestamp())


async def test_a_follower_of_a_task_that_is_cancelled_while_it_asks_again_is_told_so(service: Service) -> None:
    def message(**rest: Any) -> dict[str, Any]:
        message_id = f"tck-input-required-{uuid.uuid4()}"
        return {"message": {"messageId": message_id, "role": "ROLE_USER", "parts": [{"text": "x"}], **rest}}

    send = "/a2a/peer/message:send"
    task = (await service.client.post(send, json=message())).json()["task"]["id"]
    await service.client.post(send, json=message(taskId=task))
    tasks = await AgentTasks.of(service.services.gateway, Principal(DEFAULT_TENANT), "peer")
    async with contextlib.aclosing(await tasks.subscription(task)) as chunks, asyncio.timeout(PATIENCE):
        assert "TASK_STATE_INPUT_REQUIRED" in str(await anext(chunks))
        cancelled = await service.client.post(f"/a2a/peer/tasks/{task}:cancel")
        assert cancelled.json()["status"]["state"] == "TASK_STATE_CANCELED"
        rest = b"".join([chunk async for chunk in chunks])
    updates = [json.loads(line[6:]) for line in rest.decode().split("\n\n") if line]
    assert [one["statusUpdate"]["status"]["state"] for one in updates] == ["TASK_STATE_CANCELED"]


async def test_an_answer_that_followed_an_approval_is_regenerated_from_its_question(service: Service) -> None:
    chat = str(uuid.uuid4())

    async def post(**body: Any) -> list[Any]:
        answer = await service.client.post("/ai-sdk/careful/chat", json={"id": chat, **body})
        assert answer.status_code == 200, answer.text
        return [json.loads(line[6:]) for line in answer.text.split("\n") if line.startswith("data: {")]

    asked = {"id": "u", "role": "user", "parts": [{"type": "text", "text": "what is 12*(3+4)?"}]}
    (request,) = [one for one in await post(messages=[asked]) if one["type"] == "tool-approval-request"]
    part: dict[str, Any] = {"type": "tool-calculator", "state": "approval-responded"}
    part |= {"approval": {"id": request["approvalId"], "approved": True}}
    answered = await post(messages=[asked, {"id": "a", "role": "assistant", "parts": [part]}])
    again = await post(messages=[asked], trigger="regenerate-message", messageId=answered[0]["messageId"])
    assert "tool-approval-request" in [one["type"] for one in again]


async def test_a_list_of_long_tasks_is_cut_and_the_next_page_has_the_rest(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_tasks, "MAX_ANSWER_BYTES", 10)
    runs = [await run_on(service, str(uuid.uuid4()), "helper", f"task {n}") for n in range(3)]
    found, token = [], ""
    for _ in runs:
        params = {"includeArtifacts": "true", "pageToken": token}
        page = (await service.client.get("/a2a/helper/tasks", params=params)).json()
        (task,) = page["tasks"]
        found.append(task["id"])
        token = page["nextPageToken"]
    assert found == runs[::-1], "older tasks of other tests may follow"


async def test_an_answer_that_is_sent_twice_at_once_follows_one_run(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    thread, runs = str(uuid.uuid4()), service.services.gateway.runs
    question = {"id": "u", "role": "user", "content": "what is 12*(3+4)?"}
    asked = await service.client.post("/ag-ui/careful", json=run_input(thread, question))
    (interrupt,) = checked(asked.text)[-1]["outcome"]["interrupts"]
    answer = {"interruptId": interrupt["id"], "status": "resolved", "payload": {"approved": True}}
    given = run_input(thread, resume=[answer])
    first = await service.client.post("/ag-ui/careful", json=given)
    replayed, looked = runs.replayed, 0

    async def late(principal: Any, key: Any) -> Any:
        """Find nothing at first, as before the first request is committed."""
        nonlocal looked
        looked += 1
        return None if looked == 1 else await replayed(principal, key)

    monkeypatch.setattr(runs, "replayed", late)
    again = await service.client.post("/ag-ui/careful", json=given)
    assert (again.content, looked) == (first.content, 2)
    assert checked(first.text)[-1]["outcome"] == {"type": "success"}


async def test_a_chat_stream_that_a_stopping_server_ends_is_no_finished_answer(
    service: Service, tmp_path: Path
) -> None:
    chat, done, gateway = str(uuid.uuid4()), tmp_path / "done", service.services.gateway
    parts = [{"type": "text", "text": f"until {done}"}]
    body = {"id": chat, "messages": [{"id": "u1", "role": "user", "parts": parts}]}
    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
        streaming = group.create_task(service.client.post("/ai-sdk/helper/chat", json=body))
        await eventually(lambda: live_run(gateway, Principal(DEFAULT_TENANT), uuid.UUID(chat)))
        gateway.streams.drain()
        last = (await streaming).text.strip().splitlines()[-1]
        done.touch()
    assert json.loads(last.removeprefix("data: "))["type"] == "error"
    assert UIMessageProjection("m").stopping.endswith(last.encode() + b"\n\n")


async def test_a_repeated_chat_request_says_that_the_stream_has_expired(service: Service, database_url: str) -> None:
    body = {"id": "c", "messages": [{"id": "u1", "role": "user", "parts": [{"type": "text", "text": "hello"}]}]}
    headers = {"idempotency-key": "k"}
    first, again = [await service.client.post("/ai-sdk/helper/chat", json=body, headers=headers) for _ in range(2)]
    assert (first.status_code, again.text) == (200, first.text)
    await age(database_url, first.headers["x-run-id"])
    late = await service.client.post("/ai-sdk/helper/chat", json=body, headers=headers)
    assert (late.status_code, "expired" in late.json()["detail"]) == (410, True)


async def test_a_long_thread_is_compared_and_shown_off_the_event_loop(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    thread, threads, here = str(uuid.uuid4()), [], threading.get_ident()
    long = [{"type": "human", "id": f"h{n}", "content": "x" * 5_000} for n in range(60)]
    began = {"assistant_id": "helper", "input": {"messages": long}, "if_not_exists": "create"}
    (await service.client.post(f"{API}/threads/{thread}/runs/wait", json=began)).raise_for_status()

    def noted(module: Any, name: str) -> None:
        work = getattr(module, name)

        def call(*args: Any, **named: Any) -> Any:
            threads.append((name, threading.get_ident() == here))
            return work(*args, **named)

        monkeypatch.setattr(module, name, call)

    noted(connection, "shown")
    noted(starting, "shown")
    noted(inbound, "turn_of")
    noted(inbound, "lacks_messages")
    noted(inbound.Thread, "of")
    connected = await service.client.post("/copilotkit/agent/helper/connect", json=run_input(thread))
    assert len(connected.content) > 300_000
    known = [{"id": one["id"], "role": "user", "content": one["content"]} for one in long]
    body = run_input(thread, *known, {"id": "new", "role": "user", "content": "hello"})
    assert types_of(checked((await service.client.post("/ag-ui/helper", json=body)).content))[-1] == "RUN_FINISHED"
    assert {name for name, _ in threads} == {"shown", "turn_of", "lacks_messages", "of"}
    assert [name for name, on_loop in threads if on_loop] == []
