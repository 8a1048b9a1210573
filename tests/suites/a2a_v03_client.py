"""Journeys of the Python SDK of A2A 0.3.

Usage, by the Python of its environment: -m tests.suites.a2a_v03_client ADDRESS
"""

import asyncio
import sys
from typing import Any

import httpx
from a2a.client import ClientConfig, ClientFactory  # type: ignore[import-not-found]
from a2a.client.helpers import create_text_message_object  # type: ignore[import-not-found]
from a2a.types import (  # type: ignore[import-not-found]
    GetTaskPushNotificationConfigParams,
    PushNotificationAuthenticationInfo,
    PushNotificationConfig,
    TaskPushNotificationConfig,
    TaskQueryParams,
    TaskState,
)

from tests.suites import checks

BASE = sys.argv[1]


async def events_of(message_id: str, *, streaming: bool) -> tuple[Any, list[Any]]:
    """Send a message to the agent as its card says; return the client and the events."""
    http = httpx.AsyncClient(timeout=30)
    peer = await ClientFactory.connect(f"{BASE}/a2a/peer", ClientConfig(httpx_client=http, streaming=streaming))
    message = create_text_message_object(content="hello")
    message.message_id = f"{message_id}-{message.message_id}"
    return peer, [event async for event in peer.send_message(message)]


async def discovers_and_streams() -> None:
    _, events = await events_of("tck-stream-artifact-chunked", streaming=True)
    assert events[-1][0].status.state == TaskState.completed
    assert "chunk-1" in str(events[-1][0].artifacts)


async def waits_and_reads_the_task() -> None:
    peer, events = await events_of("tck-complete", streaming=False)
    task = await peer.get_task(TaskQueryParams(id=events[-1][0].id))
    assert task.status.state == TaskState.completed


async def reads_the_extended_card() -> None:
    peer, _ = await events_of("tck-complete", streaming=False)
    card = await peer.get_card()
    assert (card.name, card.url) == ("peer", f"{BASE}/a2a/peer")


async def configures_notifications() -> None:
    peer, events = await events_of("tck-input-required", streaming=False)
    task_id = events[-1][0].id
    receiver = PushNotificationAuthenticationInfo(schemes=["Bearer"], credentials="secret")
    config = PushNotificationConfig(id="mine", url=f"{BASE}/nothing", authentication=receiver)
    made = await peer.set_task_callback(TaskPushNotificationConfig(task_id=task_id, push_notification_config=config))
    which = GetTaskPushNotificationConfigParams(id=task_id, push_notification_config_id="mine")
    assert await peer.get_task_callback(which) == made
    assert made.push_notification_config.authentication.schemes == ["Bearer"]


JOURNEYS = (discovers_and_streams, waits_and_reads_the_task, reads_the_extended_card, configures_notifications)
asyncio.run(checks.run(list(JOURNEYS)))
