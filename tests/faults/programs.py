"""Random programs whose end is known in advance, from a seed."""

import random
from typing import Any

import msgspec

TOOLS = ("read", "add", "add", "put", "book", "pay")


class Program(msgspec.Struct):
    """One run: calls of tools, each with a number."""

    id: str
    agent: str
    ops: list[tuple[str, int]]

    @property
    def total(self) -> int:
        """What it adds to its thread's total."""
        return sum(n for name, n in self.ops if name == "add")

    @property
    def input(self) -> dict[str, Any]:
        text = msgspec.json.encode({"id": self.id, "ops": self.ops}).decode()
        return {"messages": [{"role": "user", "content": text}]}


def programs(seed: int, threads: int, turns: int) -> list[list[Program]]:
    """For each thread the programs of its turns."""
    dice = random.Random(seed)
    return [
        [
            Program(
                id=f"{seed}.{thread}.{turn}",
                agent=dice.choice(["loop", "loop", "function"]),
                ops=[(dice.choice(TOOLS), dice.randrange(1, 100)) for _ in range(dice.randrange(1, 6))],
            )
            for turn in range(turns)
        ]
        for thread in range(threads)
    ]
