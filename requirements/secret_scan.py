"""Scan the tracked files, and all files and commit messages in HEAD's history, for secrets.

A finding has the location, the kind and only the start of the secret. Values that tests and examples need are in
``requirements/secrets_allowed.toml``, each with a reason. Usage: python -m requirements.secret_scan [FOLDER]
"""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

KINDS = {
    "key of a model provider": rb"\bsk-(?:ant-|proj-|or-|svcacct-)?[A-Za-z0-9_-]{24,}|\bAIza[0-9A-Za-z_-]{35}"
    rb"|\b(?:gsk|xai|hf|pplx)[_-][A-Za-z0-9]{30,}",
    "key of this server": rb"\bas_[0-9a-f]{16}_[A-Za-z0-9_-]{43}",
    "private key": rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----",
    "AWS": rb"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"
    rb"|(?i:aws_secret_access_key)[\"']?\s*[=:]\s*[\"']?[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+])",
    "GitHub": rb"\bgh[pousr]_[A-Za-z0-9]{30,}|\bgithub_pat_[A-Za-z0-9_]{50,}",
    "Slack": rb"\bxox[abeprs]-[0-9A-Za-z-]{20,}|hooks\.slack\.com/services/T[0-9A-Z]+/B[0-9A-Z]+/[0-9A-Za-z]{16,}",
    "token (JWT)": rb"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{16,}",
    "password in an address": rb"\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@\"'`<>{}$%()]{0,80}:[^\s/:@\"'`<>{}$()]{3,120}@[\w\[]",
    "address of a package index": rb"--(?:extra-)?index-url[ =]https?:\S+|https?://[^\s\"']+/simple/?(?=[\s\"']|$)"
    rb"|https?://[\w.-]*(?:pypi\b|pythonhosted|npmjs)",
}
PATTERN = re.compile(b"|".join(b"(?P<k%d>%s)" % (number, text) for number, text in enumerate(KINDS.values())))
NAMES = tuple(KINDS)

ALLOWED = Path("requirements") / "secrets_allowed.toml"
SHOWN = 8
MAX_FILE_BYTES = 20_000_000
"""Bytes; larger files are not scanned."""


class Finding(NamedTuple):
    """A secret; ``where`` is its path, with the object id if it is in the history."""

    where: str
    line: int
    kind: str
    value: str

    def __str__(self) -> str:
        return f"{self.where}:{self.line}: {self.kind}: {self.value[:SHOWN]}…"


class Allowed(NamedTuple):
    """Allowed values of a kind, as a pattern for the whole value."""

    kind: str
    pattern: re.Pattern[str]


def allowed(folder: Path) -> list[Allowed]:
    """Read the allowed values of ``folder``. Raises ``ValueError`` for an entry without a reason."""
    file = folder / ALLOWED
    entries = tomllib.loads(file.read_text(encoding="utf-8"))["allowed"] if file.is_file() else []
    for entry in entries:
        if entry["kind"] not in KINDS or not entry["reason"].strip():
            raise ValueError(f"{ALLOWED}: each entry needs a known kind and a reason: {entry}")
    return [Allowed(entry["kind"], re.compile(entry["value"])) for entry in entries]


def found_in(where: str, content: bytes) -> Iterator[Finding]:
    """Yield the secrets in a file; none if it is binary."""
    if b"\0" in content[:8000] or len(content) > MAX_FILE_BYTES:
        return
    for match in PATTERN.finditer(content):
        kind = NAMES[int((match.lastgroup or "k0")[1:])]
        line = content.count(b"\n", 0, match.start()) + 1
        yield Finding(where, line, kind, match.group().decode("utf-8", "replace"))


def _git(folder: Path, *words: str, given: bytes = b"") -> bytes:
    return subprocess.run(["git", *words], cwd=folder, input=given, capture_output=True, check=True).stdout  # noqa: S607


def tree(folder: Path) -> Iterator[Finding]:
    """Yield the secrets in the tracked files."""
    for name in _git(folder, "ls-files", "-z").decode().split("\0"):
        path = folder / name
        if name and path.is_file() and not path.is_symlink():
            yield from found_in(name, path.read_bytes())


def history(folder: Path) -> Iterator[Finding]:
    """Yield the secrets in all file versions and commit messages of HEAD's history."""
    listed = _git(folder, "rev-list", "--objects", "HEAD").decode("utf-8", "replace").splitlines()
    names = {line[:40]: line[41:] or "message" for line in listed}
    # in chunks, to bound the memory
    ids = list(names)
    for start in range(0, len(ids), 500):
        chunk = ids[start : start + 500]
        answer = _git(folder, "cat-file", "--batch", given="\n".join(chunk).encode() + b"\n")
        at = 0
        while at < len(answer):
            end = answer.index(b"\n", at)
            object_id, kind, size = answer[at:end].decode().split()
            content = answer[end + 1 : end + 1 + int(size)]
            at = end + 2 + int(size)
            if kind in {"blob", "commit"}:
                yield from found_in(f"{object_id[:12]} {names[object_id]}", content)


def scan(folder: Path) -> tuple[list[Finding], int]:
    """Return the findings that are not allowed, and the number of allowed ones."""
    rules = allowed(folder)
    found: list[Finding] = []
    passed = 0
    seen: set[tuple[str, str, str]] = set()
    for finding in (*tree(folder), *history(folder)):
        if any(rule.kind == finding.kind and rule.pattern.fullmatch(finding.value) for rule in rules):
            passed += 1
        elif (same := (finding.where.rpartition(" ")[2], finding.kind, finding.value)) not in seen:
            seen.add(same)
            found.append(finding)
    return found, passed


def main(words: Sequence[str]) -> int:
    """Print the findings; return 1 if there are any."""
    found, passed = scan(Path(words[0]) if words else Path(__file__).parent.parent)
    for finding in found:
        print(finding)
    if found:
        print(
            f"{len(found)} secrets. Revoke them at once; removing them from a file does not remove them from history."
        )
        return 1
    print(f"no secrets in the files and their history ({passed} allowed values)")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
