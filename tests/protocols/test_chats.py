"""Chats of Open WebUI and LibreChat: edits, other answers and branches, in the shape in which these send them."""

import uuid
from typing import Any

import httpx
import pytest

from tests.journeys.conftest import Served

SYSTEM = {"role": "system", "content": "Be brief."}


class UI:
    """A chat UI: it sends the system prompt and the branch on the screen, and shows answers in its own way."""

    def __init__(self, served: Served, path: str, header: str = "X-OpenWebUI-Chat-Id") -> None:
        self._url = f"http://127.0.0.1:{served.port}/v1/{path}"
        self._threads = f"{served.base}/threads"
        self._headers = {header: str(uuid.uuid4()), "X-OpenWebUI-User-Name": "Ann", "X-OpenWebUI-User-Role": "user"}

    def send(self, *texts: str, parts: bool = False) -> list[str]:
        """Send what people and the agent said by turns; return what people said on the thread's newest branch."""
        shown: list[dict[str, Any]] = [
            {"role": "user", "content": [{"type": "text", "text": text}] if parts else text}
            if at % 2 == 0
            else {"role": "assistant", "content": f"<details>Thought</details>\n{text}"}
            for at, text in enumerate(texts)
        ]
        completions = self._url.endswith("completions")
        body = (
            {"messages": [SYSTEM, *shown], "stream": True} if completions else {"input": shown, "instructions": "Be."}
        )
        named = {"X-OpenWebUI-Message-Id": str(uuid.uuid4()), **self._headers}
        answer = httpx.post(self._url, json={"model": "echo", **body}, headers=named, timeout=30)
        assert answer.status_code == 200, answer.text
        self.thread = answer.headers["x-thread-id"]
        return self.people()

    def people(self) -> list[str]:
        values = httpx.get(f"{self._threads}/{self.thread}/state").json()["values"]
        return [text_in(one["content"]) for one in values["messages"] if one["type"] == "human"]

    def history(self) -> int:
        """Return the number of the thread's runs."""
        return len(httpx.get(f"{self._threads}/{self.thread}/runs").json())


def text_in(content: Any) -> str:
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


@pytest.mark.parametrize("path", ["chat/completions", "responses"])
def test_edits_and_other_answers_start_branches(served: Served, path: str) -> None:
    ui = UI(served, path)
    assert ui.send("one") == ["one"]
    assert ui.send("one", "a", "two") == ["one", "two"]
    assert ui.send("one", "a", "two") == ["one", "two"]  # another answer
    assert ui.send("one", "a", "2", parts=True) == ["one", "2"]  # an edit
    assert ui.send("one", "a", "2", "b", "three") == ["one", "2", "three"]
    assert ui.send("uno") == ["uno"]  # an edit of the first message
    assert ui.send("uno") == ["uno"]
    assert ui.send("one", "a", "two", "b", "3") == ["one", "two", "3"]  # back on the other branch
    assert ui.history() == 8


def test_what_came_by_other_clients_stays_and_shortened_chats_go_on(served: Served) -> None:
    ui = UI(served, "chat/completions")
    ui.send("one")
    added = {"assistant_id": "echo", "input": {"messages": [{"role": "user", "content": "by a cron"}]}}
    httpx.post(f"{served.base}/threads/{ui.thread}/runs/wait", json=added, timeout=30)
    assert ui.send("one", "a", "two") == ["one", "by a cron", "two"]
    assert ui.send("two", "b", "three") == ["one", "by a cron", "two", "three"]  # a client that sends the last ones
    assert ui.send("one", "a", "two", "b", "3") == ["one", "by a cron", "two", "3"]


def test_a_chat_that_began_elsewhere_brings_its_messages_and_news_alone_go_on(served: Served) -> None:
    assert UI(served, "chat/completions").send("one", "a", "two") == ["one", "two"]
    plain = UI(served, "chat/completions", "X-Chat-Id")
    assert plain.send("yes") == ["yes"]
    assert plain.send("yes") == ["yes", "yes"]
    assert plain.send("yes", "a", "yes", "b", "no") == ["yes", "yes", "no"]
