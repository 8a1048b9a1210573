"""Journeys of a client, run by the Python of its own environment: each prints one JSON line for its result."""

import asyncio
import json
import sys
import traceback
from collections.abc import Awaitable, Callable

Journey = Callable[[], Awaitable[None]]


async def run(journeys: list[Journey]) -> None:
    """Run ``journeys``, one after the other."""
    for journey in journeys:
        result: dict[str, object] = {"name": journey.__name__, "ok": True}
        try:
            async with asyncio.timeout(60):
                await journey()
        except Exception:  # noqa: BLE001  a result as well
            result |= {"ok": False, "detail": traceback.format_exc()[-2000:]}
        sys.stdout.write(json.dumps(result) + "\n")
        sys.stdout.flush()
