"""JSON text that is not complete yet, read as far as it goes."""

from typing import Any

import msgspec


def read_partial(text: str) -> dict[str, Any]:
    """The object that ``text`` begins; empty while nothing can be made of it.

    What is open is closed: a text and a nested value keep what is there, a member without a value is left out.
    """
    for end in _ends(text):
        try:
            found = msgspec.json.decode(end)
        except (msgspec.DecodeError, RecursionError):
            continue
        return found if isinstance(found, dict) else {}
    return {}


def _ends(text: str) -> list[str]:
    """Ways to close ``text``, the one that keeps most first."""
    open_: list[str] = []
    in_string = escaped = False
    last_member = 0
    for place, character in enumerate(text):
        if in_string:
            if escaped:
                escaped = False
            elif character == "\\":
                escaped = True
            elif character == '"':
                in_string = False
        elif character == '"':
            in_string = True
        elif character in "{[":
            open_.append(character)
            last_member = place + 1
        elif character == ",":
            last_member = place
        elif character in "}]" and open_:
            open_.pop()
    closing = "".join("}" if bracket == "{" else "]" for bracket in reversed(open_))
    shorter = text[:last_member] + closing
    if in_string:
        whole = text[:-1] if escaped else text
        return [whole + '"' + closing, shorter]
    trimmed = text.rstrip()
    return [trimmed + closing, trimmed.rstrip(",") + closing, shorter]
