"""A2A against a real server: cards, both bindings, streams, questions, and the old names."""

import json
import queue
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from standardwebhooks import Webhook

from tests.journeys.conftest import Served, serving

SETTINGS = {"AGENT_EGRESS_ALLOW": "127.0.0.1", "AGENT_WEBHOOK_SECRET": "0123456789abcdef0123456789abcdef"}
AGENTS = Path(__file__).parent / "agents" / "agents.toml"


@pytest.fixture(scope="module")
def peer(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server whose default agent behaves as the ids of messages ask."""
    with serving(server_url, tmp_path_factory.mktemp("a2a"), AGENT_CONFIG=str(AGENTS), **SETTINGS) as server:
        yield server.wait_until_ready()


@pytest.fixture
def http(peer: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{peer.port}", headers={"A2A-Version": "1.0"}, timeout=30) as client:
        yield client


def message(prefix: str, *parts: Any, **rest: Any) -> dict[str, Any]:
    given = [one if isinstance(one, dict) else {"text": one} for one in parts or ("hello",)]
    return {"messageId": f"{prefix}-{uuid.uuid4().hex}", "role": "ROLE_USER", "parts": given, **rest}


def call(http: httpx.Client, method: str, params: Any, agent: str = "peer", **headers: str) -> Any:
    body = {"jsonrpc": "2.0", "id": 7, "method": method, "params": params}
    answer = http.post(f"/a2a/{agent}", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    read = answer.json()
    assert (read["jsonrpc"], read["id"]) == ("2.0", 7)
    return read


def sent(http: httpx.Client, *args: Any, agent: str = "peer", **rest: Any) -> Any:
    return call(http, "SendMessage", {"message": message(*args, **rest)}, agent)["result"]["task"]


def test_cards_of_agents_say_how_they_are_called_and_may_be_cached(peer: Served, http: httpx.Client) -> None:
    root = http.get("/.well-known/agent-card.json")
    assert root.json() == http.get("/a2a/peer/.well-known/agent-card.json", headers={"A2A-Version": "1.0"}).json()
    card = root.json()
    assert card["name"] == "peer"
    assert [(one["protocolBinding"], one["protocolVersion"]) for one in card["supportedInterfaces"]] == [
        ("JSONRPC", "1.0"), ("HTTP+JSON", "1.0"), ("JSONRPC", "0.3"),
    ]  # fmt: skip
    assert {one["url"] for one in card["supportedInterfaces"]} == {f"http://127.0.0.1:{peer.port}/a2a/peer"}
    assert root.headers["cache-control"] == "public, max-age=300"
    kept = http.get("/.well-known/agent-card.json", headers={"if-none-match": root.headers["etag"]})
    assert (kept.status_code, kept.content) == (304, b"")
    old = http.get("/a2a/echo/.well-known/agent-card.json", headers={"A2A-Version": "0.3"}).json()
    at, name = f"http://127.0.0.1:{peer.port}", ".well-known/agent-card.json"
    plain = httpx.get(f"{at}/a2a/echo/{name}").json()  # peers of version 0.3 send no version
    assert httpx.get(f"{at}/{name}").json() == root.json()
    extended = call(http, "agent/getAuthenticatedExtendedCard", {}, "echo")["result"]
    for one in (old, plain, extended):
        assert (one["protocolVersion"], one["url"]) == ("0.3.0", f"http://127.0.0.1:{peer.port}/a2a/echo")
        assert (one["preferredTransport"], one["supportsAuthenticatedExtendedCard"]) == ("JSONRPC", True)
    new = http.get("/a2a/echo/.well-known/agent-card.json", headers={"A2A-Version": "1.0"}).json()
    assert [("url" in one, "supportedInterfaces" in one) for one in (old, extended, plain, new, root.json())] == [
        (True, False), (True, False), (True, True), (False, True), (False, True),
    ]  # fmt: skip
    assert "url" not in call(http, "GetExtendedAgentCard", {}, "echo")["result"]
    assert http.get("/a2a/nothing/.well-known/agent-card.json").status_code == 404
    assert call(http, "GetExtendedAgentCard", {})["result"]["name"] == "peer"
    assistant = http.post("/api/v1/assistants", json={"graph_id": "echo", "name": "Polly"}).json()["assistant_id"]
    assert http.get(f"/a2a/{assistant}/extendedAgentCard").json()["name"] == "Polly"


def test_a_message_makes_a_task_that_both_bindings_show(http: httpx.Client) -> None:
    given = message("tck-complete", "one", {"data": {"two": 2}}, contextId="chat of today")
    task = call(http, "SendMessage", {"message": given})["result"]["task"]
    assert (task["status"]["state"], task["contextId"]) == ("TASK_STATE_COMPLETED", "chat of today")
    assert [part for one in task["artifacts"] for part in one["parts"]] == [{"text": "Hello from TCK"}]
    assert task["history"][0]["messageId"] == given["messageId"]
    answer = http.get(f"/a2a/peer/tasks/{task['id']}", headers={"accept": "application/a2a+json"})
    assert answer.headers["content-type"] == "application/a2a+json"
    assert answer.json() == task == call(http, "GetTask", {"id": task["id"]})["result"]
    assert "history" not in http.get(f"/a2a/peer/tasks/{task['id']}?historyLength=0").json()
    thread = http.get(f"/api/v1/threads/{sent(http, 'tck-complete')['contextId']}").json()
    assert thread["values"]["messages"][-1]["content"] == "Hello from TCK"


def test_the_same_message_again_finds_its_task_until_its_client_has_acted_on_it(http: httpx.Client) -> None:
    given = {"message": message("tck-input-required")}
    first, again = (call(http, "SendMessage", given)["result"]["task"] for _ in range(2))
    assert first == again
    answer = {"message": message("tck-complete", "done", taskId=first["id"])}
    done, replayed = (call(http, "SendMessage", answer)["result"]["task"] for _ in range(2))
    assert done == replayed
    assert done["status"]["state"] == "TASK_STATE_COMPLETED"
    assert call(http, "SendMessage", given)["result"]["task"]["id"] != first["id"]


def test_a_task_asks_and_its_answers_are_its_history(http: httpx.Client) -> None:
    task = sent(http, "tck-input-required")
    assert task["status"]["state"] == "TASK_STATE_INPUT_REQUIRED"
    assert task["status"]["message"]["parts"][0] == {"text": "What now (0)?"}
    wrong = message("tck-complete", taskId=task["id"], contextId="another")
    assert call(http, "SendMessage", {"message": wrong})["error"]["code"] == -32602
    again = sent(http, "tck-input-required", "first", taskId=task["id"])
    assert again["status"]["message"]["parts"][0] == {"text": "What now (1)?"}
    done = sent(http, "tck-complete", "second", taskId=task["id"], contextId=task["contextId"])
    assert done["id"] == task["id"]
    assert [one["parts"][0]["text"] for one in done["history"]] == [
        "hello", "What now (0)?", "first", "What now (1)?", "second",
    ]  # fmt: skip
    refused = call(http, "SendMessage", {"message": message("tck", taskId=task["id"])})
    assert refused["error"]["data"][-1]["reason"] == "UNSUPPORTED_OPERATION"
    assert len(http.get(f"/a2a/peer/tasks/{task['id']}?historyLength=2").json()["history"]) == 2


def test_an_approval_is_authorization_and_words_give_it(http: httpx.Client) -> None:
    task = sent(http, "m", "what is 12*(3+4)?", agent="careful")
    assert task["status"]["state"] == "TASK_STATE_AUTH_REQUIRED"
    question = task["status"]["message"]["parts"][-1]["data"]["questions"][0]["question"]
    assert question["tool"] == "calculator"
    done = sent(http, "m", "Approved.", agent="careful", taskId=task["id"])
    assert done["status"]["state"] == "TASK_STATE_COMPLETED"
    assert "84" in done["artifacts"][-1]["parts"][0]["text"]


def test_a_question_answered_on_another_wire_continues_the_task(http: httpx.Client) -> None:
    task = sent(http, "tck-input-required")
    run = {"assistant_id": "peer", "command": {"resume": "by the SDK"}}
    assert http.post(f"/api/v1/threads/{task['contextId']}/runs/wait", json=run).status_code == 200
    done = http.get(f"/a2a/peer/tasks/{task['id']}").json()
    assert done["status"]["state"] == "TASK_STATE_COMPLETED"
    assert done["history"][-1]["parts"] == [{"text": "by the SDK"}]


def test_tasks_are_listed_by_their_last_change_in_pages(http: httpx.Client) -> None:
    context = uuid.uuid4().hex
    made = [sent(http, "tck-complete", contextId=context)["id"] for _ in range(2)]
    waiting = sent(http, "tck-input-required", contextId=f"{context}-2")
    first = call(http, "ListTasks", {"contextId": context, "pageSize": 1})["result"]
    assert (len(first["tasks"]), first["totalSize"], first["pageSize"]) == (1, 2, 1)
    assert "artifacts" not in first["tasks"][0]
    rest = http.get(
        "/a2a/peer/tasks",
        params={"contextId": context, "pageToken": first["nextPageToken"], "includeArtifacts": "true"},
    ).json()
    assert (rest["nextPageToken"], rest["tasks"][0]["artifacts"][0]["parts"]) == ("", [{"text": "Hello from TCK"}])
    assert [first["tasks"][0]["id"], rest["tasks"][0]["id"]] == made[::-1]
    asking = call(http, "ListTasks", {"status": "TASK_STATE_INPUT_REQUIRED", "pageSize": 100})["result"]["tasks"]
    assert waiting["id"] in {one["id"] for one in asking}
    assert not {*made} & {one["id"] for one in asking}
    assert call(http, "ListTasks", {"pageToken": "x"})["error"]["code"] == -32602


def test_a_task_is_cancelled_while_it_works_and_while_it_asks(http: httpx.Client) -> None:
    working = call(http, "SendMessage", {"message": message("slow"), "configuration": {"returnImmediately": True}})[
        "result"
    ]["task"]
    assert working["status"]["state"] in {"TASK_STATE_SUBMITTED", "TASK_STATE_WORKING"}
    busy = call(http, "SendMessage", {"message": message("m", taskId=working["id"])})
    assert busy["error"]["code"] == -32004
    for task in (working, sent(http, "tck-input-required")):
        cancelled = http.post(f"/a2a/peer/tasks/{task['id']}:cancel")
        assert cancelled.json()["status"]["state"] == "TASK_STATE_CANCELED", cancelled.text
        again = http.post(f"/a2a/peer/tasks/{task['id']}:cancel")
        assert (again.status_code, again.json()["error"]["status"]) == (400, "FAILED_PRECONDITION")
        late = call(http, "SendMessage", {"message": message("m", taskId=task["id"])})
        assert late["error"]["code"] == -32004


def test_artifacts_are_text_files_and_data_and_a_message_may_need_no_task(http: httpx.Client) -> None:
    def part(prefix: str) -> Any:
        return sent(http, prefix)["artifacts"][0]["parts"][0]

    named = {"filename": "output.txt", "mediaType": "text/plain"}
    assert part("tck-artifact-file-url") == {"url": "https://example.com/output.txt", **named}
    assert part("tck-artifact-file") == {"raw": "aGVsbG8=", **named}
    assert part("tck-artifact-data") == {"data": {"key": "value", "count": 42}, "mediaType": "application/json"}
    direct = call(http, "SendMessage", {"message": message("tck-message-response")})["result"]
    assert direct["message"]["parts"] == [{"text": "Direct message response"}]
    order = message("m", {"data": {"item": "cups", "count": 3}})
    assert sent(http, "m", order["parts"][0], agent="order")["artifacts"][0]["parts"] == [{"text": "3 of cups"}]
    failed = sent(http, "fail")
    assert failed["status"]["state"] == "TASK_STATE_FAILED"
    assert "rejected" in failed["status"]["message"]["parts"][0]["text"]


@pytest.mark.parametrize(
    "method, params, code, status",
    [
        ("GetTask", {"id": "nothing"}, -32001, 404),
        ("GetTask", {"id": str(uuid.uuid4())}, -32001, 404),
        ("CancelTask", {"id": str(uuid.uuid4())}, -32001, 404),
        ("SubscribeToTask", {"id": str(uuid.uuid4())}, -32001, 404),
        ("SendMessage", {"message": message("m", taskId=str(uuid.uuid4()))}, -32001, 404),
        ("SendMessage", {"message": message("m", {"raw": "eA==", "mediaType": "x/y"})}, -32005, 400),
        ("SendMessage", {"message": message("m", {"text": "a", "url": "b"})}, -32602, 400),
        ("SendMessage", {"message": {**message("m"), "parts": []}}, -32602, 400),
        ("SendMessage", {}, -32602, 400),
        ("ListTasks", {"pageSize": 0}, -32602, 400),
        ("Nonsense", {}, -32601, 404),
    ],
)
def test_errors_have_the_codes_of_both_bindings(
    http: httpx.Client, method: str, params: Any, code: int, status: int
) -> None:
    error = call(http, method, params)["error"]
    assert error["code"] == code, error
    assert error["data"][-1]["@type"] == "type.googleapis.com/google.rpc.ErrorInfo"
    id_ = params.get("id")
    over_http = {
        "GetTask": lambda: http.get(f"/a2a/peer/tasks/{id_}"),
        "CancelTask": lambda: http.post(f"/a2a/peer/tasks/{id_}:cancel"),
        "SubscribeToTask": lambda: http.post(f"/a2a/peer/tasks/{id_}:subscribe"),
        "SendMessage": lambda: http.post("/a2a/peer/message:send", json=params),
        "ListTasks": lambda: http.get("/a2a/peer/tasks", params=params),
        "Nonsense": lambda: http.post(f"/a2a/peer/tasks/{id_}:nonsense"),
    }[method]()
    assert over_http.status_code == status, over_http.text
    body = over_http.json()["error"]
    assert body["code"] == status
    assert body["details"][-1]["reason"] == error["data"][-1]["reason"]


def test_versions_and_envelopes_that_are_wrong_are_refused(http: httpx.Client) -> None:
    newer = {"A2A-Version": "99.0"}
    assert call(http, "GetTask", {"id": "x"}, **newer)["error"]["code"] == -32009
    refused = http.get("/a2a/peer/tasks/x", headers=newer)
    assert (refused.status_code, refused.json()["error"]["details"][0]["reason"]) == (400, "VERSION_NOT_SUPPORTED")
    assert http.post("/a2a/peer", content=b"{", headers={"content-type": "application/json"}).json()["error"][
        "code"
    ] == -32700  # fmt: skip
    assert http.post("/a2a/peer", json={"params": {}}).json()["error"]["code"] == -32600
    assert http.post("/a2a/peer/message:send", content=b"x", headers={"content-type": "text/plain"}).json()["error"][
        "details"
    ][-1]["reason"] == "CONTENT_TYPE_NOT_SUPPORTED"  # fmt: skip
    assert call(http, "GetTask", {"id": "x"}, agent="nothing")["error"]["data"][0]["reason"] == "NOT_FOUND"


def events_of(stream: httpx.Response) -> list[Any]:
    assert stream.headers["content-type"].startswith("text/event-stream"), stream.read()
    return [json.loads(line[6:]) for line in stream.iter_lines() if line.startswith("data: ")]


def states_in(events: list[Any]) -> list[str]:
    found = [event.get("task") or event.get("statusUpdate") for event in events]
    return [one["status"]["state"].removeprefix("TASK_STATE_") for one in found if one]


def test_a_stream_is_the_task_and_what_it_makes(http: httpx.Client) -> None:
    with http.stream("POST", "/a2a/stream100/message:stream", json={"message": message("m", "go")}) as stream:
        events = events_of(stream)
    assert states_in(events) == ["WORKING", "WORKING", "COMPLETED"]
    chunks = [event["artifactUpdate"] for event in events if "artifactUpdate" in event]
    assert len({one["artifact"]["artifactId"] for one in chunks}) == 1
    assert [one.get("append", False) for one in chunks[:3]] == [False, True, True]
    assert [one.get("lastChunk", False) for one in chunks[-2:]] == [False, True]
    text = "".join(one["artifact"]["parts"][0]["text"] for one in chunks)
    kept = http.get(f"/a2a/stream100/tasks/{events[0]['task']['id']}").json()
    assert kept["artifacts"][0]["parts"] == [{"text": text}]
    assert kept["artifacts"][0]["artifactId"] == chunks[0]["artifact"]["artifactId"]
    assert kept["status"]["timestamp"] >= events[-1]["statusUpdate"]["status"]["timestamp"]
    body = {"jsonrpc": "2.0", "id": "s", "method": "SendStreamingMessage", "params": {"message": message("fail")}}
    with http.stream("POST", "/a2a/peer", json=body) as stream:
        wrapped = events_of(stream)
    assert {(one["jsonrpc"], one["id"]) for one in wrapped} == {("2.0", "s")}
    assert states_in([one["result"] for one in wrapped]) == ["WORKING", "WORKING", "FAILED"]


def test_a_subscriber_of_a_task_that_asks_sees_it_continue_and_end(http: httpx.Client) -> None:
    task = sent(http, "tck-input-required")
    with ThreadPoolExecutor(2) as pool:
        with http.stream("POST", f"/a2a/peer/tasks/{task['id']}:subscribe") as first:
            lines = first.iter_lines()
            opened = json.loads(next(line for line in lines if line.startswith("data: "))[6:])
            assert states_in([opened]) == ["INPUT_REQUIRED"]
            answered = pool.submit(sent, http, "tck-complete", "go on", taskId=task["id"])
            rest = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
        assert states_in(rest) == ["WORKING", "COMPLETED"]
        assert answered.result()["status"]["state"] == "TASK_STATE_COMPLETED"
    ended = http.post(f"/a2a/peer/tasks/{task['id']}:subscribe")
    assert ended.json()["error"]["details"][0]["reason"] == "UNSUPPORTED_OPERATION"


def test_a_subscriber_sees_a_task_that_asks_withdrawn(http: httpx.Client) -> None:
    task = sent(http, "tck-input-required")
    with http.stream("GET", f"/a2a/peer/tasks/{task['id']}:subscribe") as stream:
        lines = stream.iter_lines()
        assert next(line for line in lines if line.startswith("data: "))
        assert http.post(f"/a2a/peer/tasks/{task['id']}:cancel").status_code == 200
        rest = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
    assert states_in(rest) == ["CANCELED"]


def test_old_peers_are_understood_by_the_names_of_version_0_3(http: httpx.Client) -> None:
    parts = [{"kind": "text", "text": "hello"}, {"kind": "data", "data": {"a": 1}}]
    old = {"kind": "message", "messageId": f"tck-artifact-file-{uuid.uuid4()}", "role": "user", "parts": parts}
    task = call(http, "message/send", {"message": old}, **{"A2A-Version": ""})["result"]
    assert (task["kind"], task["status"]["state"]) == ("task", "completed")
    file = {"bytes": "aGVsbG8=", "name": "output.txt", "mimeType": "text/plain"}
    assert task["artifacts"][0]["parts"] == [{"kind": "file", "file": file}]
    assert (task["history"][0]["kind"], task["history"][0]["role"]) == ("message", "user")
    assert call(http, "tasks/get", {"id": task["id"]})["result"] == task
    assert call(http, "tasks/cancel", {"id": task["id"]})["error"]["code"] == -32002
    body = {"jsonrpc": "2.0", "id": 1, "method": "message/stream", "params": {"message": {**old, "messageId": "z"}}}
    with http.stream("POST", "/a2a/peer", json=body) as stream:
        events = [one["result"] for one in events_of(stream)]
    assert [one["kind"] for one in events] == ["task", "status-update", "artifact-update", "artifact-update",
                                               "status-update"]  # fmt: skip
    assert (events[-1]["final"], events[-1]["status"]["state"]) == (True, "completed")
    assert call(http, "SendMessage", {}, **{"A2A-Version": "0.3"})["error"]["code"] == -32601


@pytest.fixture
def receiver() -> Iterator[tuple[str, queue.Queue[tuple[Any, bytes]]]]:
    """A receiver of notifications: its address, and what it got."""
    got: queue.Queue[tuple[Any, bytes]] = queue.Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.put((self.headers, self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/news", got
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_news_of_a_task_are_sent_signed_when_it_asks_and_when_it_has_ended(
    http: httpx.Client, receiver: tuple[str, queue.Queue[tuple[Any, bytes]]]
) -> None:
    url, got = receiver
    config = {"url": url, "id": "mine", "token": "t", "authentication": {"scheme": "Bearer", "credentials": "secret"}}
    params = {"message": message("tck-input-required"), "configuration": {"taskPushNotificationConfig": config}}
    task = call(http, "SendMessage", params)["result"]["task"]
    headers, body = got.get(timeout=30)
    assert (headers["authorization"], headers["x-a2a-notification-token"]) == ("Bearer secret", "t")
    assert headers["content-type"] == "application/a2a+json"
    Webhook(SETTINGS["AGENT_WEBHOOK_SECRET"].encode()).verify(body, dict(headers))
    sent_task = json.loads(body)["task"]
    assert (sent_task["id"], sent_task["status"]["state"]) == (task["id"], "TASK_STATE_INPUT_REQUIRED")
    path = f"/a2a/peer/tasks/{task['id']}/pushNotificationConfigs"
    shown = {"url": url, "id": "mine", "taskId": task["id"], "token": "t", "authentication": {"scheme": "Bearer"}}
    assert http.get(f"{path}/mine").json() == shown
    other = call(http, "CreateTaskPushNotificationConfig", {"task_id": task["id"], "url": url})["result"]
    assert http.get(path).json() == {"configs": [shown, other], "nextPageToken": ""}
    name, here = "tasks/pushNotificationConfig", {"id": task["id"], "pushNotificationConfigId": "old"}
    given = {"url": url, "id": "old", "authentication": {"schemes": ["Bearer"], "credentials": "secret"}}
    made = call(http, f"{name}/set", {"taskId": task["id"], "pushNotificationConfig": given})["result"]
    seen = {"url": url, "id": "old", "authentication": {"schemes": ["Bearer"]}}
    assert made == {"taskId": task["id"], "pushNotificationConfig": seen}
    assert call(http, f"{name}/get", here)["result"] == made
    assert call(http, f"{name}/list", here)["result"][-1] == made
    assert call(http, f"{name}/delete", here)["result"] is None
    assert http.get(path).json()["configs"] == [shown, other]
    assert [http.delete(f"{path}/{other['id']}").status_code for _ in range(2)] == [200, 200]
    assert http.get(f"{path}/{other['id']}").status_code == 404
    sent(http, "tck-complete", "done", taskId=task["id"])
    assert json.loads(got.get(timeout=30)[1])["task"]["status"]["state"] == "TASK_STATE_COMPLETED"
    inside = call(http, "CreateTaskPushNotificationConfig", {"taskId": task["id"], "url": "http://10.0.0.1/"})
    assert inside["error"]["code"] == -32602
    assert got.empty()
