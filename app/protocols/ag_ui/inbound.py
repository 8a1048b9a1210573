"""What a request brings, compared with its thread: new messages, an edit of earlier ones, answers, changed values.

Clients send their whole conversation each time, but the thread is the truth: a client that missed messages continues
after them, and only a changed text goes back to before it.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from app.features.threads.structs import ThreadState
from app.protocols.ag_ui.errors import RunRefused
from app.protocols.ag_ui.messages import TYPES, read, read_content
from app.protocols.ag_ui.structs import AGUIMessage, ResumeEntry, RunAgentInput
from app.protocols.parts import text_in
from app.protocols.questions import approval, calls_of, client_call_id, edit, kind_of

CANCELLED_APPROVAL = "The approval was cancelled."


class Turn(NamedTuple):
    """What a run is to do: continue from the ``answers`` to open questions, or take ``messages`` as input.

    ``before``: the id of the message whose input the run goes back to before; ``after``: likewise, to after it.
    """

    messages: Sequence[dict[str, Any]] = ()
    answers: dict[str, Any] | None = None
    before: str | None = None
    after: str | None = None


class Thread(msgspec.Struct, frozen=True):
    """What a request is compared with: the messages and other values of a thread, and its open questions.

    ``size``: bytes of its values as JSON.
    """

    messages: Sequence[dict[str, Any]] = ()
    values: dict[str, Any] = {}
    questions: Sequence[dict[str, Any]] = ()
    size: int = 0

    @classmethod
    def of(cls, state: ThreadState) -> "Thread":
        """Return the thread with ``state``."""
        values = msgspec.json.decode(state.values)
        messages = values.pop("messages", None)
        found = [one for one in messages if isinstance(one, dict)] if isinstance(messages, list) else []
        return cls(found, values, state.interrupts, len(state.values))


class Comparison(NamedTuple):
    """What a request brings to its thread. ``behind``: the thread has messages that the client does not.

    ``changed``: values that the client has changed.
    """

    turn: Turn
    behind: bool
    changed: dict[str, Any]


def compare(data: RunAgentInput, thread: Thread, accepted: Collection[str]) -> Comparison:
    """Compare ``data`` with its thread; ``accepted`` are the values that the agent takes. Raises as ``turn_of``."""
    turn = turn_of(data, thread)
    return Comparison(turn, lacks_messages(data, thread), changed_values(data.state, thread.values, accepted))


def turn_of(data: RunAgentInput, thread: Thread) -> Turn:
    """Return what ``data`` asks for. Raises ``RunRefused``, ``Invalid`` for a message that is not valid."""
    spoken = [(at, message) for at, message in enumerate(data.messages) if message.role in TYPES]
    stored = {str(message.get("id")): message for message in thread.messages}
    news = [(at, message) for at, message in spoken if message.id not in stored]
    if thread.messages:  # the thread has its own answers: others were never committed
        news = [(at, message) for at, message in news if message.role not in {"assistant", "tool"}]
    if thread.questions:
        calls = {call_id: one for one in thread.questions if (call_id := client_call_id(one.get("value")))}
        asked = [one for one in thread.questions if client_call_id(one.get("value")) is None]
        answers = _answers(data.resume or [], asked, brings_news=bool(news)) | _results(data.messages, calls)
        if not news:
            return Turn(answers=answers)
        results = [(at, message) for at, message in spoken if message.tool_call_id in calls]
        return Turn([read(message, at) for at, message in (*results, *news)])  # what the user says after them
    if data.resume and not news:
        raise RunRefused("interrupt_closed", "These interrupts are not open: they were answered before.")
    at = next((at for at, (_, message) in enumerate(spoken) if _is_edited(message, stored)), None)
    if at is not None:
        kept = [spoken[at], *(one for one in news if one[0] > spoken[at][0])]
        return Turn([read(message, number) for number, message in kept], before=spoken[at][1].id)
    if not news and thread.messages:
        last = spoken[-1][1] if spoken else None
        if last is not None and last.role == "user" and last.id in stored and last.id != thread.messages[-1].get("id"):
            return Turn(after=last.id)
    return Turn([read(message, at) for at, message in news])


def lacks_messages(data: RunAgentInput, thread: Thread) -> bool:
    """Whether the thread has messages that the client does not."""
    known = {message.id for message in data.messages}
    return any(message.get("id") not in known for message in thread.messages)


def _is_edited(message: AGUIMessage, stored: dict[str, dict[str, Any]]) -> bool:
    """Whether a user's message that the thread has says something else now."""
    known = stored.get(message.id)
    if known is None or message.role != "user":
        return False
    return text_in(read_content(message.content)) != text_in(known.get("content"))


def _results(messages: Sequence[AGUIMessage], calls: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the results of ``calls``, questions by call id, by the question's id.

    Raises ``RunRefused`` if one is missing.
    """
    results = {message.tool_call_id: message for message in messages if message.role == "tool"}
    missing = [call_id for call_id in calls if call_id not in results]
    if missing:
        raise RunRefused(
            "tool_call_open",
            f"Tools of the application were called: send a message with the role tool for {', '.join(missing)}.",
        )
    return {str(question["id"]): _result(results[call_id]) for call_id, question in calls.items()}


def _result(message: AGUIMessage) -> dict[str, Any]:
    content = read_content(message.content)
    if message.error is not None:
        return {"content": content or message.error, "status": "error"}
    return {"content": content}


def _answers(given: Sequence[ResumeEntry], questions: Sequence[dict[str, Any]], *, brings_news: bool) -> dict[str, Any]:
    """Return the answers by the question's id. Raises ``RunRefused`` if an open question has none."""
    entries = {entry.interrupt_id: entry for entry in given}
    missing = [str(question["id"]) for question in questions if question["id"] not in entries]
    if missing:
        raise RunRefused(
            "interrupt_open", f"Interrupts are open: answer each of them in resume. They are {', '.join(missing)}."
        )
    if brings_news and questions:
        raise RunRefused("interrupt_open", "Interrupts are open: send new messages once their answers have run.")
    return {str(question["id"]): _answer(entries[question["id"]], question.get("value")) for question in questions}


def _answer(entry: ResumeEntry, value: Any) -> Any:
    """Return the answer to a question; one that is given up is rejected, aborted, or answered by null."""
    kind, payload = kind_of(value), entry.payload
    if entry.status == "cancelled":
        rejected = approval(value, False, CANCELLED_APPROVAL)
        return {"approval": rejected, "review": {"action": "abort"}}.get(kind)
    if kind != "approval" or not isinstance(payload, dict) or not isinstance(payload.get("approved"), bool):
        return payload
    edited = payload.get("editedArgs")
    if payload["approved"] and edited is not None and len(calls_of(value)) == 1:
        return edit(value, edited)
    return approval(value, payload["approved"], payload.get("reason"))


def changed_values(state: Any, known: dict[str, Any], accepted: Collection[str]) -> dict[str, Any]:
    """Return the members of a client's ``state`` that the agent accepts as input and that the thread has otherwise."""
    if not isinstance(state, dict):
        return {}
    missing = object()
    return {name: value for name, value in state.items() if name in accepted and known.get(name, missing) != value}
