"""Exceptions of user code that cannot be shown. Reporting one must not fail."""


class Mute(Exception):
    """An exception that cannot be converted to text."""

    def __str__(self) -> str:
        raise ValueError("no text")


class Leaving(BaseException):
    """An exception whose text ends the process."""

    def __str__(self) -> str:
        raise SystemExit


class Blank(Exception):
    """An exception without a traceback."""

    @property
    def __traceback__(self) -> None:  # type: ignore[override]
        raise RuntimeError("no traceback")


class Closed(Exception):
    """An exception that answers no question, not even that for its class."""

    def __getattribute__(self, name: str) -> object:
        raise KeyError(name)
