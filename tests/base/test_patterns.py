"""Every regular expression of the program is linear on the worst text, or works on a text of bounded length.

Each pattern in the sources is found by its call of ``re``. From its parse tree come texts that make a matcher go back:
what leads to each repetition, what it repeats, thousands of times, and an end that does not match. A linear pattern
takes about a millisecond for them, a quadratic one seconds.
"""

import ast
import importlib
import re
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from re import _constants as c
from re import _parser as parser
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
FUNCTIONS = {"compile", "search", "match", "fullmatch", "findall", "finditer", "split", "sub"}
LENGTH = 20_000
SECONDS = 0.25
"""CPU time for one text: twenty times what a linear pattern takes, a twentieth of what a quadratic one does."""

LIMIT = SECONDS / 4
"""The same, to find the patterns that are known to be quadratic or worse."""

OWN_TEXT = {
    "app/agents/config/agents_file.py": "the operator's agents file",
    "app/cli/": "files and pages of the operator, read by a command of theirs",
    "app/infra/db/statement_tracing.py": "our own SQL",
    "app/infra/db/embedded.py": "the log of our own database",
    "app/infra/db/folder_lock.py": "our own lock file",
    "app/agents/tools/function_tool.py": "the source of the operator's tools",
}
"""Where patterns see no text from outside, and whose it is."""

BOUNDED = {
    "app/providers/llm/demo.py": 2000,  # MAX_TEXT
    "app/infra/http/host_and_cors.py": 16_000,  # a header: the server takes no longer ones
}
"""Characters of the longest text that the patterns of a file see, where it is cut before."""


class Pattern(NamedTuple):
    place: str
    line: int
    compiled: re.Pattern[Any]
    uses: frozenset[str]


def _calls(tree: ast.AST) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id == "re"
            and node.func.attr in FUNCTIONS
        ):
            yield node


def _methods(sources: Iterable[str]) -> dict[str, set[str]]:
    """The methods that any source calls on a name."""
    found: dict[str, set[str]] = defaultdict(set)
    for text in sources:
        for name, method in re.findall(r"\b(\w+)\.([a-z]+)\(", text):
            found[name].add(method)
    return found


def patterns() -> list[Pattern]:
    sources = {path: path.read_text("utf-8") for path in sorted((ROOT / "app").rglob("*.py"))}
    methods = _methods(sources.values())
    found: list[Pattern] = []
    for path, text in sources.items():
        place = path.relative_to(ROOT).as_posix()
        if place.startswith(tuple(OWN_TEXT)) or "re." not in text:
            continue
        tree = ast.parse(text)
        names = {
            id(node.value): node.targets[0].id
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        }
        for call in _calls(tree):
            module = importlib.import_module(place.removesuffix(".py").replace("/", "."))
            arguments = [ast.unparse(one) for one in (call.args[:2] if call.func.attr == "compile" else call.args[:1])]  # type: ignore[attr-defined]
            compiled = eval(f"re.compile({', '.join(arguments)})", {**vars(module), "re": re})
            method = call.func.attr  # type: ignore[attr-defined]
            uses = methods.get(names.get(id(call), ""), {"search"}) if method == "compile" else {method}
            found.append(Pattern(place, call.lineno, compiled, frozenset(uses)))
    return found


def sample(parts: Any) -> str:
    """A short text that ``parts`` of a parse tree match (nearly: look-arounds are passed over)."""
    return "".join(_sample_of(operator, value) for operator, value in parts)


def _sample_of(operator: Any, value: Any) -> str:
    if operator is c.LITERAL:
        return chr(value)
    if operator is c.NOT_LITERAL:
        return "b" if value == ord("a") else "a"
    if operator is c.ANY:
        return "a"
    if operator is c.IN:
        return _member(value)
    if operator in {c.MAX_REPEAT, c.MIN_REPEAT, c.POSSESSIVE_REPEAT}:
        return sample(value[2]) * int(max(1, value[0]))
    if operator is c.SUBPATTERN:
        return sample(value[3])
    if operator is c.ATOMIC_GROUP:
        return sample(value)
    if operator is c.BRANCH:
        return sample(value[1][0])
    return ""


def _member(choices: Any) -> str:
    pattern = re.compile(_class(choices), re.DOTALL)
    return next((char for char in 'a0 \\"`_-.:,(/\n\tA!éx' if pattern.match(char)), "a")


def _class(choices: Any) -> str:
    categories = {
        c.CATEGORY_DIGIT: r"\d", c.CATEGORY_SPACE: r"\s", c.CATEGORY_WORD: r"\w",
        c.CATEGORY_NOT_DIGIT: r"\D", c.CATEGORY_NOT_SPACE: r"\S", c.CATEGORY_NOT_WORD: r"\W",
    }  # fmt: skip
    text = ""
    for operator, value in choices:
        if operator is c.NEGATE:
            text += "^"
        elif operator is c.LITERAL:
            text += re.escape(chr(value))
        elif operator is c.RANGE:
            text += f"{re.escape(chr(value[0]))}-{re.escape(chr(value[1]))}"
        elif operator is c.CATEGORY:
            text += categories[value]
    return f"[{text}]"


def repeated(parts: Any, before: str = "") -> Iterator[tuple[str, str]]:
    """What leads to each repetition in a parse tree, and what it repeats."""
    for operator, value in parts:
        if operator in {c.MAX_REPEAT, c.MIN_REPEAT, c.POSSESSIVE_REPEAT}:
            yield before, sample(value[2])
            yield from repeated(value[2], before)
        elif operator is c.SUBPATTERN:
            yield from repeated(value[3], before)
        elif operator is c.ATOMIC_GROUP:
            yield from repeated(value, before)
        elif operator is c.BRANCH:
            for branch in value[1]:
                yield from repeated(branch, before)
                yield before, sample(branch)
        before += _sample_of(operator, value)
    if before:
        yield "", before


def attacks(pattern: re.Pattern[Any], length: int) -> Iterator[str]:
    source = pattern.pattern.decode("latin-1") if isinstance(pattern.pattern, bytes) else pattern.pattern
    tree = parser.parse(source, pattern.flags & ~re.UNICODE if isinstance(pattern.pattern, bytes) else pattern.flags)
    for before, body in dict.fromkeys(repeated(tree)):
        for once in {body, before + body, before, f"{before} "} - {""}:
            for end in ("", "\x01", "\n"):
                yield before + once * (length // len(once)) + end
    for once in ('\\"', "\\", '"', " ", "\n", "(", "[{", "a", "0", "a ", "`", " - at `$"):
        yield once * (length // len(once)) + "\x01"


def seconds(pattern: Pattern, text: str | bytes) -> float:
    work: dict[str, Any] = {
        "search": pattern.compiled.search,
        "match": pattern.compiled.match,
        "fullmatch": pattern.compiled.fullmatch,
        "findall": pattern.compiled.findall,
        "finditer": pattern.compiled.findall,
        "split": pattern.compiled.split,
        "sub": pattern.compiled.findall,
    }
    began = time.thread_time()
    for use in pattern.uses & work.keys():
        work[use](text)
    return time.thread_time() - began


def sizes(length: int) -> Iterator[int]:
    """Lengths up to ``length``: exponential time grows by a small factor at each, polynomial time too."""
    size = 12.0
    while size < length:
        yield int(size)
        size += 2 if size < 60 else size
    yield length


def worst(pattern: Pattern, length: int = LENGTH, limit: float = SECONDS) -> tuple[float, str]:
    """The longest time that a text takes, up to ``limit``, and the beginning of that text.

    Short texts go first: some grow fast.
    """
    slowest = (0.0, "")
    for size in sizes(length):
        for attack in attacks(pattern.compiled, size):
            text = attack.encode("latin-1", "replace") if isinstance(pattern.compiled.pattern, bytes) else attack
            took = seconds(pattern, text)
            if took > limit:  # a busy machine may have slowed it down once, but not each time
                took = min(took, *(seconds(pattern, text) for _ in range(2)))
            slowest = max(slowest, (took, attack[:60]))
            if slowest[0] > limit:
                return slowest
    return slowest


@pytest.mark.parametrize("pattern", patterns(), ids=lambda pattern: f"{pattern.place}:{pattern.line}")
def test_a_pattern_on_text_from_outside_takes_linear_time(pattern: Pattern) -> None:
    took, text = worst(pattern, BOUNDED.get(pattern.place, LENGTH))
    assert took <= SECONDS, f"{pattern.compiled.pattern!r} takes {took:.2f} s for a text like {text!r}"


@pytest.mark.parametrize(
    "source",
    [
        r'"(?:[^"\\]|\\.)*"',
        r"\b(list|show|read|what are)\b[^.?!]*\bnotes\b",
        r"(a+)+b",
        r"\s+$",
        r"(?:x|xx)*y",
        r"a*a*a*b",
    ],
)
def test_the_check_finds_nonlinear_patterns(source: str) -> None:
    """With a lower limit, which is reached sooner and which no linear pattern reaches either."""
    took, _ = worst(Pattern("", 0, re.compile(source), frozenset({"search"})), limit=LIMIT)
    assert took > LIMIT


def test_every_list_of_exceptions_names_what_exists() -> None:
    for place in [*OWN_TEXT, *BOUNDED]:
        assert (ROOT / place).exists(), place
