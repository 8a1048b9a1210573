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
    open_, in_string, escaped = _scan(text)
    closing = "".join("}" if bracket == "{" else "]" for bracket in reversed(open_))
    if in_string:
        whole = text[:-1] if escaped else text
        return [whole + '"' + closing, _without_last_member(text) + closing]
    trimmed = text.rstrip()
    return [trimmed + closing, trimmed.rstrip(",") + closing, _without_last_member(text) + closing]


def _scan(text: str) -> tuple[list[str], bool, bool]:
    """The brackets that are open at the end of ``text``, whether it ends in a string, and in an escape there."""
    open_: list[str] = []
    in_string = escaped = False
    for character in text:
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
        elif character in "}]" and open_:
            open_.pop()
    return open_, in_string, escaped


def _without_last_member(text: str) -> str:
    """``text`` up to the last comma or bracket that is outside of every string and opens something."""
    in_string = escaped = False
    cut = 0
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
            cut = place + 1
        elif character == ",":
            cut = place
    return text[:cut]
