"""What connections to MCP servers do, without the SDK: for the code that may not import it."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

OnProgress = Callable[[float, float | None, str | None], Awaitable[None]]
"""Called with progress, total and message as the server reports them."""


OnQuestion = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""Called with a question that a server asks during a call; returns the answer. Raises ``NeedsAnswer``."""


class Connection(Protocol):
    """A connection to a server. All methods raise ``ServerAway``, ``LostConnection``, ``ServerError`` and
    ``SignInNeeded``.
    """

    ended: bool

    @property
    def revision(self) -> str:
        """The protocol revision that was agreed on."""
        ...

    def about(self) -> dict[str, Any]:
        """Return the server's description of itself: name, version, capabilities, instructions."""
        ...

    async def open(self) -> None:
        """Connect and agree on a revision."""
        ...

    async def aclose(self) -> None:
        """Close the connection; a child process is ended."""
        ...

    async def list_tools(self) -> list[dict[str, Any]]:
        """Return the server's tools as it describes them."""
        ...

    async def call_tool(
        self,
        name: str,
        arguments: Mapping[str, Any],
        meta: Mapping[str, Any],
        on_progress: OnProgress,
        on_question: OnQuestion,
        continuation: Mapping[str, Any] = {},
    ) -> dict[str, Any]:
        """Call a tool; return the result as the server sent it, of any ``resultType``. Raises ``NeedsAnswer``.

        ``continuation``: ``inputResponses`` and ``requestState`` of a call that answers the server's questions.
        """
        ...

    async def list_resources(self, limit: int) -> list[dict[str, Any]]:
        """Return the server's resources, then the templates of their URIs; at most ``limit``."""
        ...

    async def read_resource(self, uri: str) -> dict[str, Any]:
        """Return the result of reading a resource as the server sent it, of any ``resultType``."""
        ...

    async def task(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Send a request about a task (``tasks/get``, ``tasks/update``, ``tasks/cancel``); return its result."""
        ...
