"""Token buckets by the generic cell rate algorithm: per bucket one number, the time at which it will be full again.

Source: ITU-T I.371 (the virtual scheduling form); https://en.wikipedia.org/wiki/Generic_cell_rate_algorithm.
"""

from collections.abc import Callable, Sequence

import msgspec

FULL = 1e-9
"""Tolerance for rounding, in seconds."""

MAX_BUCKETS = 100_000
"""Buckets until in memory; beyond it full ones are evicted, which loses nothing."""


class BucketTake(msgspec.Struct, frozen=True):
    """``weight`` units from the bucket ``key``, which holds ``limit`` and refills in ``window`` seconds.

    ``name`` is the limit's name in responses.
    """

    name: str
    key: str
    limit: float
    window: float = 60.0
    weight: float = 1.0


class BucketResult(msgspec.Struct, frozen=True):
    """Whether all takes were granted, and for each the units ``left`` and the seconds to its ``reset`` (until it is
    full).

    ``refused`` is the index of a refused take; after ``wait`` seconds all would be granted. Nothing is taken then.
    """

    left: tuple[float, ...]
    reset: tuple[float, ...]
    refused: int | None = None
    wait: float = 0.0


class LocalBuckets:
    """Token buckets of one process. ``clock`` counts seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._full_at: dict[str, float] = {}

    def take(self, takes: Sequence[BucketTake], share: float = 1.0) -> BucketResult:
        """Take from all buckets or from none. ``share`` is this process's part of every limit."""
        now = self._clock()
        new: list[float] = []
        refused, wait = None, 0.0
        left, reset = [], []
        for index, one in enumerate(takes):
            step = one.window / (one.limit * share)
            full_at = max(self._full_at.get(one.key, now), now)
            after = full_at + one.weight * step
            excess = after - now - max(one.window, step)  # a share below one unit is granted once the bucket is full
            if excess > FULL:
                refused, wait = index, max(wait, excess)
            new.append(after)
            until = full_at if excess > FULL else after
            left.append(max(0.0, (one.window - (until - now)) / step))
            reset.append(until - now)
        if refused is None:
            for one, after in zip(takes, new, strict=True):
                self._full_at[one.key] = after
            if len(self._full_at) > MAX_BUCKETS:
                self._full_at = {key: at for key, at in self._full_at.items() if at > now}
        return BucketResult(tuple(left), tuple(reset), refused, wait)

    def charge(self, one: BucketTake, share: float = 1.0) -> None:
        """Take ``weight`` whatever the bucket holds; a negative weight gives back."""
        now = self._clock()
        step = one.window / (one.limit * share)
        self._full_at[one.key] = max(self._full_at.get(one.key, now), now) + one.weight * step
