"""Graphs that tasks invoke, as subgraphs or in their code: which is which when LangGraph retries a task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

RUNTIME = "__pregel_runtime"
"""The key of LangGraph's run configuration that holds the runtime of the task that invokes a graph."""


class Invocations:
    """Numbers the graphs that each task invokes, from zero in each of its attempts.

    LangGraph goes on counting when it retries a task: its first subgraph is then in the namespace ``node:id|1``, and
    begins again.
    """

    def __init__(self) -> None:
        self._first: dict[tuple[str, int], int] = {}
        self._attempts: dict[str, tuple[str, int]] = {}

    def note(self, at: Mapping[str, Any]) -> None:
        """Take note of a graph that begins, which has asked for its checkpoint with the configuration ``at``."""
        runtime, namespace = at.get(RUNTIME), at.get("checkpoint_ns") or ""
        task = None if runtime is None else runtime.execution_info
        if task is None or not namespace:
            return
        attempt, number = (task.checkpoint_ns, task.node_attempt), _number(namespace[len(task.checkpoint_ns) + 1 :])
        self._attempts[namespace] = attempt
        self._first[attempt] = min(number, self._first.get(attempt, number))

    def knows(self, namespace: str) -> bool:
        """Whether a graph in ``namespace`` has begun."""
        return namespace in self._attempts

    def place(self, namespace: str) -> tuple[str, int]:
        """Return the names in ``namespace`` without ids, and how often its tasks have been retried, the last aside.

        Both are the same for the graph that takes the place of this one in another attempt, or another run.
        """
        names: list[str] = []
        at, retries = "", 0
        for part in namespace.split("|"):
            if not part.isdecimal():
                retries += self._retries(at)
                names.append(part.partition(":")[0])
            elif number := int(part) - self._first.get(self._attempts.get(f"{at}|{part}", ("", 0)), 0):
                names.append(str(number))
            at = f"{at}|{part}" if at else part
        return "|".join(names), retries

    def _retries(self, namespace: str) -> int:
        return self._attempts[namespace][1] - 1 if namespace in self._attempts else 0


def _number(suffix: str) -> int:
    return int(suffix) if suffix.isdecimal() else 0
