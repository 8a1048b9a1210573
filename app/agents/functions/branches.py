"""Where in the function something happens: places that are the same each time it begins again.

A place is counted within its *branch*: the function itself, a task that it started (``asyncio.gather``, a task group)
or the inside of a step. Branches that run side by side so never disturb each other's count.
"""

import asyncio
from contextvars import ContextVar
from typing import Any

from app.agents.tools.port import NeedsAnswer


class Branch:
    """One line of work, counted under ``path``.

    ``asked`` is the question that it, or a branch of it, cannot go on without.
    """

    def __init__(self, path: str, task: asyncio.Task[Any] | None, parent: "Branch | None" = None) -> None:
        self.path = path
        self.task = task
        self.parent = parent
        self.asked: NeedsAnswer | None = None
        self._places = 0
        self._children = 0

    def next_place(self) -> str:
        """The place of what the branch does next."""
        self._places += 1
        return f"{self.path}{self._places - 1}"

    def child(self, task: asyncio.Task[Any] | None) -> "Branch":
        """The branch of a task that this one started."""
        self._children += 1
        return Branch(f"{self.path}c{self._children - 1}/", task, self)

    def inside(self, place: str) -> "Branch":
        """The branch of what happens inside the step at ``place``."""
        return Branch(f"{place}/", self.task, self)

    def wait_for(self, question: NeedsAnswer) -> None:
        """Neither this branch nor those it is part of can go on."""
        branch: Branch | None = self
        while branch is not None:
            branch.asked = branch.asked or question
            branch = branch.parent


current: ContextVar[Branch | None] = ContextVar("branch", default=None)
"""The branch that the running code belongs to."""


def running_task() -> asyncio.Task[Any] | None:
    """The task that runs, if any does: a sync step runs in a thread without one."""
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None
