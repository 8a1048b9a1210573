"""Journeys of the Python SDK of A2A. Usage, by the Python of its environment: -m tests.suites.a2a_client ADDRESS"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from queue import SimpleQueue
from threading import Thread
from typing import Any

import httpx
from a2a.client import ClientConfig, ClientFactory  # type: ignore[import-not-found]
from a2a.client.card_resolver import A2ACardResolver  # type: ignore[import-not-found]
from a2a.helpers.proto_helpers import get_artifact_text, new_text_message  # type: ignore[import-not-found]
from a2a.types import (  # type: ignore[import-not-found]
    CancelTaskRequest,
    GetTaskRequest,
    ListTasksRequest,
    Role,
    SendMessageConfiguration,
    SendMessageRequest,
    SubscribeToTaskRequest,
    TaskPushNotificationConfig,
    TaskState,
)
from a2a.utils.signing import create_signature_verifier  # type: ignore[import-not-found]
from jwt import PyJWK

from tests.suites import checks

BASE = sys.argv[1]
HEADERS = {"Authorization": f"Bearer {sys.argv[2]}"}


def message(message_id: str, text: str = "hello", **ids: str) -> Any:
    made = new_text_message(text, role=Role.ROLE_USER, **ids)
    made.message_id = f"{message_id}-{made.message_id}"
    return made


async def card(http: httpx.AsyncClient) -> Any:
    return await A2ACardResolver(http, f"{BASE}/a2a/peer").get_agent_card()


async def client(binding: str, *, streaming: bool = True) -> Any:
    http = httpx.AsyncClient(headers=HEADERS, timeout=30)
    config = ClientConfig(
        httpx_client=http, streaming=streaming, supported_protocol_bindings=[binding], use_client_preference=True
    )
    return ClientFactory(config).create(await card(http))


async def events_of(stream: AsyncIterator[Any]) -> list[Any]:
    return [event async for event in stream]


def states_of(events: list[Any]) -> list[int]:
    return [event.status_update.status.state for event in events if event.HasField("status_update")]


async def verifies_the_signed_card() -> None:
    async with httpx.AsyncClient(headers=HEADERS) as http:
        found = await card(http)
        keys = (await http.get(f"{BASE}/a2a/jwks.json")).json()["keys"]

        def key_of(kid: str | None, jku: str | None) -> PyJWK:
            assert jku == f"{BASE}/a2a/jwks.json"
            return next(PyJWK(key) for key in keys if key["kid"] == kid)

        create_signature_verifier(key_of, ["ES256"])(found)


async def streams(binding: str) -> None:
    peer = await client(binding)
    events = await events_of(peer.send_message(SendMessageRequest(message=message("tck-stream-artifact-chunked"))))
    assert events[0].HasField("task")
    assert states_of(events)[-1] == TaskState.TASK_STATE_COMPLETED
    text = "".join(get_artifact_text(one.artifact_update.artifact) for one in events if one.HasField("artifact_update"))
    assert "chunk-1" in text
    assert "chunk-2" in text


async def waits(binding: str) -> None:
    peer = await client(binding, streaming=False)
    (event,) = await events_of(peer.send_message(SendMessageRequest(message=message("tck-complete"))))
    assert event.task.status.state == TaskState.TASK_STATE_COMPLETED
    shown = await peer.get_task(GetTaskRequest(id=event.task.id))
    assert get_artifact_text(shown.artifacts[0]) == "Hello from TCK"
    listed = await peer.list_tasks(ListTasksRequest(context_id=event.task.context_id))
    assert [one.id for one in listed.tasks] == [event.task.id]


async def is_asked_and_answers(binding: str) -> None:
    peer = await client(binding)
    asked = await events_of(peer.send_message(SendMessageRequest(message=message("tck-input-required"))))
    assert states_of(asked)[-1] == TaskState.TASK_STATE_INPUT_REQUIRED
    ids = {"task_id": asked[0].task.id, "context_id": asked[0].task.context_id}
    done = await events_of(peer.send_message(SendMessageRequest(message=message("tck-complete", **ids))))
    assert done[0].task.id == ids["task_id"]
    assert states_of(done)[-1] == TaskState.TASK_STATE_COMPLETED


async def follows_and_cancels(binding: str) -> None:
    peer = await client(binding)
    started = peer.send_message(SendMessageRequest(message=message("slow-resubscribe")))
    task = (await anext(started)).task
    follower = await client(binding)
    following = follower.subscribe(SubscribeToTaskRequest(id=task.id))
    assert (await anext(following)).task.id == task.id
    cancelled = await follower.cancel_task(CancelTaskRequest(id=task.id))
    assert cancelled.status.state == TaskState.TASK_STATE_CANCELED
    for events in (await events_of(following), await events_of(started)):
        assert states_of(events)[-1] == TaskState.TASK_STATE_CANCELED


async def is_notified(binding: str) -> None:
    news: SimpleQueue[Any] = SimpleQueue()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            news.put((json.loads(body), self.headers["x-a2a-notification-token"]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    receiver = HTTPServer(("127.0.0.1", 0), Receiver)
    Thread(target=receiver.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{receiver.server_port}/news"
    push = TaskPushNotificationConfig(url=address, token="t-1")
    peer = await client(binding, streaming=False)
    wanted = SendMessageConfiguration(task_push_notification_config=push)
    request = SendMessageRequest(message=message("tck-complete"), configuration=wanted)
    (event,) = await events_of(peer.send_message(request))
    body, token = await asyncio.to_thread(news.get, timeout=30)
    receiver.shutdown()
    assert token == "t-1"
    assert (body["task"]["id"], body["task"]["status"]["state"]) == (event.task.id, "TASK_STATE_COMPLETED")


def over(binding: str, journey: Any) -> Any:
    async def check() -> None:
        await journey(binding)

    check.__name__ = f"{journey.__name__} over {binding}"
    return check


JOURNEYS = (streams, waits, is_asked_and_answers, follows_and_cancels, is_notified)
asyncio.run(
    checks.run(
        [
            verifies_the_signed_card,
            *(over(binding, journey) for binding in ("JSONRPC", "HTTP+JSON") for journey in JOURNEYS),
        ]
    )
)
