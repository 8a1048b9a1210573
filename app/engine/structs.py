"""Wire shapes of runs.

``RunFields`` is what a run carries from the request to every reader; column lists, parameters of statements and rows of
the table ``runs`` follow from it, here and in ``app.engine.entries``.
"""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import msgspec

from app.agents.port import START_NODE, ModelOptions
from app.base.errors import BadRequest, Invalid
from app.domain.caller import AUTH_USER, AUTH_USER_ID
from app.engine.tables import runs
from app.infra.db.columns import stored_fields
from app.security.limits.structs import BudgetReservation

StreamMode = Literal[
    "values",
    "updates",
    "messages",
    "messages-tuple",
    "custom",
    "tasks",
    "checkpoints",
    "debug",
    "events",
]
NodeNames = Literal["*"] | list[str]
Action = Literal["interrupt", "rollback"]

_REQUESTED_BY = b',"requested_by":"'


class CommandBody(msgspec.Struct, kw_only=True, omit_defaults=True):
    """How to continue a thread: an answer to its questions, values to write first, nodes to go to.

    ``resume`` is the answer to the only open question, or an object of interrupt id → answer. ``goto`` is a node's
    name, ``{"node": name}`` (for graphs with an ``input`` too), or a list of those. Clients send every member; an
    empty ``update`` or ``goto`` counts as none.
    """

    resume: Any | msgspec.UnsetType = msgspec.UNSET
    update: Any = None
    goto: Any = None

    def __post_init__(self) -> None:
        if self.goto in ([], ""):
            self.goto = None
        if self.update in ([], {}):
            self.update = None

    def check(self) -> None:
        """Validate ``goto``. Raises ``Invalid`` if it names no node."""
        if self.goto is not None:
            goto_nodes(self.goto)


def goto_nodes(goto: Any) -> list[str]:
    """Return the nodes that ``goto`` names. Raises ``Invalid``."""
    nodes = []
    for target in goto if isinstance(goto, list) else [goto]:
        node = target.get("node") if isinstance(target, dict) else target
        if not isinstance(node, str):
            raise Invalid("goto must name nodes.", (("/command/goto", "must be a node's name, or a list of them"),))
        nodes.append(node)
    return nodes


class ConfigBody(msgspec.Struct, kw_only=True):
    """Settings of a run: ``configurable`` values are passed to tools, ``recursion_limit`` bounds its steps."""

    tags: list[str] | None = None
    recursion_limit: int | None = None
    configurable: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None


class RunFields(msgspec.Struct, frozen=True, kw_only=True):
    """Fields that clients set on a run and everyone who reads it sees; each is a column of ``runs`` with its name.

    A field declared here is accepted in the bodies of runs and crons, stored, handed to the process that claims the
    run, and shown on the run and in its webhook. Its values are text, numbers, booleans, UUIDs or times; structured
    ones belong in ``metadata``. Structs that inherit it may narrow a type.
    """

    multitask_strategy: str | None = None


class RunParameters(RunFields, frozen=True, kw_only=True):
    """What clients and crons ask of each run."""

    input: Any = None
    config: ConfigBody | None = None
    context: dict[str, Any] | None = None
    webhook: str | None = None
    interrupt_before: NodeNames | None = None
    interrupt_after: NodeNames | None = None
    multitask_strategy: Literal["reject", "enqueue", "interrupt", "rollback"] | None = None
    stream_mode: StreamMode | list[StreamMode] | None = None
    stream_subgraphs: bool | None = None
    stream_resumable: bool | None = None
    durability: Literal["sync", "async", "exit"] | None = None


class RunCreate(RunParameters, frozen=True, kw_only=True):
    """A run to create. ``assistant_id`` is an assistant's UUID or an agent's name."""

    assistant_id: str
    command: CommandBody | None = None
    metadata: dict[str, Any] | None = None
    checkpoint: dict[str, Any] | None = None
    checkpoint_id: str | None = None
    stream_subgraphs: bool | None = False
    stream_resumable: bool | None = False
    feedback_keys: list[str] | None = None
    if_not_exists: Literal["create", "reject"] | None = None
    on_disconnect: Literal["cancel", "continue"] | None = None
    on_completion: Literal["delete", "keep"] | None = None
    after_seconds: float | None = None
    checkpoint_during: bool | None = None
    strict_resume: bool | None = None
    model_options: ModelOptions | None = None

    @property
    def strategy(self) -> str:
        """What happens if the thread is busy."""
        return self.multitask_strategy or "enqueue"

    def carried(self) -> dict[str, Any]:
        """Return the ``RunFields`` to store."""
        given = {name: getattr(self, name) for name in RunFields.__struct_fields__}
        return {**given, "multitask_strategy": self.strategy}

    def modes(self) -> list[str]:
        """Return the requested stream modes without duplicates."""
        asked = self.stream_mode or ["values"]
        return list(dict.fromkeys([asked] if isinstance(asked, str) else asked)) or ["values"]

    def check(self) -> None:
        """Validate the combination of fields and reject what this version does not serve.

        Raises ``BadRequest``, ``Invalid``.
        """
        configurable = self.config and self.config.configurable
        if self.context and configurable:
            raise BadRequest("Cannot specify both configurable and context. Prefer setting context alone.")
        if self.after_seconds is not None and not 0 <= self.after_seconds <= 366 * 86_400:
            raise Invalid("after_seconds must be from 0 to 31622400.", (("/after_seconds", "out of range"),))
        if self.config and self.config.recursion_limit is not None and self.config.recursion_limit < 1:
            raise Invalid("recursion_limit must be at least 1.", (("/config/recursion_limit", "too small"),))
        if self.command is not None:
            self.command.check()

    @property
    def resumes(self) -> bool:
        """Whether it brings an answer."""
        return self.command is not None and self.command.resume is not msgspec.UNSET

    def fork(self, thread_id: UUID | None) -> UUID | None:
        """Return the checkpoint that the run forks from, None for the thread's newest. Raises ``Invalid``."""
        source = self.checkpoint or (self.config and self.config.configurable) or {}
        given = self.checkpoint_id or source.get("checkpoint_id")
        if given is None:
            return None
        try:
            checkpoint_id = UUID(str(given))
        except ValueError as error:
            words = "Invalid checkpoint ID: must be a UUID"
            raise Invalid(words, (("/checkpoint_id", "must be a UUID"),)) from error
        if thread_id is None or str(source.get("thread_id") or thread_id) != str(thread_id):
            raise Invalid(
                "A run can start only from a checkpoint of its own thread: create it on that thread.",
                (("/checkpoint/thread_id", "another thread"),),
            )
        return checkpoint_id


class BulkCancel(msgspec.Struct, kw_only=True):
    """Runs to cancel: all with a ``status``, or ``run_ids`` of a thread."""

    status: Literal["pending", "running", "all"] | None = None
    thread_id: UUID | None = None
    run_ids: list[UUID] | None = None

    def check(self) -> None:
        """Validate that exactly one of the two is given. Raises ``Invalid``."""
        by_id = self.thread_id is not None and bool(self.run_ids)
        if (self.status is not None) == (self.thread_id is not None or self.run_ids is not None) or (
            self.status is None and not by_id
        ):
            raise Invalid("Give either a status, or a thread_id with run_ids.", (("/", "which runs is not clear"),))


class RunRequest(msgspec.Struct, kw_only=True):
    """A run's request as stored and, without the user, shown to clients (``kwargs`` on the wire).

    ``langgraph_auth_user``: the user returned by the operator's auth handlers; may hold what only agents may know.
    ``langgraph_auth_user_id``: the user named by the API key or token, if there are no handlers. ``requested_by``: the
    user or key that requested the work; an answer alone does not change it.
    """

    input: Any = None
    command: CommandBody | None = None
    answers: dict[str, Any] = {}
    checkpoint_id: UUID | None = None
    config: ConfigBody | None = None
    context: dict[str, Any] = {}
    stream_mode: list[str] = msgspec.field(default_factory=lambda: ["values"])
    interrupt_before: NodeNames | None = None
    interrupt_after: NodeNames | None = None
    webhook: str | None = None
    feedback_keys: list[str] | None = None
    temporary: bool = False
    subgraphs: bool = False
    resumable: bool = False
    durability: str = "async"
    model_options: ModelOptions | msgspec.UnsetType = msgspec.UNSET
    reserved: BudgetReservation | msgspec.UnsetType = msgspec.UNSET
    langgraph_auth_user: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    langgraph_auth_user_id: str | msgspec.UnsetType = msgspec.UNSET
    requested_by: str | msgspec.UnsetType = msgspec.UNSET

    @classmethod
    def of(
        cls,
        body: RunCreate,
        *,
        temporary: bool,
        fork: UUID | None = None,
        answers: dict[str, Any] | None = None,
        user: dict[str, Any] | None = None,
        user_id: str = "",
    ) -> "RunRequest":
        """Return the stored part of ``body``; ``answers`` are those of its command, by question key."""
        stored: dict[str, Any] = {
            **{name: getattr(body, name) for name in _IN_BOTH},
            "answers": answers or {},
            "checkpoint_id": fork,
            "context": body.context or {},
            "stream_mode": body.modes(),
            "temporary": temporary,
            "subgraphs": bool(body.stream_subgraphs),
            "resumable": bool(body.stream_resumable),
            "durability": body.durability or "async",
            "model_options": body.model_options or msgspec.UNSET,
            "langgraph_auth_user": msgspec.UNSET if user is None else user,
            "langgraph_auth_user_id": user_id or msgspec.UNSET,
        }
        return cls(**stored)

    @property
    def has_values(self) -> bool:
        """Whether it changes the thread's values before its first node."""
        return self.input is not None or (self.command is not None and self.command.update is not None)

    def pauses(self, done: tuple[str, ...], following: tuple[str, ...]) -> bool:
        """Whether the caller wants the run to pause after the nodes ``done``, before those that follow."""
        starts = following in {(), (START_NODE,)}  # none follows, or the agent is yet to read its input
        return not starts and (_names(self.interrupt_after, done) or _names(self.interrupt_before, following))


_IN_BOTH = tuple(name for name in RunRequest.__struct_fields__ if name in RunCreate.__struct_fields__)


def _names(wanted: NodeNames | None, nodes: tuple[str, ...]) -> bool:
    return bool(nodes) and (wanted == "*" or any(node in nodes for node in wanted or ()))


def kwargs_of(request: bytes) -> msgspec.Raw:
    """Return a stored request as clients see it: without the user, which holds data of the operator's code.

    Nor the key or user that requested the work: ``requested_by`` is the last member, cut off without parsing if
    possible.
    """
    at = request.rfind(_REQUESTED_BY)
    if at >= 0 and request.find(b'"', at + len(_REQUESTED_BY)) == len(request) - len(b'"}'):
        request, at = request[:at] + b"}", -1
    if at < 0 and AUTH_USER.encode() not in request:
        return msgspec.Raw(request)
    members = msgspec.json.decode(request, type=dict[str, msgspec.Raw])
    for name in (AUTH_USER, AUTH_USER_ID, "requested_by"):
        members.pop(name, None)
    return msgspec.Raw(msgspec.json.encode(members))


class Run(RunFields, frozen=True, kw_only=True):
    """A run, as clients see it."""

    run_id: UUID
    thread_id: UUID
    assistant_id: UUID
    created_at: datetime
    updated_at: datetime
    status: str
    metadata: Any
    kwargs: msgspec.Raw
    multitask_strategy: str
    langsmith_session_name: None = None


class ContinuedRun(msgspec.Struct, frozen=True, kw_only=True):
    """The newest of a run and the runs that answered its questions.

    ``begun_at``: when the first was created. ``questions``: those open, as ``{"id", "value", "response_schema"}``.
    """

    run_id: UUID
    assistant_id: UUID
    status: str
    begun_at: datetime
    updated_at: datetime
    questions: list[dict[str, Any]] | None = None


SHOWN = stored_fields(Run, runs)
"""Columns of a run that clients see; ``kwargs`` is made from ``request``."""
