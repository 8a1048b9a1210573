"""Deterministic positions of a function's operations, identical on every replay.

A position is counted within its *branch*: the function itself, a task that it started (``asyncio.gather``, a task
group) or the inside of a step. Concurrent branches therefore do not affect each other's count.
"""

import asyncio
from contextvars import ContextVar
from typing import Any

from app.agents.tools.port import NeedsAnswer


class Branch:
    """A sequence of operations, counted under ``path``.

    ``question`` is the open question that blocks it, or a branch of it.
    """

    def __init__(self, path: str, task: asyncio.Task[Any] | None, parent: "Branch | None" = None) -> None:
        self.path = path
        self.task = task
        self.parent = parent
        self.question: NeedsAnswer | None = None
        self._positions = 0
        self._children = 0

    def next_position(self) -> str:
        """Return the position of the branch's next operation."""
        self._positions += 1
        return f"{self.path}{self._positions - 1}"

    def child(self, task: asyncio.Task[Any] | None) -> "Branch":
        """Return the branch of a task that this one started."""
        self._children += 1
        return Branch(f"{self.path}c{self._children - 1}/", task, self)

    def inside(self, position: str) -> "Branch":
        """Return the branch for the inside of the step at ``position``."""
        return Branch(f"{position}/", self.task, self)

    def block_on(self, question: NeedsAnswer) -> None:
        """Block this branch and its ancestors on ``question``."""
        branch: Branch | None = self
        while branch is not None:
            branch.question = branch.question or question
            branch = branch.parent


current: ContextVar[Branch | None] = ContextVar("branch", default=None)
"""The branch that the running code belongs to."""


def running_task() -> asyncio.Task[Any] | None:
    """Return the current task, or None: a sync step runs in a thread without one."""
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None
