"""The UI message stream of the AI SDK, against a real server, and its projection."""

import json
import uuid
from typing import Any

import httpx
import msgspec

from app.domain.events import (
    Custom,
    Ended,
    Event,
    Failed,
    Interrupted,
    MessageAdded,
    MessageDelta,
    Retracted,
    RunStarted,
    StepCommitted,
)
from app.engine.execution.questions import OpenQuestion
from app.protocols.ai_sdk.inbound import message_of, responded_in
from app.protocols.ai_sdk.projection import UIMessageProjection
from app.protocols.ai_sdk.structs import UIMessage
from tests.journeys.conftest import Served, contents

RUN = "01a206d2-02c7-7701-809a-5c1fb81f0fcb"


def projected(*events: Event) -> tuple[list[int], list[Any]]:
    projection = UIMessageProjection("msg_1")
    frames = [frame for event in events for frame in projection.project(event)]
    chunks = [frame.data.split(b"data: ", 1)[1].strip() for frame in frames]
    return [frame.number for frame in frames], [c if c == b"[DONE]" else json.loads(c) for c in chunks]


def text(said: str, message_id: str = "m", **rest: Any) -> MessageDelta:
    return MessageDelta(message_id=message_id, node="agent", step=0, text=said, **rest)


def committed(*messages: dict[str, Any]) -> StepCommitted:
    return StepCommitted(1, "c", msgspec.Raw(msgspec.json.encode({"agent": {"messages": list(messages)}})), "agent")


def test_a_step_with_text_a_call_and_its_result() -> None:
    call = {"index": 0, "id": "c1", "name": "add", "args": '{"a":1}'}
    result = {"type": "tool", "id": "t", "tool_call_id": "c1", "name": "add", "content": "2"}
    numbers, chunks = projected(
        RunStarted(RUN, 1),
        text("So"),
        text("", tool_call=call, last=True),
        committed({"type": "ai", "id": "m", "content": "So"}),
        MessageAdded("tools", 1, msgspec.Raw(json.dumps(result))),
        Custom(msgspec.Raw(b'{"done":1}')),
        committed(result),
        Ended(RUN, "success"),
    )
    assert [c if isinstance(c, bytes) else c["type"] for c in chunks] == [
        "start", "start-step", "text-start", "text-delta", "text-end", "tool-input-start", "tool-input-delta",
        "tool-input-available", "finish-step", "start-step", "tool-output-available", "data-custom", "finish-step",
        "finish", b"[DONE]",
    ]  # fmt: skip
    assert chunks[7]["input"] == {"a": 1}
    assert chunks[-2]["finishReason"] == "stop"
    assert numbers == list(range(len(numbers)))


def test_what_a_dead_owner_streamed_is_taken_back_and_numbers_jump() -> None:
    numbers, chunks = projected(
        RunStarted(RUN, 1),
        text("ha"),
        RunStarted(RUN, 2),
        Retracted(["m"], 0, 2),
        text("half", "n"),
        Ended(RUN, "success"),
    )
    assert {"type": "reset-step"} in chunks
    at = chunks.index({"type": "reset-step"})
    assert numbers[at] > 1 << 20
    replayed, replay = projected(
        RunStarted(RUN, 1), RunStarted(RUN, 2), Retracted(["m"], 0, 2), text("half", "n"), Ended(RUN, "success")
    )
    # the replay, which lacks what was lost, starts a step where a live reader resets one; all else is the same
    assert replayed[-len(numbers[at:]) :] == numbers[at:]
    assert replay[-len(chunks[at:]) + 1 :] == chunks[at + 1 :]


def test_approvals_forms_failures_and_cancellations() -> None:
    approval = {"id": "i1", "value": {"type": "tool_approval", "tool": "pay", "call_id": "c1"}}
    form = {"id": "i2", "value": "Which?", "response_schema": {"type": "string"}}
    _, chunks = projected(Interrupted("c", msgspec.Raw(json.dumps([approval, form]))), Ended(RUN, "interrupted"))
    assert chunks[0] == {"type": "tool-approval-request", "approvalId": "i1", "toolCallId": "c1"}
    assert chunks[1]["data"] == {"value": "Which?", "responseSchema": {"type": "string"}}
    assert chunks[2]["finishReason"] == "tool-calls"
    _, failed = projected(Failed("ValueError", "No."), Ended(RUN, "error"))
    assert [failed[0]["errorText"], failed[1]["finishReason"]] == ["No.", "error"]
    assert projected(Ended(RUN, "interrupted"))[1][0] == {"type": "abort"}


def test_responses_to_approval_requests_answer_questions() -> None:
    part = {
        "type": "tool-pay",
        "state": "approval-responded",
        "approval": {"id": "i1", "approved": False, "reason": "no"},
    }
    asked = OpenQuestion(id="i1", key="k", kind="approval", value={"type": "tool_approval"})
    responded = responded_in([UIMessage(id="a", role="assistant", parts=[part])])
    assert responded.answers([asked]) == {"i1": {"decisions": [{"type": "reject", "message": "no"}]}}
    assert responded.answers([]) == {}


def test_images_become_content_blocks() -> None:
    parts = [
        {"type": "text", "text": "What is this?"},
        {"type": "file", "mediaType": "image/png", "url": "data:image/png;base64,AA=="},
    ]
    assert message_of(UIMessage(id="u", role="user", parts=parts), 0)["content"] == [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
    ]


def user(said: str) -> dict[str, Any]:
    return {"id": f"u-{uuid.uuid4()}", "role": "user", "parts": [{"type": "text", "text": said}]}


def chunks_of(answer: httpx.Response) -> list[Any]:
    assert answer.status_code == 200, answer.text
    found = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
    assert found[-1] == "[DONE]"
    return [json.loads(line) for line in found[:-1]]


def said_in(chunks: list[Any]) -> str:
    return "".join(chunk["delta"] for chunk in chunks if chunk["type"] == "text-delta")


def spoken(http: httpx.Client, served: Served, answer: httpx.Response) -> list[str]:
    """Return the contents of the messages of an answer's thread."""
    return contents(http.get(f"{served.base}/threads/{answer.headers['x-thread-id']}/state").json()["values"])


def test_an_edited_message_starts_a_branch_before_it(served: Served) -> None:
    chat, first, second = f"chat-{uuid.uuid4()}", user("hello"), user("good day")
    url = f"http://127.0.0.1:{served.port}/ai-sdk/assistant/chat"
    with httpx.Client(timeout=60) as http:

        def send(*messages: dict[str, Any], edited: str | None = None, **headers: str) -> httpx.Response:
            body = {"id": chat, "messages": messages, "trigger": "submit-message", "messageId": edited}
            answer = http.post(url, json=body, headers=headers)
            chunks_of(answer)
            return answer

        begun = send(first, edited=first["id"])  # the first request of a chat may have been refused before
        said = spoken(http, served, begun)
        answer = {"id": chunks_of(begun)[0]["messageId"], "role": "assistant", "parts": []}
        send(first, answer, second)
        changed = send(first, answer, {**second, "parts": user("what is 1+1?")["parts"]}, edited=second["id"])
        found = spoken(http, served, changed)
        assert found[:3] == [*said, "what is 1+1?"]
        assert "2" in found[-1]
        headers = {"idempotency-key": "again"}
        last = {**first, "parts": user("what is 2+3?")["parts"]}
        once, again = (send(last, edited=first["id"], **headers) for _ in range(2))
        assert once.text == again.text
        found = spoken(http, served, once)
        assert found[0] == "what is 2+3?"
        assert "5" in found[-1]
        assert "hello" not in found


def test_a_chat_continues_regenerates_and_has_nothing_to_resume(served: Served) -> None:
    chat = f"chat-{uuid.uuid4()}"
    url = f"http://127.0.0.1:{served.port}/ai-sdk/assistant/chat"
    with httpx.Client(timeout=60) as http:
        question = user("what is 12*(3+4)?")
        first = http.post(url, json={"id": chat, "messages": [question], "trigger": "submit-message"})
        assert first.headers["x-vercel-ai-ui-message-stream"] == "v1"
        chunks = chunks_of(first)
        assert "84" in said_in(chunks)
        assert chunks[-1]["messageMetadata"]["usage"]["totalTokens"] > 0
        answer = {"id": chunks[0]["messageId"], "role": "assistant", "parts": []}
        again = {"id": chat, "messages": [question], "trigger": "regenerate-message", "messageId": answer["id"]}
        assert said_in(chunks_of(http.post(url, json=again))) == said_in(chunks)
        follow = {"id": chat, "messages": [question, answer, user("hello")]}
        chunks_of(http.post(url, json=follow))
        assert spoken(http, served, first)[::4] == ["what is 12*(3+4)?", "hello"]
        assert http.get(f"{url}/{chat}/stream").status_code == 204
        assert http.post(f"{url}/{chat}/stop").status_code == 204
        assert http.get(f"{url}/chat-{uuid.uuid4()}/stream").status_code == 204
        nothing = http.post(url, json={"id": chat, "messages": [answer]})
        assert (nothing.status_code, nothing.json()["errors"][0]["pointer"]) == (422, "/messages")


def test_a_run_that_goes_on_from_an_approval_continues_the_same_message(steered: Served) -> None:
    """Else ``useChat`` shows the approved call twice."""
    chat, said = f"chat-{uuid.uuid4()}", user("what is 12*(3+4)?")
    url = f"http://127.0.0.1:{steered.port}/ai-sdk/careful/chat"
    with httpx.Client(timeout=60) as http:
        begun = chunks_of(http.post(url, json={"id": chat, "messages": [said]}))
        (asked,) = [chunk for chunk in begun if chunk["type"] == "tool-approval-request"]
        approval = {"id": asked["approvalId"], "approved": True}
        part = {"type": "tool-calculator", "state": "approval-responded", "approval": approval}
        answer = {"id": begun[0]["messageId"], "role": "assistant", "parts": [part]}
        continued = chunks_of(http.post(url, json={"id": chat, "messages": [said, answer]}))
    assert continued[0]["messageId"] == begun[0]["messageId"]
    assert "84" in said_in(continued)
