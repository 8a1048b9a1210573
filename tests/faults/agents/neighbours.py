"""A function agent that waits for all runs to start, and then succeeds or kills its process."""

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

from app.agents.function import Context
from app.domain.messages import text_of

FOLDER = Path(os.environ["FAULTS_FOLDER"])
EXPECTED = int(os.environ["FAULTS_RUNS"])


async def run(context: Context) -> str:
    """Do what the last message says."""
    what = text_of(context.messages[-1].content)
    (FOLDER / f"{context.run.run_id}.began").touch()
    await until(lambda: len(list(FOLDER.glob("*.began"))) >= EXPECTED)
    if what == "harmless":
        await until((FOLDER / "may_end").exists)
        return "ended well"
    fail(what)
    return "never"


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  tests signal server processes by files
        await asyncio.sleep(0.02)


def fail(what: str) -> None:
    with (FOLDER / f"{what}.tries").open("a") as tries:
        tries.write(f"{os.getpid()}\n")
    if what == "sleep":
        time.sleep(3600)
    if what == "spin":
        while True:
            pass
    if what == "exit":
        os._exit(9)
    raise {"interrupt": KeyboardInterrupt, "system": SystemExit}[what]
