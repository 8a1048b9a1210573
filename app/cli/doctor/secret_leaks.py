"""Rows about secrets: none of those that this environment knows may stand in an answer or in a log."""

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
"""Characters of a secret that can be searched for: a shorter one would be found everywhere."""
MAX_WORD_LENGTH = 20
"""Letters of a secret that may be an ordinary word, which pages and logs contain anyway."""
OUR_KEY = re.compile(r"as_[0-9A-Za-z-]{8,}_[0-9A-Za-z_-]{20,}")
_PASSWORD = re.compile(r"^[a-z]+://[^/@:]*:([^@]*)@")


def is_ordinary(text: str) -> bool:
    """Whether a secret is too short, or too much like a word ("agents", "postgres-16"), to be found by a search."""
    word = text.rstrip("0123456789").translate({ord(separator): None for separator in "-_. "})
    return len(text) < MIN_LENGTH or (len(text) < MAX_WORD_LENGTH and (word.isalpha() or text.isdecimal()))


def known(settings: Settings, key: str) -> tuple[dict[str, str], list[str]]:
    """The secrets of this environment that can be searched for, by variable, and the variables whose secret cannot.

    Of an address the password counts.
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


def _left_out(ordinary: list[str]) -> str:
    return f"; not searched for, because a random one is needed: {', '.join(ordinary)}" if ordinary else ""


def forms(secrets: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Each secret as it may stand in a text."""
    for name, text in secrets.items():
        for form in {text, unquote(text), quote(text, safe="")}:
            yield name, form


def in_answers(
    sheet: Checklist, site: DeployedServer, metrics: DeployedServer, secrets: Mapping[str, str], ordinary: list[str]
) -> None:
    """The row about what anybody may read."""

    def look() -> tuple[bool, str]:
        found = []
        for path in server.PAGES:
            text = (metrics if path == "/metrics" else site).ask(path).text
            found += [f"{name} in {path}" for name, form in forms(secrets) if form in text]
        seen = ", ".join(sorted(set(found))) or f"none of {len(secrets)} in {len(server.PAGES)} answers"
        return not found, seen + _left_out(ordinary)

    if not secrets:
        sheet.leave(AREA, "none in answers", f"this environment knows no secret{_left_out(ordinary)}")
        return
    name = next(iter(secrets))
    command = f'{metrics.curl("/metrics")} | grep -cF "${name}"' if name[0] != "-" else metrics.curl("/metrics")
    sheet.ask(AREA, "none in answers", command, "0, for every secret and page", look)


def in_logs(sheet: Checklist, logs: list[str], secrets: Mapping[str, str]) -> None:
    """A row for each file."""
    if not logs:
        sheet.leave(AREA, "none in logs", "no --log")
    for log in logs:
        command = f"grep -cF \"$AGENT_KEY_PEPPER\" {log}; grep -cE '{OUR_KEY.pattern}' {log}"
        sheet.ask(AREA, "none in logs", command, "0, for every secret", lambda log=log: _log(Path(log), secrets))  # type: ignore[misc]


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
                if OUR_KEY.search(line):
                    found.setdefault("an API key", lines)
    except OSError as error:
        raise UsageError(f"--log {path} cannot be read ({error.strerror})") from error
    if not lines:
        raise CheckUnavailable(f"{path} is empty")
    words = ", ".join(f"{name} in line {number}" for name, number in sorted(found.items()))
    return not found, words or f"none in {lines} lines ({len(secrets)} known secrets, and the form of our keys)"
