"""Bounds of a page of a list, for every route that lists something."""

from app.base.errors import Invalid

MAX_PAGE_SIZE = 1000
MAX_OFFSET = 2**31 - 1
"""The largest offset that a statement takes (an ``int`` of PostgreSQL)."""


def check_page(limit: int, offset: int = 0) -> None:
    """Validate a page. Raises ``Invalid``."""
    if not 1 <= limit <= MAX_PAGE_SIZE:
        raise Invalid(f"`limit` must be from 1 to {MAX_PAGE_SIZE}.", (("/limit", "out of range"),))
    if not 0 <= offset <= MAX_OFFSET:
        raise Invalid(f"`offset` must be from 0 to {MAX_OFFSET}.", (("/offset", "out of range"),))
