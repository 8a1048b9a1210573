"""Secrets that change while the program runs: read again every few seconds, checked, and swapped whole."""

from collections.abc import Callable, Iterable

import structlog

from app.base.errors import UsageError
from app.base.tasks import Tasks
from app.infra.secrets.secret import Secret

log = structlog.get_logger(__name__)

LOOK_SECONDS = 5.0

Read = Callable[[str], Secret | None]
"""Gives what a variable holds now. Raises ``UsageError`` for what it must not hold."""

ROTATED = "rotated"
REFUSED = "refused"
OnChange = Callable[[str, str], None]
"""Hears of a variable that was ROTATED, or whose new value was REFUSED."""


class RotatingSecret:
    """Values that are good for one purpose now: the first is used, the others where it is refused.

    ``version`` grows whenever they are others; ``refresh`` has them read again at once and tells whether that was so.
    """

    def __init__(self, *values: Secret | None, refresh: Callable[[], bool] = lambda: False) -> None:
        self.values = tuple(value for value in values if value is not None)
        self.version = 0
        self.refresh = refresh

    def good(self) -> tuple[Secret, ...]:
        """The values of this moment: for those who ask again each time."""
        return self.values

    def pair(self) -> tuple[Secret | None, Secret | None]:
        """The first two values."""
        first, second, *_ = (*self.values, None, None)
        return first, second

    def replace(self, values: Iterable[Secret | None]) -> None:
        """Hold other values."""
        self.values = tuple(value for value in values if value is not None)
        self.version += 1


class SecretStore:
    """The secrets of this process by variable. ``on_change`` hears of changes; a bad new value leaves the old one."""

    def __init__(self, read: Read, on_change: OnChange) -> None:
        self._read = read
        self._on_change = on_change
        self._values: dict[str, Secret | None] = {}
        self._before: dict[str, Secret | None] = {}
        self._rings: list[tuple[RotatingSecret, tuple[str, ...], bool]] = []
        self.refused: dict[str, str] = {}
        """Why the newest value of a variable is not used."""
        self._tasks = Tasks("vault")

    def start(self) -> None:
        """Begin to look."""
        self._tasks.repeat(self._repeatedly, LOOK_SECONDS, name="look")

    async def aclose(self) -> None:
        """Stop."""
        await self._tasks.aclose()

    @property
    def held(self) -> list[str]:
        """The variables that hold a secret."""
        return [name for name, value in self._values.items() if value is not None]

    def ring(self, *names: str, keep: bool = False) -> RotatingSecret:
        """The values of the variables ``names``; with ``keep`` the one that the first held before is good as well."""
        for name in names:
            if name not in self._values:
                self._values[name] = self._read(name)
        ring = RotatingSecret(*(self._values[name] for name in names), refresh=lambda: bool(self.refresh()))
        self._rings.append((ring, names, keep))
        return ring

    def refresh(self) -> list[str]:
        """Read every variable again; those that hold something else now."""
        changed = []
        for name, value in self._values.items():
            try:
                new = self._read(name)
            except UsageError as error:
                self._refuse(name, str(error))
                continue
            if new is None and value is not None:
                self._refuse(name, f"{name} is empty now")
                continue
            self.refused.pop(name, None)
            if new != value:
                changed.append(name)
                self._before[name], self._values[name] = value, new
        for ring, names, keep in self._rings:
            if any(name in changed for name in names):
                ring.replace([*(self._values[name] for name in names), self._before.get(names[0]) if keep else None])
        for name in changed:
            log.info("secret_rotated", name=name)
            self._on_change(name, ROTATED)
        return changed

    def _refuse(self, name: str, reason: str) -> None:
        if self.refused.get(name) != reason:
            self.refused[name] = reason
            log.error("secret_refused", name=name, reason=reason, detail="the value before goes on to be used")
            self._on_change(name, REFUSED)

    async def _repeatedly(self) -> None:
        self.refresh()
