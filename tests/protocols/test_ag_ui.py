"""AG-UI against a real server: runs, edits, answers, and the same thread for other clients."""

import uuid
from typing import Any

import httpx
import pytest

from app.protocols.ag_ui.inbound import Thread, changed_values, turn_of
from app.protocols.ag_ui.messages import read, shown
from app.protocols.ag_ui.structs import AGUIMessage, RunAgentInput
from tests.journeys.conftest import Served, contents, steered
from tests.protocols.ag_ui_streams import checked, events_in, post, run_input, text_of, types_of, user

__all__ = ["steered"]

SUM = "what is 12*(3+4)?"


def state_of(server: Served, thread: str) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{server.base}/threads/{thread}/state", timeout=30).json()
    return found


def test_a_conversation_grows_is_edited_and_regenerated_on_one_thread(served: Served) -> None:
    url, thread = f"http://127.0.0.1:{served.port}/ag-ui/assistant", str(uuid.uuid4())
    first, body = user(SUM), run_input(thread, user(SUM))
    body["messages"] = [first]
    answer = post(url, body)
    events = checked(answer.content)
    started = {"type": "RUN_STARTED", "threadId": thread, "runId": body["runId"], "protocolVersion": "1.0"}
    assert events[0] == started
    assert "84" in text_of(events)
    assert events[-1]["outcome"] == {"type": "success"}
    assert events[-1]["usage"][0]["totalTokens"] > 0

    # the same runId is the same run, from its start or after an event; with another body it is refused
    assert post(url, body).content == answer.content
    frames = answer.text.split("\n\n")
    resumed = post(url, body, **{"Last-Event-ID": frames[5].split("\n")[0][4:]})
    assert resumed.text == "\n\n".join(frames[6:])
    other = httpx.post(url, json={**body, "messages": [user("hello")]}, timeout=30)
    assert (other.status_code, other.json()["type"], other.json()["code"]) == (422, "RUN_ERROR", "invalid_input")

    # a client that missed the answers continues after them, and gets what it missed
    second = user("hello")
    events = checked(post(url, run_input(thread, first, second)).content)
    missed, snapshot = [event["messages"] for event in events if event["type"] == "MESSAGES_SNAPSHOT"]
    assert [message["role"] for message in snapshot] == ["user", "assistant", "tool", "assistant", "user"]
    assert missed == snapshot[:-1]  # clients append what they lack: the new message comes after it
    assert snapshot[-1] == second
    assert [m for m in contents(state_of(served, thread)["values"]) if m in {SUM, "hello"}] == [SUM, "hello"]

    # without anything new, the last question is answered again; a changed text goes back to before it
    again = checked(post(url, run_input(thread, *snapshot)).content)
    assert again[-1]["outcome"] == {"type": "success"}
    assert [m for m in contents(state_of(served, thread)["values"]) if m in {SUM, "hello"}] == [SUM, "hello"]
    edited = checked(post(url, run_input(thread, {**first, "content": "what is 1+1?"}, *snapshot[1:])).content)
    assert "2" in text_of(edited)
    assert contents(state_of(served, thread)["values"])[0] == "what is 1+1?"


def test_an_approval_is_asked_here_answered_anywhere_and_counts_once(steered: Served) -> None:
    url, thread = f"http://127.0.0.1:{steered.port}/ag-ui/careful", f"chat {uuid.uuid4()}"
    asked = post(url, run_input(thread, user(SUM)))
    events = checked(asked.content)
    assert types_of(events)[-3:] == ["STATE_SNAPSHOT", "MESSAGES_SNAPSHOT", "RUN_FINISHED"]
    (interrupt,) = events[-1]["outcome"]["interrupts"]
    call = next(event for event in events if event["type"] == "TOOL_CALL_START")
    assert (interrupt["reason"], interrupt["toolCallId"]) == ("tool_call", call["toolCallId"])

    refused = checked(post(url, run_input(thread, user("hello"))).content)
    assert [(event["type"], event["code"]) for event in refused] == [("RUN_ERROR", "interrupt_open")]
    approval = {"interruptId": interrupt["id"], "status": "resolved", "payload": {"approved": True}}
    both = checked(post(url, run_input(thread, user("hello"), resume=[approval])).content)
    assert both[0]["code"] == "interrupt_open"

    body = run_input(thread, resume=[approval, {"interruptId": "unknown", "status": "cancelled"}])
    resumed = checked(post(url, body).content)
    result = next(event for event in resumed if event["type"] == "TOOL_CALL_RESULT")
    assert (result["toolCallId"], result["content"]) == (call["toolCallId"], "84")
    assert [event["type"] for event in resumed].count("RUN_FINISHED") == 1
    assert checked(post(url, body).content) == resumed  # answered once, however often it is sent
    late = checked(post(url, run_input(thread, resume=[approval])).content)
    assert late[0]["code"] == "interrupt_closed"

    # rejected on this wire, approved on LangGraph's
    (second,) = checked(post(url, run_input(thread, user("what is 2+2?"))).content)[-1]["outcome"]["interrupts"]
    rejection = {"interruptId": second["id"], "status": "resolved", "payload": {"approved": False, "reason": "no"}}
    rejected = checked(post(url, run_input(thread, resume=[rejection])).content)
    assert next(event for event in rejected if event["type"] == "TOOL_CALL_RESULT")["content"] != "4"
    third = post(url, run_input(thread, user("what is 3+3?")))
    (question,) = events_in(third.content)[-1]["outcome"]["interrupts"]
    approve = {"assistant_id": "careful", "command": {"resume": {question["id"]: {"decisions": [{"type": "approve"}]}}}}
    answered = httpx.post(f"{steered.base}/threads/{third.headers['x-thread-id']}/runs/wait", json=approve, timeout=30)
    assert "6" in contents(answered.json())
    assert (
        checked(post(url, run_input(thread, resume=[{"interruptId": question["id"], "status": "cancelled"}])).content)[
            0
        ]["code"]
        == "interrupt_closed"
    )


async def test_a_live_endpoint_keeps_the_rules_of_the_transport(served: Served) -> None:
    validator = pytest.importorskip("ag_ui_validate.pytest_plugin", reason="ag-ui-validate is not installed")
    await validator.assert_valid_agui_endpoint(f"http://127.0.0.1:{served.port}/ag-ui/assistant", max_warnings=0)


@pytest.mark.parametrize(
    "member, value", [("messages", 3), ("runId", ""), ("runId", "a\n"), ("resume", [{"interruptId": "i"}])]
)
def test_bad_requests_are_refused_in_the_shape_of_ag_ui(served: Served, member: str, value: Any) -> None:
    url = f"http://127.0.0.1:{served.port}/ag-ui/assistant"
    answer = httpx.post(url, json={**run_input("t", user("hello")), member: value}, timeout=30)
    assert (answer.status_code, answer.json()["type"], answer.json()["code"]) == (422, "RUN_ERROR", "invalid_input")


def test_an_unknown_agent_is_not_found_and_the_error_names_those_there_are(served: Served) -> None:
    answer = httpx.post(f"http://127.0.0.1:{served.port}/ag-ui/nope", json=run_input("t", user("hello")), timeout=30)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert "assistant" in answer.json()["message"]


def test_content_parts_become_blocks_and_come_back() -> None:
    image = {"type": "image", "source": {"type": "data", "value": "AA==", "mimeType": "image/png"}}
    paper = {"type": "document", "source": {"type": "url", "value": "https://example.com/a.pdf"}}
    content: list[dict[str, Any]] = [{"type": "text", "text": "What is this?"}, image, paper]
    handle: dict[str, Any] = {"type": "image", "source": {"type": "file", "value": "file-1", "provider": "openai"}}
    found = read(AGUIMessage(id="u", role="user", content=[*content, handle]), 0)
    assert [block["type"] for block in found["content"]] == ["text", "image_url", "file"]
    assert shown([found]) == [{"id": "u", "role": "user", "content": content}]
    legacy = {"type": "binary", "mimeType": "image/png", "url": "https://example.com/a.png"}
    assert read(AGUIMessage(id="u", role="user", content=[legacy]), 0)["content"] == [
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    ]


def test_a_new_thread_takes_all_messages_and_an_old_one_only_those_of_people() -> None:
    spoken = [
        AGUIMessage(id="a", role="assistant", content="Hello, I help."),
        AGUIMessage(id="u", role="user", content="Hi"),
    ]
    data = RunAgentInput(thread_id="t", run_id="r", messages=spoken)
    assert [message["id"] for message in turn_of(data, Thread()).messages] == ["a", "u"]
    known = Thread(messages=[{"type": "human", "id": "x", "content": "Before"}])
    assert [message["id"] for message in turn_of(data, known).messages] == ["u"]


def test_only_what_a_client_changed_of_the_state_becomes_input() -> None:
    assert changed_values({"plan": 1, "same": 2, "other": 3}, {"plan": 0, "same": 2}, {"plan", "same"}) == {"plan": 1}
    assert changed_values(None, {}, {"plan"}) == {}


def test_a_tool_of_the_application_is_called_answered_and_followed_by_a_message(served: Served) -> None:
    url, thread = f"http://127.0.0.1:{served.port}/ag-ui/assistant", str(uuid.uuid4())
    paint = {"name": "paint", "description": "Paint the page.", "parameters": {"type": "object", "properties": {}}}
    offered = {"tools": [paint], "context": [{"description": "The page", "value": "blue"}]}
    called = checked(post(url, run_input(thread, user("call paint")) | offered).content)
    call = next(event for event in called if event["type"] == "TOOL_CALL_START")
    assert call["toolCallName"] == "paint"
    assert called[-1]["outcome"] == {"type": "success", "pendingToolCallIds": [call["toolCallId"]]}
    assert [event for event in called if event["type"] == "TOOL_CALL_RESULT"] == []

    unanswered = checked(post(url, run_input(thread, user("hello")) | offered).content)
    assert unanswered[0]["code"] == "tool_call_open"
    result = {"id": "result", "role": "tool", "toolCallId": call["toolCallId"], "content": "painted"}
    events = checked(post(url, run_input(thread, result, user("thanks", "u2")) | offered).content)
    assert events[-1]["outcome"] == {"type": "success"}
    kinds = [message["type"] for message in state_of(served, thread)["values"]["messages"]]
    assert kinds == ["human", "ai", "tool", "human", "ai"]

    again = checked(post(url, run_input(thread, user("call paint")) | offered).content)
    answer = result | {"id": "second", "toolCallId": again[-1]["outcome"]["pendingToolCallIds"][0]}
    resumed = checked(post(url, run_input(thread, answer) | offered).content)
    assert [event["content"] for event in resumed if event["type"] == "TOOL_CALL_RESULT"] == ["painted"]
    assert "painted" in text_of(resumed)
    conflict = httpx.post(
        url, json=run_input("x", user("hi")) | {"tools": [paint | {"name": "calculator"}]}, timeout=30
    )
    assert (conflict.status_code, conflict.json()["code"]) == (422, "invalid_input")
