"""Read streams of AG-UI, and check them against the protocol's rules."""

import json
import uuid
from typing import Any

import httpx
import pytest

Events = list[dict[str, Any]]


def events_in(stream: str | bytes) -> Events:
    """Return the events of a stream."""
    text = stream.decode() if isinstance(stream, bytes) else stream
    return [json.loads(line[6:]) for line in text.split("\n") if line.startswith("data: ")]


def checked(stream: str | bytes) -> Events:
    """Return the events of a stream that keeps the rules of AG-UI, warnings included."""
    assert b"\r" not in (stream if isinstance(stream, bytes) else stream.encode())
    events = events_in(stream)
    assert not [event for event in events if None in event.values()], "an optional member is null"
    validator = pytest.importorskip("ag_ui_validate.pytest_plugin", reason="ag-ui-validate is not installed")
    runs: list[Events] = []
    for event in events:
        if event["type"] == "RUN_STARTED" or not runs:
            runs.append([])
        runs[-1].append(event)
    for run in runs:
        if run[0]["type"] != "RUN_ERROR":  # a run that was refused before it began
            validator.assert_valid_agui(run, max_warnings=0)
    return events


def types_of(events: Events) -> list[str]:
    """Return the types of events, without repetitions."""
    types = [event["type"] for event in events]
    return [one for at, one in enumerate(types) if at == 0 or types[at - 1] != one]


def text_of(events: Events) -> str:
    """Return all text that a stream says."""
    return "".join(event["delta"] for event in events if event["type"] == "TEXT_MESSAGE_CONTENT")


def user(said: str, message_id: str | None = None) -> dict[str, Any]:
    """Return a user's message."""
    return {"id": message_id or f"u-{uuid.uuid4()}", "role": "user", "content": said}


def run_input(thread: str, *messages: dict[str, Any], **members: Any) -> dict[str, Any]:
    """Return the body of a request as a client of 1.0 sends it."""
    given = {"runId": str(uuid.uuid4()), "protocolVersion": "1.0", "state": {}, "forwardedProps": {}, **members}
    return {"threadId": thread, "messages": list(messages), "tools": [], "context": [], **given}


def post(url: str, body: dict[str, Any], **headers: str) -> httpx.Response:
    """Send a request and return the whole response."""
    answer = httpx.post(url, json=body, headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer
