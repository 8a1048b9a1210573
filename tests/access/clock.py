"""A clock that tests control."""


class Clock:
    """A clock in seconds; tests advance it."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds
