"""The wire shapes of runs."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import msgspec

from app.base.errors import BadRequest, Invalid, NotBuilt

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


class CommandBody(msgspec.Struct, kw_only=True):
    """How to continue a thread: an answer to what waits, values to write first, nodes to go to."""

    resume: Any | msgspec.UnsetType = msgspec.UNSET
    update: Any = None
    goto: Any = None


class ConfigBody(msgspec.Struct, kw_only=True):
    """A run's settings: ``configurable`` values reach tools, ``recursion_limit`` bounds its steps."""

    tags: list[str] | None = None
    recursion_limit: int | None = None
    configurable: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None


class RunCreate(msgspec.Struct, kw_only=True):
    """A run to create. ``assistant_id`` is an assistant's UUID or an agent's name."""

    assistant_id: str
    input: Any = None
    command: CommandBody | None = None
    config: ConfigBody | None = None
    context: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    checkpoint: dict[str, Any] | None = None
    checkpoint_id: str | None = None
    interrupt_before: NodeNames | None = None
    interrupt_after: NodeNames | None = None
    stream_mode: StreamMode | list[StreamMode] | None = None
    stream_subgraphs: bool | None = False
    stream_resumable: bool | None = False
    feedback_keys: list[str] | None = None
    webhook: str | None = None
    multitask_strategy: Literal["reject", "enqueue", "interrupt", "rollback"] | None = None
    if_not_exists: Literal["create", "reject"] | None = None
    on_disconnect: Literal["cancel", "continue"] | None = None
    on_completion: Literal["delete", "keep"] | None = None
    after_seconds: float | None = None
    durability: Literal["sync", "async", "exit"] | None = None
    checkpoint_during: bool | None = None

    def modes(self) -> list[str]:
        """The stream modes asked for, each once."""
        asked = self.stream_mode or ["values"]
        return list(dict.fromkeys([asked] if isinstance(asked, str) else asked)) or ["values"]

    def check(self) -> None:
        """Refuse what contradicts itself, and what this version does not serve. Raises ``BadRequest``, …"""
        configurable = self.config and self.config.configurable
        if self.context and configurable:
            raise BadRequest("Cannot specify both configurable and context. Prefer setting context alone.")
        if self.after_seconds is not None and not 0 <= self.after_seconds <= 366 * 86_400:
            raise Invalid("after_seconds must be from 0 to 31622400.", (("/after_seconds", "out of range"),))
        if self.config and self.config.recursion_limit is not None and self.config.recursion_limit < 1:
            raise Invalid("recursion_limit must be at least 1.", (("/config/recursion_limit", "too small"),))
        unserved = set(self.modes()) & {"messages", "tasks", "checkpoints", "debug", "events"}
        if unserved:
            raise NotBuilt(
                f"Stream mode {min(unserved)!r} is not built yet; use values, updates, messages-tuple or custom."
            )
        for name, used in (
            ("command", self.command is not None),
            ("checkpoint", self.checkpoint is not None or self.checkpoint_id is not None),
            ("interrupt_before", bool(self.interrupt_before)),
            ("interrupt_after", bool(self.interrupt_after)),
            ("webhook", self.webhook is not None),
            ("multitask_strategy", self.multitask_strategy in {"interrupt", "rollback"}),
        ):
            if used:
                raise NotBuilt(f"The field {name!r} is not built yet in this version.")


class RunRequest(msgspec.Struct, kw_only=True):
    """What a run was asked for, as it is stored and shown (``kwargs`` on the wire)."""

    input: Any = None
    command: CommandBody | None = None
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

    @classmethod
    def of(cls, body: RunCreate, *, temporary: bool) -> "RunRequest":
        """The part of ``body`` that outlives the request."""
        return cls(
            input=body.input,
            command=body.command,
            config=body.config,
            context=body.context or {},
            stream_mode=body.modes(),
            feedback_keys=body.feedback_keys,
            temporary=temporary,
            subgraphs=bool(body.stream_subgraphs),
            resumable=bool(body.stream_resumable),
            durability=body.durability or "async",
        )


class Run(msgspec.Struct, kw_only=True):
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
