"""Checks that no secret of this environment leaks into responses or logs."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote, unquote

from app.base.errors import UsageError
from app.cli.doctor import server
from app.cli.doctor.checklist import Checklist, CheckUnavailable
from app.cli.doctor.deployment import DeployedServer
from app.infra.settings.environment import Settings, variables

AREA = "secrets"
MIN_LENGTH = 6
"""Characters a secret needs to be searched for: a shorter one would be found everywhere."""
MAX_WORD_LENGTH = 20
"""Letters up to which a secret may be an ordinary word, which pages and logs contain anyway."""
API_KEY_PATTERN = re.compile(r"as_[0-9A-Za-z-]{8,}_[0-9A-Za-z_-]{20,}")
_PASSWORD = re.compile(r"^[a-z]+://[^/@:]*:([^@]*)@")


def is_ordinary(text: str) -> bool:
    """Whether a secret is too short or too much like a word ("agents", "postgres-16") to search for."""
    word = text.rstrip("0123456789").translate({ord(separator): None for separator in "-_. "})
    return len(text) < MIN_LENGTH or (len(text) < MAX_WORD_LENGTH and (word.isalpha() or text.isdecimal()))


def known(settings: Settings, key: str) -> tuple[dict[str, str], list[str]]:
    """Return the searchable secrets by variable, and the variables whose secret is too ordinary to search for.

    For URLs the password counts.
    """
    found = {"--key-file": key.rpartition("_")[2]} if key else {}
    for variable in variables():
        if variable.is_secret and (secret := settings.read_secret(variable.name)):
            text = secret.reveal()
            if "://" in text:
                match = _PASSWORD.match(text)
                text = match[1] if match else ""
            found[variable.name] = text
    ordinary = [name for name, text in found.items() if text and is_ordinary(text)]
    return {name: text for name, text in found.items() if not is_ordinary(text)}, ordinary


def _not_searched(ordinary: list[str]) -> str:
    return f"; not searched for, because a random one is needed: {', '.join(ordinary)}" if ordinary else ""


def forms(secrets: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield each secret in its plain and its percent-encoded forms."""
    for name, text in secrets.items():
        for form in {text, unquote(text), quote(text, safe="")}:
            yield name, form


def in_answers(
    checklist: Checklist, api: DeployedServer, metrics: DeployedServer, secrets: Mapping[str, str], ordinary: list[str]
) -> None:
    """Check the pages that need no key."""

    def evaluate() -> tuple[bool, str]:
        found = []
        for path in server.PAGES:
            text = (metrics if path == "/metrics" else api).request(path).text
            found += [f"{name} in {path}" for name, form in forms(secrets) if form in text]
        seen = ", ".join(sorted(set(found))) or f"none of {len(secrets)} in {len(server.PAGES)} answers"
        return not found, seen + _not_searched(ordinary)

    if not secrets:
        checklist.omit(AREA, "none in answers", f"this environment has no secret{_not_searched(ordinary)}")
        return
    name = next(iter(secrets))
    command = f'{metrics.curl("/metrics")} | grep -cF "${name}"' if name[0] != "-" else metrics.curl("/metrics")
    checklist.check(AREA, "none in answers", command, "0, for every secret and page", evaluate)


def in_logs(checklist: Checklist, logs: list[str], secrets: Mapping[str, str]) -> None:
    """Check each log file."""
    if not logs:
        checklist.omit(AREA, "none in logs", "no --log")
    for log in logs:
        command = f"grep -cF \"$AGENT_KEY_PEPPER\" {log}; grep -cE '{API_KEY_PATTERN.pattern}' {log}"
        checklist.check(AREA, "none in logs", command, "0, for every secret", lambda log=log: _log(Path(log), secrets))  # type: ignore[misc]


def _log(path: Path, secrets: Mapping[str, str]) -> tuple[bool, str]:
    every = list(forms(secrets))
    found: dict[str, int] = {}
    lines = 0
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            for lines, line in enumerate(file, 1):
                for name, form in every:
                    if form in line:
                        found.setdefault(name, lines)
                if API_KEY_PATTERN.search(line):
                    found.setdefault("an API key", lines)
    except OSError as error:
        raise UsageError(f"--log {path} cannot be read ({error.strerror})") from error
    if not lines:
        raise CheckUnavailable(f"{path} is empty")
    words = ", ".join(f"{name} in line {number}" for name, number in sorted(found.items()))
    return not found, words or f"none in {lines} lines ({len(secrets)} known secrets, and the API key format)"
