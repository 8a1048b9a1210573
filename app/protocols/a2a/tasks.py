"""Chains of runs as tasks."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from app.features.runs.chain import ChainedRun, RunChain
from app.infra.wires.a2a import Artifact, Message, Part, Task, TaskState, TaskStatus, timestamp
from app.protocols.a2a.content import parts_of
from app.protocols.questions import is_sign_in, kind_of, words_of
from app.protocols.states import RunState, state_of

METADATA = "a2a"
"""Member of a run's metadata with what the protocol knows of its message (``SentMessage``), and more."""


class SentMessage(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The message that began or answered a run: ids, and its parts if they are not what the run's request has."""

    message_id: str = ""
    context_id: str = ""
    input_id: str = ""
    parts: list[Part] = []

    @classmethod
    def of(cls, run: ChainedRun) -> "SentMessage":
        """Return the message of a run; an empty one if other clients wrote what is none."""
        try:
            return msgspec.convert(run.metadata.get(METADATA) or {}, cls)
        except msgspec.ValidationError:
            return cls()


STATES: Mapping[RunState, TaskState] = {
    RunState.QUEUED: "TASK_STATE_SUBMITTED",
    RunState.RUNNING: "TASK_STATE_WORKING",
    RunState.ASKING: "TASK_STATE_INPUT_REQUIRED",
    RunState.SUCCESS: "TASK_STATE_COMPLETED",
    RunState.ERROR: "TASK_STATE_FAILED",
    RunState.TIMEOUT: "TASK_STATE_FAILED",
    RunState.CANCELLED: "TASK_STATE_CANCELED",
}
"""State of a task by that of its last run. One that asks for an approval requires authorization instead of input."""

TERMINAL = frozenset({"TASK_STATE_COMPLETED", "TASK_STATE_FAILED", "TASK_STATE_CANCELED", "TASK_STATE_REJECTED"})
WAITING = frozenset({"TASK_STATE_INPUT_REQUIRED", "TASK_STATE_AUTH_REQUIRED"})

STATUSES: Mapping[TaskState, tuple[str, bool | None]] = {
    "TASK_STATE_SUBMITTED": ("pending", None),
    "TASK_STATE_WORKING": ("running", None),
    "TASK_STATE_COMPLETED": ("success", None),
    "TASK_STATE_FAILED": ("error timeout", None),
    "TASK_STATE_CANCELED": ("interrupted", False),
    "TASK_STATE_INPUT_REQUIRED": ("interrupted", True),
    "TASK_STATE_AUTH_REQUIRED": ("interrupted", True),
    "TASK_STATE_REJECTED": ("", None),
}
"""Statuses of a task's last run by its state, and whether it waits."""


def context_of(chain: RunChain) -> str:
    """Return the context of a chain: as its client named it, else its thread."""
    return SentMessage.of(chain.first).context_id or str(chain.first.thread_id)


def state_in(chain: RunChain) -> TaskState:
    """Return the state of a chain as a task."""
    last = chain.last
    state = STATES[state_of(last.status, last.waiting)]
    return asking_state(last.interrupts or []) if state == "TASK_STATE_INPUT_REQUIRED" else state


def asking_state(questions: Sequence[Mapping[str, Any]]) -> TaskState:
    """Return the state of a task that waits for the answers to ``questions``."""
    values = [question.get("value") for question in questions]
    authorizes = any(kind_of(value) != "question" or is_sign_in(value) for value in values)
    return "TASK_STATE_AUTH_REQUIRED" if authorizes else "TASK_STATE_INPUT_REQUIRED"


def question_message(run_id: str, context_id: str, task_id: str, questions: Sequence[Mapping[str, Any]]) -> Message:
    """Return what a task that waits asks: in words, and as data by which each question is answered."""
    texts = [words for question in questions if (words := words_of(question.get("value")))]
    data = [
        {"questionId": question["id"], "question": question.get("value")}
        | ({"responseSchema": schema} if (schema := question.get("response_schema")) else {})
        for question in questions
    ]
    parts = [Part(text=text) for text in texts]
    return Message(
        message_id=f"{run_id}-question",
        role="ROLE_AGENT",
        parts=[*parts, Part(data={"questions": data}, media_type="application/json")],
        context_id=context_id,
        task_id=task_id,
    )


def failure_message(run_id: str, context_id: str, task_id: str, words: str) -> Message:
    """Return the message of a task that failed."""
    return Message(
        message_id=f"{run_id}-error",
        role="ROLE_AGENT",
        parts=[Part(text=words)],
        context_id=context_id,
        task_id=task_id,
    )


def status_of(chain: RunChain) -> TaskStatus:
    """Return the status of a chain as a task."""
    state, last = state_in(chain), chain.last
    about = str(last.run_id), context_of(chain), str(chain.first.run_id)
    message = None
    if state in WAITING:
        message = question_message(*about, last.interrupts or [])
    elif last.error is not None:
        message = failure_message(*about, str(last.error.get("message") or "The task failed."))
    return TaskStatus(state=state, timestamp=timestamp(last.updated_at), message=message)


def task_of(
    chain: RunChain, values: dict[str, Any] | None, *, history_length: int | None = None, artifacts: bool = True
) -> Task:
    """Return a chain as a task. ``values``: the thread's, in which its artifacts are."""
    history = None if history_length == 0 else list(_history(chain))
    if history and history_length is not None:
        history = history[-history_length:]
    made = artifacts_in(chain, values or {}) if artifacts else None
    return Task(
        id=str(chain.first.run_id),
        context_id=context_of(chain),
        status=status_of(chain),
        artifacts=made,
        history=history or None,
    )


def _history(chain: RunChain) -> Iterator[Message]:
    """Yield the messages to the task and its questions, oldest first."""
    context_id, task_id = context_of(chain), str(chain.first.run_id)
    for run in chain.runs:
        yield from _sent(run, context_id, task_id)
        if run.interrupts:
            yield question_message(str(run.run_id), context_id, task_id, run.interrupts)


def _sent(run: ChainedRun, context_id: str, task_id: str) -> Iterator[Message]:
    """Yield the messages that began a run."""
    request = run.requested
    if request is None:
        return
    sent = SentMessage.of(run)
    parts: list[Part] = []
    if request.command is not None and request.command.resume is not msgspec.UNSET:
        parts = sent.parts or [_answer_part(request.command.resume)]
    else:
        for message in _humans(request.input):
            parts += parts_of(message.get("content"))
    if parts:
        message_id = sent.message_id or str(run.run_id)
        yield Message(message_id=message_id, role="ROLE_USER", parts=parts, context_id=context_id, task_id=task_id)


def _answer_part(answer: Any) -> Part:
    return Part(text=answer) if isinstance(answer, str) else Part(data=answer)


def _humans(given: Any) -> list[dict[str, Any]]:
    """Return the messages of people in a run's input, in any of its forms."""
    messages = given.get("messages") if isinstance(given, dict) else given
    if isinstance(messages, str):
        return [{"content": messages}]
    found = messages if isinstance(messages, list) else [messages]
    return [one for one in found if isinstance(one, dict) and one.get("type", one.get("role")) in ("human", "user")]


def artifacts_in(chain: RunChain, values: dict[str, Any]) -> list[Artifact]:
    """Return what the agent has said since the message that began the task: one artifact for each of its messages."""
    messages = values.get("messages")
    if not isinstance(messages, list):
        return []
    return [
        Artifact(artifact_id=str(message.get("id")), parts=parts)
        for message in messages[_first_own(chain, messages) :]
        if isinstance(message, dict) and message.get("type") == "ai" and (parts := parts_of(message.get("content")))
    ]


def _first_own(chain: RunChain, messages: list[Any]) -> int:
    """Return the index of the first message after the one that began the task."""
    input_id = SentMessage.of(chain.first).input_id
    humans = [at for at, one in enumerate(messages) if isinstance(one, dict) and one.get("type") == "human"]
    own = next((at for at in humans if messages[at].get("id") == input_id), humans[-1] if humans else -1)
    return own + 1
