"""The words of the field: what an engineer greps for is what stands here (docs/reference/glossary.md)."""

import functools
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

WORDS = ("nobody", "somebody", "whoever", "anew", "told", "heard", "mend")
"""Words of another time, or without an actor."""

NAMES = (
    *("Entrance", "Parts", "Owned", "Asker", "Told", "Telling", "Boards", "Vitals", "Verdicts", "BELIEVED_SECONDS"),
    *("STRANGERS", "Acting", "Browsers", "Outside", "Turns", "Groups", "Fate", "Pickup", "Enforcing", "Watches"),
    *("Carrier", "Outlet", "Vault", "Shelf", "Flights", "Lately", "Manner", "Rehearsal", "Station", "Recollection"),
    *("Wording", "Asking", "Whose"),
)
"""Class names that said something else than they meant."""

EXCEPTIONS = {
    "tests/test_vocabulary.py": "names the words",
    "CHANGELOG.md": "tells what was",
    "docs/examples/": "people talk there",
    "app/infra/db/embedded.py": "an operating system has a user of that name",
}
"""Files, and folders, where the words may stand, and why."""


@functools.cache
def texts() -> list[tuple[str, str]]:
    """Every text of the repository that is written by hand, with its path."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    found: list[tuple[str, str]] = []
    for name in listed.split("\0"):
        path = ROOT / name
        if name.startswith((*EXCEPTIONS, "migrations/versions/", "app/infra/http/assets/")) or not path.is_file():
            continue
        if path.suffix in {".py", ".md", ".toml", ".yml", ".yaml", ".sh", ""} and "requirements/" not in name:
            found.append((name, path.read_text(encoding="utf-8")))
    return found


def found(pattern: str, *, only: str = "", flags: int = 0) -> list[str]:
    """Where ``pattern`` stands as a whole word, as ``file:line word``."""
    whole = re.compile(rf"(?<![\w/])(?:{pattern})(?![\w/])", flags)
    return [
        f"{name}:{number} {word}"
        for name, text in texts()
        if name.endswith(only)
        for number, line in enumerate(text.split("\n"), 1)
        for word in whole.findall(line)
    ]


@pytest.mark.parametrize("word", WORDS)
def test_words_that_say_nothing_are_not_used(word: str) -> None:
    assert found(word, flags=re.IGNORECASE) == []


def test_classes_have_the_names_of_the_field() -> None:
    assert found(f"class (?:{'|'.join(NAMES)})", only=".py") == []
