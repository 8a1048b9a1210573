"""The port between the wire and what is served: tools, resources and prompts, and how a call of a tool goes.

The wire (``server``) speaks both revisions to any surface; a surface knows neither headers nor streams.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any, NamedTuple, Protocol

from app.base.errors import NotFound
from app.protocols.mcp.revisions import Envelope
from app.security.access.structs import Principal
from app.security.idempotency.structs import IdempotencyKey


class Gate(Protocol):
    """Checks the rights of a message, once its method is known."""

    def need(self, scope: str) -> None:
        """Raise ``Forbidden`` if the caller lacks ``scope``."""
        ...

    async def start_run(self) -> None:
        """Take the start of a run from the caller's rate. Raises ``Forbidden``, ``Limited``."""
        ...


class Caller(NamedTuple):
    """The caller, the capabilities of its client (``envelope``), and its rights (``gate``)."""

    principal: Principal
    envelope: Envelope
    gate: Gate
    key: IdempotencyKey | None = None


class Ask(NamedTuple):
    """What a client is to ask its person, model or file system: ``method`` is the request for it."""

    method: str
    params: dict[str, Any]

    @property
    def capability(self) -> str:
        """The capability that a client needs for it."""
        return self.method.partition("/")[0]


class Progress(NamedTuple):
    """How far a call has come."""

    progress: float
    total: float | None = None
    message: str | None = None


class LogMessage(NamedTuple):
    """A log message of a call."""

    level: str
    data: Any


class Asked(NamedTuple):
    """The call waits for answers to ``asks``, by key. ``state``: what the surface needs to continue, as JSON."""

    asks: dict[str, Ask]
    state: Any


class Done(NamedTuple):
    """The call's result."""

    result: dict[str, Any]


class TaskMade(NamedTuple):
    """The call continues as a task, whose fields these are."""

    task: dict[str, Any]


Item = Progress | LogMessage | Asked | Done
Items = AsyncGenerator[Item, None]
"""A call in progress. After ``Asked`` it continues by itself once ``Surface.respond`` has got the answers."""


class Following(NamedTuple):
    """A call in progress, and what to do if its client goes away."""

    items: Items
    on_disconnect: Callable[[], Awaitable[None]] | None = None


Reply = Done | Asked | TaskMade | Following


class Named(NamedTuple):
    """A call of a tool or a request for a prompt, with what its client brings back from the time before."""

    name: str
    arguments: dict[str, Any]
    answers: Mapping[str, Any]
    state: Any = None


class Capabilities(NamedTuple):
    """What a surface offers in addition to tools. ``logs`` and ``subscribes`` exist in older revisions alone."""

    resources: bool = False
    prompts: bool = False
    completions: bool = False
    tasks: bool = False
    logs: bool = False
    subscribes: bool = False


class Surface(Protocol):
    """What one address serves. Methods raise ``RpcError``, and the service's own errors."""

    capabilities: Capabilities
    instructions: str

    async def tools(self, caller: Caller) -> list[dict[str, Any]]:
        """Return the tools, always in the same order."""
        ...

    async def call_tool(self, caller: Caller, call: Named) -> Reply:
        """Start or continue a call."""
        ...

    async def respond(self, caller: Caller, state: Any, key: str, response: Any) -> None:
        """Take the answer to one ask of a call that continues (older revisions)."""
        ...

    async def cancel(self, caller: Caller, request_id: str | int) -> None:
        """Cancel the call that came as ``request_id`` (older revisions)."""
        ...

    async def resources(self, caller: Caller) -> list[dict[str, Any]]:
        """Return the resources."""
        ...

    async def resource_templates(self, caller: Caller) -> list[dict[str, Any]]:
        """Return the templates of resources."""
        ...

    async def read_resource(self, caller: Caller, uri: str) -> list[dict[str, Any]]:
        """Return the contents of a resource. Raises ``NotFound``."""
        ...

    async def prompts(self, caller: Caller) -> list[dict[str, Any]]:
        """Return the prompts."""
        ...

    async def get_prompt(self, caller: Caller, call: Named) -> Done | Asked:
        """Return a prompt."""
        ...

    async def complete(self, caller: Caller, reference: str, argument: str, typed: str) -> list[str]:
        """Return values of ``argument`` of a prompt or a resource template that begin with what is ``typed``."""
        ...

    async def task(self, caller: Caller, task_id: str) -> dict[str, Any]:
        """Return a task. Raises ``NotFound``."""
        ...

    async def update_task(self, caller: Caller, task_id: str, answers: Mapping[str, Any]) -> None:
        """Take answers to questions of a task. Raises ``NotFound``."""
        ...

    async def cancel_task(self, caller: Caller, task_id: str) -> None:
        """Cancel a task; nothing happens if it has ended. Raises ``NotFound``."""
        ...

    def follow_task(self, caller: Caller, task_id: str) -> AsyncGenerator[dict[str, Any], None]:
        """Yield a task each time that its status changes, until it ends."""
        ...


class ToolsOnly:
    """A surface without resources, prompts and tasks, to derive from. Implements ``Surface`` but for its tools."""

    capabilities = Capabilities()
    instructions = ""

    async def respond(self, caller: Caller, state: Any, key: str, response: Any) -> None:
        """Ignore the answer: no call asks."""

    async def cancel(self, caller: Caller, request_id: str | int) -> None:
        """Do nothing: calls end at once."""

    async def resources(self, caller: Caller) -> list[dict[str, Any]]:
        """Return no resources."""
        return []

    async def resource_templates(self, caller: Caller) -> list[dict[str, Any]]:
        """Return no templates."""
        return []

    async def read_resource(self, caller: Caller, uri: str) -> list[dict[str, Any]]:
        """Raise ``NotFound``."""
        raise NotFound(f"No resource {uri[:200]!r}: resources/list and resources/templates/list name them.")

    async def prompts(self, caller: Caller) -> list[dict[str, Any]]:
        """Return no prompts."""
        return []

    async def get_prompt(self, caller: Caller, call: Named) -> Done | Asked:
        """Raise ``NotFound``."""
        raise NotFound(f"No prompt {call.name[:200]!r}: prompts/list names them.")

    async def complete(self, caller: Caller, reference: str, argument: str, typed: str) -> list[str]:
        """Return no values."""
        return []

    async def task(self, caller: Caller, task_id: str) -> dict[str, Any]:
        """Raise ``NotFound``."""
        raise NotFound(f"No task {task_id[:200]!r}.")

    async def update_task(self, caller: Caller, task_id: str, answers: Mapping[str, Any]) -> None:
        """Raise ``NotFound``."""
        await self.task(caller, task_id)

    async def cancel_task(self, caller: Caller, task_id: str) -> None:
        """Raise ``NotFound``."""
        await self.task(caller, task_id)

    async def follow_task(self, caller: Caller, task_id: str) -> AsyncGenerator[dict[str, Any], None]:
        """Raise ``NotFound``."""
        yield await self.task(caller, task_id)
