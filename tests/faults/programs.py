"""Random programs from a seed, whose result is known in advance."""

import random
from typing import Any

import msgspec

TOOLS = ("read", "add", "add", "put", "book", "pay")


class Program(msgspec.Struct):
    """The program of one run: tool calls, each with a number."""

    id: str
    agent: str
    ops: list[tuple[str, int]]

    @property
    def total(self) -> int:
        """What it adds to the thread's total."""
        return sum(n for name, n in self.ops if name == "add")

    @property
    def input(self) -> dict[str, Any]:
        text = msgspec.json.encode({"id": self.id, "ops": self.ops}).decode()
        return {"messages": [{"role": "user", "content": text}]}


def programs(seed: int, threads: int, turns: int) -> list[list[Program]]:
    """Return the programs of each thread, one per turn."""
    rng = random.Random(seed)
    return [
        [
            Program(
                id=f"{seed}.{thread}.{turn}",
                agent=rng.choice(["loop", "loop", "function"]),
                ops=[(rng.choice(TOOLS), rng.randrange(1, 100)) for _ in range(rng.randrange(1, 6))],
            )
            for turn in range(turns)
        ]
        for thread in range(threads)
    ]
