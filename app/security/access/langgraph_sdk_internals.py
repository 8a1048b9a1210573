"""Everything that leans on private parts of langgraph-sdk, from version 0.4 on (the extra ``auth``).

- ``Auth._authenticate_handler``, ``_handlers`` and ``_global_handlers`` hold what its decorators register. The SDK
  promises their names to servers, in comments of its class. Remove it once ``Auth`` has public accessors.
"""

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

AuthHandler = Callable[..., Awaitable[Any]]


class RegisteredHandlers(NamedTuple):
    """The handlers of an ``Auth`` object: ``by_action`` by resource and action, ``for_all`` without either."""

    authenticate: Callable[..., Any] | None
    by_action: dict[tuple[str, str], list[AuthHandler]]
    for_all: list[AuthHandler]


def registered_handlers(auth: Any) -> RegisteredHandlers:
    """Return the handlers of ``auth``. Raises ``AttributeError`` if it is no ``Auth`` object."""
    return RegisteredHandlers(
        auth._authenticate_handler,  # noqa: SLF001 - see above
        auth._handlers,  # noqa: SLF001
        auth._global_handlers,  # noqa: SLF001
    )
