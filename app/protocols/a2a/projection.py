"""Project a run onto the updates of a task: https://a2a-protocol.org/latest/specification/#323-stream-response

Each message of the agent is an artifact, in chunks as the model says it. What an earlier owner streamed and did not
commit is replaced by an empty artifact. The ``Task`` that begins a stream comes from the service: it says what was
before this run.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from app.base.ids import time_of
from app.domain.events import Event
from app.features.runs.run_views import RETRY
from app.infra.wires.a2a import (
    Artifact,
    Message,
    Part,
    TaskArtifactUpdate,
    TaskState,
    TaskStatus,
    TaskStatusUpdate,
    timestamp,
)
from app.protocols import parts
from app.protocols.a2a.content import parts_of
from app.protocols.a2a.tasks import STATES, asking_state, failure_message, question_message
from app.protocols.parts import PartAssembler
from app.protocols.projection import FrameNumbers, ProjectedFrame
from app.protocols.states import RunState

_encode = msgspec.json.Encoder().encode


class TaskProjection:
    """Updates of a task by one of its runs. Implements ``app.protocols.projection.Projection``."""

    stopping = RETRY

    def __init__(self, task_id: str, context_id: str) -> None:
        self._task_id = task_id
        self._context_id = context_id
        self._head = b'{"artifactUpdate":{"taskId":%b,"contextId":%b,"artifact":{"artifactId":' % (
            _encode(task_id),
            _encode(context_id),
        )
        self._assembler = PartAssembler()
        self._numbers = FrameNumbers()
        self._customs = 0
        self._run_id = ""
        self._at = ""
        self._said: set[str] = set()
        self._message: Message | None = None
        self._asking: TaskState = "TASK_STATE_INPUT_REQUIRED"

    def project(self, event: Event) -> Iterator[ProjectedFrame]:
        """Return the frames of ``event``."""
        said = tuple(self._assembler.parts(event))
        whole = {part.message_id for part in said if isinstance(part, parts.MessageDone)} - self._said
        for part in said:
            if not isinstance(part, parts.TextDelta):
                for update in self._updates(part):
                    yield self._frame(_encode(update))
            elif part.message_id not in whole:
                yield self._frame(self._text(part.message_id, part.text))

    def _frame(self, data: bytes) -> ProjectedFrame:
        return ProjectedFrame(self._numbers.next(), b"data: %b\n\n" % data)

    def _text(self, message_id: str, text: str) -> bytes:
        append = b',"append":true' if message_id in self._said else b""
        self._said.add(message_id)
        return b'%b%b,"parts":[{"text":%b}]}%b}}' % (self._head, _encode(message_id), _encode(text), append)

    def _updates(self, part: parts.Part) -> Iterator[dict[str, Any]]:
        match part:
            case parts.RunBegins():
                self._run_id = part.run_id
                self._passed(part.run_id)
                yield self._status("TASK_STATE_WORKING")
            case parts.InputTaken() | parts.StepDone():
                self._passed(part.checkpoint_id)
            case parts.MessageDone():
                yield from self._last_chunk(part.message_id, parts_of(part.message.get("content")))
            case parts.MessagesRetracted():
                for message_id in [one for one in part.message_ids if one in self._said]:
                    yield self._artifact(message_id, [Part(text="")], last_chunk=True)
                self._numbers.retracted(part.epoch)
            case parts.CustomValue():
                data = Part(data=part.data, media_type="application/json")
                self._customs += 1
                message_id = f"{self._run_id}-{self._customs}"
                yield self._status(
                    "TASK_STATE_WORKING", Message(message_id=message_id, role="ROLE_AGENT", parts=[data])
                )
            case parts.QuestionsAsked():
                self._passed(part.checkpoint_id)
                self._asking = asking_state(part.questions)
                self._message = question_message(self._run_id, self._context_id, self._task_id, part.questions)
            case parts.RunFailed():
                self._message = failure_message(self._run_id, self._context_id, self._task_id, part.message)
            case parts.RunEnds():
                state = self._asking if part.state is RunState.ASKING else STATES[part.state]
                yield self._status(state, self._message)
            case _:
                pass  # peers see the results of an agent, not its tool calls

    def _passed(self, id_: str) -> None:
        """Take the time of a status from an id that contains it, so that a replay has the same time."""
        made_at = time_of(id_)
        if made_at is not None:
            self._at = timestamp(made_at)

    def _last_chunk(self, message_id: str, content: list[Part]) -> Iterator[dict[str, Any]]:
        """End an artifact: with the parts that are not text, or with all of a message that was not streamed."""
        streamed = message_id in self._said
        rest = [part for part in content if part.text is None] if streamed else content
        if streamed or rest:
            self._said.add(message_id)
            yield self._artifact(message_id, rest or [Part(text="")], append=streamed, last_chunk=True)

    def _artifact(self, artifact_id: str, content: list[Part], **flags: bool) -> dict[str, Any]:
        artifact = Artifact(artifact_id=artifact_id, parts=content)
        update = TaskArtifactUpdate(task_id=self._task_id, context_id=self._context_id, artifact=artifact, **flags)
        return {"artifactUpdate": update}

    def _status(self, state: TaskState, message: Message | None = None) -> dict[str, Any]:
        status = TaskStatus(state=state, timestamp=self._at, message=message)
        update = TaskStatusUpdate(task_id=self._task_id, context_id=self._context_id, status=status)
        return {"statusUpdate": update}
