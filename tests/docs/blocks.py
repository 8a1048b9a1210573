"""The fenced blocks of the pages: what is a file, what is run, and which output is shown for it."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    *sorted(page for page in (ROOT / "docs").rglob("*.md") if "decisions" not in page.parts),
]
RUN = ("python", "sh")
FILES = ("python", "toml", "sql")
OUTPUT = ("text", "json")
FOREIGN = {
    "js": "needs a front end's build; tests/protocols/ speak the wire that it speaks",
    "jsx": "the same; tests/suites/test_react.py builds such a page",
}
"""Languages whose blocks are not run, and why."""

NOT_RUN = {
    "PGPASSWORD=": "tests/graphs/test_import.py brings the tables of another server",
    "make": "sets up or stops a whole environment; CI itself starts with `make check`",
    "podman": "needs containers: `make e2e`",
    "kubectl": "needs a cluster; tests/deploy/test_kubernetes.py validates the manifests",
    "cp": "copies units for systemd; tests/deploy/ compares them with compose.yaml",
    "systemctl": "needs systemd",
    ".venv/bin/python": "changes the environment of the tests, or needs minutes",
    "source": "activates the reader's environment, which the tests have",
    "pg_dump": "tests/journeys/test_backup.py runs it, between two PostgreSQL servers",
    "pg_restore": "tests/journeys/test_backup.py runs it",
    "export": "names the reader's database and secrets",
    "pip": "changes the environment of the tests",
    "npm install": "takes packages from a registry; tests/suites/test_react.py runs the page",
    "npx": "the same",
    "python3 -m http.server": "the same",
    "git clone": "tests/suites/test_agent_chat_ui.py runs that application",
    "cd agent-chat-ui": "the same",
    "pnpm": "the same",
    "agent-service mcp list": "needs servers of tools; tests/mcp_tools/ has its own",
    "agent-service mcp inspect": "the same",
    "agent-service mcp call": "the same",
    "agent-service mcp diff": "the same",
    "agent-service mcp accept": "the same",
    "agent-service dev": "runs until it is stopped; tests/cli/test_dev.py",
    "agent-service serve": "runs until it is stopped; tests/serving/, and the server of this suite",
    "agent-service migrate": "tests/journeys/test_backup.py and tests/cli/ run it on empty databases",
    "agent-service doctor": "judges a deployment, not a test; tests/cli/test_doctor.py",
    "HOST": "serves behind a proxy; tests/journeys/test_proxy.py",
    "for name in POSTGRES": "names container images",
    "echo": "writes the reader's database address for Kubernetes",
    "sed": "edits the reader's .env",
    "curl -s http://127.0.0.1:8000/api/v1/runs -H": "calls a webhook on another host; tests/webhooks/",
}
"""What is not run here, by how a command begins, and why."""

PROJECTS = {
    "langgraph.md": "names the graphs of a whole project: tests/graphs/",
    "a2a.md": "names an agent that is not here: tests/protocols/test_a2a_client.py",
    "mcp-tools.md": "names servers of tools that are not here: tests/mcp_tools/",
}
"""Pages whose agents files are read, but whose agents are not loaded here, and why."""


@dataclass(frozen=True)
class Block:
    """A fenced block. ``output`` is the text of the block after it, if that shows what it prints."""

    page: Path
    line: int
    language: str
    title: str
    text: str
    output: str | None = None

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT)}, line {self.line}"

    @property
    def is_run(self) -> bool:
        return self.language in RUN and not self.title


def blocks(page: Path) -> list[Block]:
    """Return the blocks of a page in order; the output of one that is run is not a block of its own."""
    found: list[Block] = []
    text = page.read_text(encoding="utf-8")
    for match in re.finditer(r'^( *)```(\w*)(?: title="([^"]+)")?\n(.*?)^\1```$', text, re.DOTALL | re.MULTILINE):
        block = Block(page, text.count("\n", 0, match.start()) + 1, match[2], match[3] or "", match[4])
        last = found[-1] if found else None
        if block.language in OUTPUT and not block.title and last and last.is_run and last.output is None:
            found[-1] = Block(last.page, last.line, last.language, last.title, last.text, block.text)
        else:
            found.append(block)
    return found


def commands(text: str) -> Iterator[str]:
    """Yield the commands of a shell block, each with its continued lines and open quotations."""
    command = ""
    for line in text.splitlines():
        if not command and (not line.strip() or line.startswith("#")):
            continue
        command += line + "\n"
        try:
            shlex.split(command, comments=True)
        except ValueError:
            continue
        if not line.endswith("\\") and not (command.startswith("for ") and not line.startswith("done")):
            yield command.rstrip("\n")
            command = ""
    assert not command, command


def reason_not_to_run(command: str) -> str:
    """Return why a command is not run here, or an empty string."""
    return next((why for start, why in NOT_RUN.items() if re.match(rf"{re.escape(start)}(?!\w)", command)), "")


_SAME = (
    (r"127\.0\.0\.1:\d+", "127.0.0.1:8000"),
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "ID"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", "TIME"),
    (r"\d{4}-\d\d-\d\d( \d\d:\d\d)?", "DATE"),
    (r"\bas_\w+_[\w…-]+", "KEY"),
    (r"\b[0-9a-f]{16}\b", "KEY_ID"),
    (r"\b\d+ (new|replaced|kept|items?|rows?)\b", r"N \1"),
    (r"\b\d+:\d\d\b", "MINUTES"),
)


def normalised(text: str) -> str:
    """Return an output without spaces, and with ids, keys, dates and ports made equal."""
    for pattern, same in _SAME:
        text = re.sub(pattern, same, text)
    return re.sub(r"\s", "", text)


def shows(shown: str, printed: str) -> bool:
    """Whether a page shows what was printed; ``…`` stands for anything."""
    pattern = ".*?".join(re.escape(part) for part in normalised(shown).split("…"))
    return re.fullmatch(pattern, normalised(printed), re.DOTALL) is not None
