"""The scan of a body agrees with a plain parser."""

from hypothesis import example, given
from hypothesis import strategies as st

from app.base.errors import BadRequest, Invalid
from app.base.json_scan import MAX_DEPTH, check


def slowly(body: bytes) -> str:
    """What ``check`` should say ("ok", "escape", "deep" or "unequal"), found by walking through the text."""
    inside = escaped = False
    depth = deepest = 0
    units: list[int] = []
    closed_before_open = False
    at = 0
    while at < len(body):
        char = body[at : at + 1]
        if escaped:
            escaped = False
            digits = body[at + 1 : at + 5]
            is_unit = char == b"u" and len(digits) == 4 and all(digit in b"0123456789abcdefABCDEF" for digit in digits)
            units.append(int(digits, 16) if is_unit else -1)
            at += 5 if is_unit else 1
            continue
        if char == b"\\":
            escaped = True
        else:
            units.append(-1)
            if char == b'"':
                inside = not inside
            elif not inside and char in {b"[", b"{"}:
                depth += 1
                deepest = max(deepest, depth)
            elif not inside and char in {b"]", b"}"}:
                depth -= 1
                closed_before_open = closed_before_open or depth < 0
        at += 1
    if _bad_unit(units):
        return "escape"
    if deepest > MAX_DEPTH:
        return "deep"
    return "unequal" if depth or closed_before_open else "ok"


def _bad_unit(units: list[int]) -> bool:
    at = 0
    while at < len(units):
        if units[at] == 0 or 0xDC00 <= units[at] <= 0xDFFF:
            return True
        if 0xD800 <= units[at] <= 0xDBFF:
            if not (at + 1 < len(units) and 0xDC00 <= units[at + 1] <= 0xDFFF):
                return True
            at += 1
        at += 1
    return False


def quickly(body: bytes) -> str:
    try:
        check(body)
    except BadRequest as error:
        return "deep" if "levels" in str(error) else "escape"
    except Invalid:
        return "unequal"
    return "ok"


# Pieces of JSON-like text: strings whole with their escapes, brackets in runs, so that interesting cases are frequent.
ESCAPES = [
    "\\\\",
    '\\"',
    "\\n",
    "\\u0000",
    "\\u0041",
    "\\ud83d",
    "\\ude00",
    "\\uD83D\\uDE00",
    "u0000",
    "ud800",
    "[",
    "}",
    "é",
    "x",
]
TEXTS = st.lists(st.sampled_from(ESCAPES), max_size=12).map(lambda parts: '"' + "".join(parts) + '"')
VALUES = st.recursive(
    TEXTS | st.just("1"),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(lambda parts: "[" + ",".join(parts) + "]"),
        st.lists(st.tuples(TEXTS, inner), max_size=3).map(
            lambda pairs: "{" + ",".join(f"{key}:{value}" for key, value in pairs) + "}"
        ),
        st.tuples(st.integers(1, 70), inner).map(lambda pair: "[" * pair[0] + pair[1] + "]" * pair[0]),
    ),
    max_leaves=12,
)


@given(VALUES)
@example('[["[\\\\"],["]"]]')
def test_the_scan_agrees_with_a_plain_parser(text: str) -> None:
    body = text.encode()
    assert quickly(body) == slowly(body)


@given(st.lists(st.sampled_from([*ESCAPES, '"', "[" * 30, "]" * 30, "{" * 40, "}" * 40, "\\"]), max_size=40))
def test_no_text_that_nests_too_deep_passes(parts: list[str]) -> None:
    body = "".join(parts).encode()
    if slowly(body) == "deep":
        assert quickly(body) != "ok"
