"""Token buckets by the generic cell rate algorithm: one number a bucket, the time at which it will be full again.

Source: ITU-T I.371 (the virtual scheduling form); https://en.wikipedia.org/wiki/Generic_cell_rate_algorithm.
"""

from collections.abc import Callable, Sequence

import msgspec

FULL = 1e-9
"""Seconds that rounding may cost."""

MAX_BUCKETS = 100_000
"""Buckets kept; beyond it the full ones, which tell nothing, are forgotten."""


class BucketTake(msgspec.Struct, frozen=True):
    """``weight`` units out of the bucket ``key``, which holds ``limit`` and fills in ``window`` seconds.

    ``name`` is how clients read of it.
    """

    name: str
    key: str
    limit: float
    window: float = 60.0
    weight: float = 1.0


class BucketResult(msgspec.Struct, frozen=True):
    """Whether all takes were granted. ``left`` and ``reset`` are those of each: units, and seconds until it is full.

    ``refused`` is the place of a take that was not, after ``wait`` seconds all would be; nothing is taken then.
    """

    left: tuple[float, ...]
    reset: tuple[float, ...]
    refused: int | None = None
    wait: float = 0.0


class LocalBuckets:
    """The buckets of one process. ``clock`` counts seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._full_at: dict[str, float] = {}

    def take(self, takes: Sequence[BucketTake], share: float = 1.0) -> BucketResult:
        """Take all or nothing. ``share`` is this process's part of every limit."""
        now = self._clock()
        new: list[float] = []
        refused, wait = None, 0.0
        left, reset = [], []
        for place, one in enumerate(takes):
            step = one.window / (one.limit * share)
            full_at = max(self._full_at.get(one.key, now), now)
            after = full_at + one.weight * step
            over = after - now - max(one.window, step)  # a share of less than one is granted when all of it is there
            if over > FULL:
                refused, wait = place, max(wait, over)
            new.append(after)
            kept = full_at if over > FULL else after
            left.append(max(0.0, (one.window - (kept - now)) / step))
            reset.append(kept - now)
        if refused is None:
            for one, after in zip(takes, new, strict=True):
                self._full_at[one.key] = after
            if len(self._full_at) > MAX_BUCKETS:
                self._full_at = {key: at for key, at in self._full_at.items() if at > now}
        return BucketResult(tuple(left), tuple(reset), refused, wait)

    def charge(self, one: BucketTake, share: float = 1.0) -> None:
        """Take ``weight`` whatever is there; a negative weight gives back."""
        now = self._clock()
        step = one.window / (one.limit * share)
        self._full_at[one.key] = max(self._full_at.get(one.key, now), now) + one.weight * step
