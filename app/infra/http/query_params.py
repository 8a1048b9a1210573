"""Query parameters and headers: pagination, field selection, stream modes, the last event id.

Ids need nothing from here: declare the path as ``{thread_id:str}`` and the parameter as ``FromPath[UUID]``; an invalid
UUID is answered with 422 and "Invalid thread ID: must be a UUID" (``app.infra.http.problems``).
"""

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Annotated, Any, NamedTuple

import msgspec
from litestar import Request
from litestar.params import QueryParameter

from app.base.errors import Invalid
from app.base.page_bounds import MAX_OFFSET, MAX_PAGE_SIZE
from app.domain.event_id import FROM_THE_START, START, EventId

Limit = Annotated[int, QueryParameter(ge=1, le=MAX_PAGE_SIZE, description="Maximum number of items.")]
Offset = Annotated[int, QueryParameter(ge=0, le=MAX_OFFSET, description="Number of items to skip.")]

_EVENT_ID = re.compile(r"([0-9]{1,10})-([0-9]{1,10})")
MAX_EVENT_NUMBER = 2**31 - 1
"""The largest epoch, and the largest number of a frame in it."""

AnyRequest = Request[Any, Any, Any]

NEXT_PAGE = "X-Pagination-Next"


class Page(NamedTuple):
    """Pagination of a list."""

    limit: int
    offset: int


def page_of(limit: Limit = 10, offset: Offset = 0) -> Page:
    """Return the requested page (a dependency)."""
    return Page(limit, offset)


def page_headers(total: int, offset: int, count: int) -> dict[str, str]:
    """Return the headers of a page of ``count`` items of ``total``; a next offset only if more follow."""
    headers = {"X-Pagination-Total": str(total)}
    if count and offset + count < total:
        headers[NEXT_PAGE] = str(offset + count)
    return headers


def last_event_id(request: AnyRequest) -> EventId | None:
    """Return the event after which a stream resumes; None if the client names none. Raises ``Invalid``."""
    text = request.headers.get("last-event-id")
    if not text:
        return None
    if text in FROM_THE_START:
        return START
    match = _EVENT_ID.fullmatch(text)
    if match is None or int(match[1]) > MAX_EVENT_NUMBER or int(match[2]) > MAX_EVENT_NUMBER:
        raise Invalid("Invalid Last-Event-ID: send an id of this stream (epoch-seq), or -1 for all of it.")
    return EventId(int(match[1]), int(match[2]))


def stream_modes(request: AnyRequest, allowed: Collection[str]) -> list[str] | None:
    """Return the modes in ``stream_mode`` or ``stream_modes``, without duplicates; None if neither is set.

    Accepts repeated parameters, commas and JSON arrays. Raises ``Invalid`` for a mode that is not ``allowed``.
    """
    return choices(request, ("stream_mode", "stream_modes"), "stream mode", allowed)


def select_fields(request: AnyRequest, allowed: Collection[str]) -> list[str] | None:
    """Return the fields in ``select``, in any form that ``stream_modes`` accepts. Raises ``Invalid``."""
    return choices(request, ("select",), "select field", allowed)


def project(things: Iterable[Any], fields: Sequence[str] | None) -> list[Any]:
    """Return ``things`` (structs), or dictionaries with only ``fields``; unset values are left out."""
    if fields is None:
        return list(things)
    shown = [{field: getattr(thing, field) for field in fields} for thing in things]
    return [{field: value for field, value in one.items() if value is not msgspec.UNSET} for one in shown]


def choices(request: AnyRequest, names: Iterable[str], what: str, allowed: Collection[str]) -> list[str] | None:
    """Return the values of the parameters ``names``, without duplicates; None if there are none. Raises ``Invalid``."""
    given = [text for name in names for text in request.query_params.getall(name, [])]
    values = dict.fromkeys(value for text in given for value in _spread(text))
    for value in values:
        if value not in allowed:
            raise Invalid(f"Invalid {what}: {value[:100]}. Use one of {', '.join(sorted(allowed))}.")
    return list(values) or None


def _spread(text: str) -> list[str]:
    if text.startswith("["):
        try:
            return msgspec.json.decode(text, type=list[str])
        except msgspec.DecodeError as error:
            raise Invalid(f"A list in the address must be a JSON array of strings, not {text[:100]}.") from error
    return [part.strip() for part in text.split(",") if part.strip()]
