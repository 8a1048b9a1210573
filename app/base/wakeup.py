"""Wake-ups of a loop that otherwise polls on a timer: notifications are hints, and none is lost."""

import asyncio
import contextlib


async def wait_for(event: asyncio.Event, seconds: float) -> bool:
    """Wait up to ``seconds`` for ``event``; return whether it is set."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()


class WakeUp:
    """Wakes the one loop that waits for it.

    A wake-up that comes while the loop works ends its next wait at once. Work that fails must ``set`` it again, as it
    has consumed the wake-up.
    """

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def set(self) -> None:
        """Wake the loop now, or when it waits next."""
        self._event.set()

    async def wait(self, seconds: float | None = None) -> bool:
        """Wait for a wake-up, at most ``seconds``, and consume it; return whether there was one."""
        if seconds is None:
            await self._event.wait()
            woken = True
        else:
            woken = await wait_for(self._event, seconds)
        self._event.clear()
        return woken
