"""Namespaces and keys: what they may be, and how they are kept. Pure.

A namespace is kept as its labels with a dot after each (``users.u1.``), ordered by bytes: those below a prefix are one
range of the index, and no label can be mistaken for a part of another.
"""

from collections.abc import Sequence

from app.base.errors import Invalid

MOST_LABELS = 32
LONGEST = 1000
"""Bytes of a namespace with its dots, and of a key."""

APART = "\U0010ffff"
"""Labels that begin with this character, the last one of all, are not a client's: what lies below them is reached by
other ways (the chunks of documents)."""

EVERYWHERE = ("", APART)
"""The range of all namespaces of clients."""

AFTER_DOT = "/"
"""The character after the dot."""

ANY_LABEL = "*"


def path_of(namespace: Sequence[str], field: str = "namespace") -> str:
    """A namespace as it is kept. Raises ``Invalid``, which names ``field``, for labels that cannot be."""
    if len(namespace) > MOST_LABELS:
        raise _bad(f"`{field}` has more than {MOST_LABELS} labels.", f"/{field}")
    for number, label in enumerate(namespace):
        if not label:
            raise _bad(f"`{field}` has an empty label.", f"/{field}/{number}")
        if "." in label:
            shown = label if len(label) <= 100 else f"{label[:100]}…"
            raise _bad(f"`{field}` has the label {shown!r}: a label has no dot.", f"/{field}/{number}")
        if not number and label.startswith(APART):
            raise _bad(f"`{field}` begins with U+10FFFF, which is no character.", f"/{field}/0")
        _check_characters(label, field)
    path = "".join(f"{label}." for label in namespace)
    if len(path.encode()) > LONGEST:
        raise _bad(f"`{field}` is longer than {LONGEST} bytes.", f"/{field}")
    return path


def place_of(namespace: Sequence[str]) -> str:
    """The namespace of one item as it is kept. Raises ``Invalid`` also for one without labels."""
    if not namespace:
        raise _bad("`namespace` needs a label: an item lies in a namespace.", "/namespace")
    return path_of(namespace)


def key_of(key: str) -> str:
    """A key. Raises ``Invalid`` for one that cannot be."""
    if not key:
        raise _bad("`key` must not be empty.", "/key")
    _check_characters(key, "key")
    if len(key.encode()) > LONGEST:
        raise _bad(f"`key` is longer than {LONGEST} bytes.", "/key")
    return key


def labels_of(path: str) -> list[str]:
    """The namespace that is kept as ``path``."""
    return path.split(".")[:-1]


def range_of(path: str) -> tuple[str, str]:
    """From where to before where the namespaces at and below ``path`` lie."""
    return (path, path[:-1] + AFTER_DOT) if path else EVERYWHERE


def _check_characters(text: str, field: str) -> None:
    if "\x00" in text:
        raise _bad(f"`{field}` has a NUL character, which cannot be stored.", f"/{field}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _bad(f"`{field}` is no UTF-8 text.", f"/{field}") from None


def _bad(detail: str, pointer: str) -> Invalid:
    return Invalid(detail, ((pointer, detail),))
