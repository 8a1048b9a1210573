"""The port to what a worker serves."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

Message = MutableMapping[str, Any]
AsgiApp = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]


class Application(Protocol):
    """An ASGI application (HTTP alone, no lifespan events) and the life around it, one object a worker.

    ``asgi`` answers requests from the end of ``open`` until ``drain`` has returned, and is given a few seconds more to end
    what it has begun; ``close`` comes last.
    """

    asgi: AsgiApp

    async def open(self) -> None:
        """Start what requests need. Raises ``StartError``: its sentence ends the start."""
        ...

    async def drain(self) -> None:
        """Take no new work, end or hand over what runs, end open streams. Bounds itself in time."""
        ...

    async def close(self) -> None:
        """Give everything back."""
        ...

    def about(self) -> dict[str, str]:
        """What a person wants to know of it, as label and text: the model and why, the agents."""
        ...
