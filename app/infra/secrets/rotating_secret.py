"""Secrets that are rotated at runtime: read every few seconds, validated, and swapped atomically."""

from collections.abc import Callable, Iterable

import structlog

from app.base.errors import UsageError
from app.base.tasks import Tasks
from app.infra.secrets.secret import Secret

log = structlog.get_logger(__name__)

POLL_SECONDS = 5.0

Read = Callable[[str], Secret | None]
"""Returns the current value of a variable. Raises ``UsageError`` if it is invalid."""

ROTATED = "rotated"
REFUSED = "refused"
OnChange = Callable[[str, str], None]
"""Called with the variable and ROTATED, or REFUSED if its new value is refused."""


class RotatingSecret:
    """Values valid for one purpose: the first is used, the others if it is refused.

    ``version`` is incremented on each change; ``refresh`` reads the values at once and returns whether they changed.
    """

    def __init__(self, *values: Secret | None, refresh: Callable[[], bool] = lambda: False) -> None:
        self.values = tuple(value for value in values if value is not None)
        self.version = 0
        self.refresh = refresh

    def good(self) -> tuple[Secret, ...]:
        """Return the current values, for callers that ask each time."""
        return self.values

    def pair(self) -> tuple[Secret | None, Secret | None]:
        """Return the first two values, None if missing."""
        first, second, *_ = (*self.values, None, None)
        return first, second

    def replace(self, values: Iterable[Secret | None]) -> None:
        """Replace the values."""
        self.values = tuple(value for value in values if value is not None)
        self.version += 1


class SecretStore:
    """The secrets of this process by variable. ``on_change`` is called on changes; invalid new values are refused."""

    def __init__(self, read: Read, on_change: OnChange) -> None:
        self._read = read
        self._on_change = on_change
        self._values: dict[str, Secret | None] = {}
        self._previous: dict[str, Secret | None] = {}
        self._rotating: list[tuple[RotatingSecret, tuple[str, ...], bool]] = []
        self.refused: dict[str, str] = {}
        """Why the newest value of a variable is not used."""
        self._tasks = Tasks("secrets")

    def start(self) -> None:
        """Start to read the variables periodically."""
        self._tasks.repeat(self._poll, POLL_SECONDS, name="poll")

    async def aclose(self) -> None:
        """Stop reading."""
        await self._tasks.aclose()

    @property
    def held(self) -> list[str]:
        """The variables that hold a secret."""
        return [name for name, value in self._values.items() if value is not None]

    def rotating(self, *names: str, keep: bool = False) -> RotatingSecret:
        """Return the rotating values of ``names``; with ``keep``, the first one's previous value stays valid."""
        for name in names:
            if name not in self._values:
                self._values[name] = self._read(name)
        rotating = RotatingSecret(*(self._values[name] for name in names), refresh=lambda: bool(self.refresh()))
        self._rotating.append((rotating, names, keep))
        return rotating

    def refresh(self) -> list[str]:
        """Read every variable again; return those that changed."""
        changed = []
        for name, value in self._values.items():
            try:
                new = self._read(name)
            except UsageError as error:
                self._refuse(name, str(error))
                continue
            if new is None and value is not None:
                self._refuse(name, f"{name} is empty")
                continue
            self.refused.pop(name, None)
            if new != value:
                changed.append(name)
                self._previous[name], self._values[name] = value, new
        for rotating, names, keep in self._rotating:
            if any(name in changed for name in names):
                rotating.replace(
                    [*(self._values[name] for name in names), self._previous.get(names[0]) if keep else None]
                )
        for name in changed:
            log.info("secret_rotated", name=name)
            self._on_change(name, ROTATED)
        return changed

    def _refuse(self, name: str, reason: str) -> None:
        if self.refused.get(name) != reason:
            self.refused[name] = reason
            log.error("secret_refused", name=name, reason=reason, detail="the previous value stays in use")
            self._on_change(name, REFUSED)

    async def _poll(self) -> None:
        self.refresh()
