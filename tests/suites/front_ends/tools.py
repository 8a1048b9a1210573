"""A tool that lasts until the test lets it end."""

import asyncio
import os
from pathlib import Path


async def clock() -> str:
    """Tell the time, once the file ``GATE`` exists."""
    gate = Path(os.environ["GATE"])
    while not await asyncio.to_thread(gate.exists):  # noqa: ASYNC110  only the file connects test and server
        await asyncio.sleep(0.05)
    return "noon"
