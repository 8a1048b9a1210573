"""``make quick``: run the tests of what changed since ``main``, the most specific ones first.

A test file belongs to a changed module if it imports it; if no test does, those count that import an importer of it.
"""

import ast
import functools
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parent.parent
SLOW = ("abuse", "bench", "deploy", "e2e", "faults", "journeys")
"""Folders that start servers or containers: `make test` runs them."""
MAX_FILES = 12
DISTANCE = 2
"""How many imports away from a changed module a test is looked for."""
PAGES = "tests/test_pages.py"
SCHEMA = "tests/db/test_schema.py"


def git(*arguments: str) -> list[str]:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.split() if done.returncode == 0 else []


def changed_files() -> set[str]:
    """Return the files that differ from ``main`` (from HEAD where there is no such branch), untracked ones included."""
    base = git("merge-base", "HEAD", "main") or ["HEAD"]
    return {*git("diff", "--name-only", base[0]), *git("ls-files", "--others", "--exclude-standard")}


def module_of(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


@functools.cache
def imports(path: str) -> frozenset[str]:
    """Return the dotted names that a file imports, ``from a import b`` as both ``a`` and ``a.b``."""
    found: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(found)


@functools.cache
def sources(folder: str) -> tuple[str, ...]:
    return tuple(path.relative_to(ROOT).as_posix() for path in sorted((ROOT / folder).rglob("*.py")))


def is_quick_test(path: str) -> bool:
    return Path(path).name.startswith("test_") and not path.startswith(tuple(f"tests/{name}/" for name in SLOW))


def importers(modules: Iterable[str], folder: str) -> set[str]:
    wanted = set(modules)
    return {path for path in sources(folder) if imports(path) & wanted}


def tests_of(path: str) -> set[str]:
    """Return the test files that belong to one changed file."""
    if path.endswith(".md"):
        return {PAGES}
    if path.startswith("migrations/"):
        return {SCHEMA}
    if not path.endswith(".py"):
        return set()
    if Path(path).name == "conftest.py":
        return {test for test in sources(str(Path(path).parent)) if is_quick_test(test)}
    found = {path} if path.startswith("tests/") and is_quick_test(path) and (ROOT / path).exists() else set()
    modules = {module_of(path)}
    for _ in range(DISTANCE):
        found |= {test for test in importers(modules, "tests") if is_quick_test(test)}
        if found:
            break
        modules = {module_of(importer) for importer in importers(modules, "app")}
    return found


def selected(changed: Iterable[str]) -> list[str]:
    """Return at most ``MAX_FILES`` test files: changed ones first, then those with the fewest imports."""
    changed = set(changed)
    found = {test for path in changed for test in tests_of(path)}
    return sorted(found, key=lambda test: (test not in changed, len(imports(test)), test))[:MAX_FILES]


def main() -> int:
    """Run pytest on the selected files with the arguments of the command line; return its exit code."""
    tests = selected(changed_files())
    if not tests:
        sys.stdout.write("No quick test belongs to what changed; make test runs all of them.\n")
        return 0
    sys.stdout.write(f"{' '.join(tests)}\n")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *sys.argv[1:], *tests], cwd=ROOT, check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
