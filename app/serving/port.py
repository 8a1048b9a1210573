"""The port to what a worker serves."""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

AsgiApp = Callable[[Any, Any, Any], Awaitable[None]]


class Application(Protocol):
    """An ASGI application (HTTP alone, no lifespan events) and the life around it, one object a worker.

    ``asgi`` answers requests from the end of ``open`` until ``drain`` has returned, and is given a few seconds more to
    end what it has begun; ``close`` comes last. ``retire`` comes before ``drain`` where a successor serves already.
    """

    @property
    def asgi(self) -> AsgiApp:
        """The application itself: https://asgi.readthedocs.io/en/latest/specs/www.html"""
        ...

    @property
    def metrics(self) -> AsgiApp:
        """What answers on the port for metrics, where there is one."""
        ...

    async def open(self) -> None:
        """Start what requests need. Raises ``StartError``: its sentence ends the start."""
        ...

    def reload(self) -> None:
        """Read anew what may change while the program runs: its secrets."""
        ...

    async def retire(self) -> None:
        """Take no new work, end or hand over what runs; open answers go on. Bounds itself in time."""
        ...

    async def drain(self) -> None:
        """Do what ``retire`` does, unless that is done; then end open streams. Bounds itself in time."""
        ...

    async def close(self) -> None:
        """Give everything back."""
        ...

    def busy(self) -> str:
        """What the running code works for: the run, the request. Called when the event loop hangs there."""
        ...

    def about(self) -> dict[str, str]:
        """What a person wants to know of it, by name: the model and why, the agents."""
        ...
