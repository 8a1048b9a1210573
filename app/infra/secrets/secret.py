"""A secret text (a provider's key, a password, a signing key), and reading it from a file."""

import hmac
from pathlib import Path
from typing import Any, NoReturn, final

from app.base.errors import UsageError

HIDDEN = "***"


@final
class Secret:
    """Holds a secret that only ``reveal`` shows.

    ``repr``, ``str`` and ``format`` give ``***``. Pickling raises ``TypeError``, and so does encoding by msgspec or
    ``json``, because neither knows the type. Comparison takes constant time; only two ``Secret`` compare equal. It has
    no hash: a hash table would keep something derived from the value.
    """

    __slots__ = ("_value",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the value: for the one line that sends it, never for a long-lived variable."""
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value.encode(), other._value.encode())

    def __repr__(self) -> str:
        return f"Secret({HIDDEN})"

    def __str__(self) -> str:
        return HIDDEN

    def __format__(self, spec: str) -> str:
        return HIDDEN

    def __copy__(self) -> "Secret":
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> "Secret":
        return self

    def __getstate__(self) -> NoReturn:
        raise TypeError("a Secret cannot be pickled")

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a Secret cannot be pickled")


def secret_file(name: str, path: str) -> str:
    """Return the stripped text of the file that the variable ``name`` names. Raises ``UsageError``."""
    try:
        text = Path(path).read_text("utf-8").strip()
    except OSError as error:
        raise UsageError(f"{name}: cannot read {path} ({error.strerror}); name a readable file") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{name}: {path} is not UTF-8 text; write the bare secret into it") from error
    if not text:
        raise UsageError(f"{name}: {path} is empty; write the bare secret into it")
    return text
