"""``agent-service runs``: follow the runs of a server."""

import argparse
import shutil
import sys
import time
from datetime import UTC, datetime
from typing import Any

from app.cli.terminal.conversation import RunPrinter, clipped, printable
from app.cli.terminal.output import DIM, GREEN, RED, YELLOW, styled
from app.cli.terminal.server_client import ConnectionLost, ServerClient, read_key

EVERY_SECONDS = 1.0
PAGE = 100
FIELDS = [
    "run_id",
    "thread_id",
    "assistant_id",
    "status",
    "attempts",
    "created_at",
    "started_at",
    "ended_at",
    "error",
    "usage",
    "metadata",
]
COLOURS = {"success": GREEN, "error": RED, "timeout": RED, "interrupted": YELLOW}
INNER = {"_ingest": "ingestion"}
"""Agents that the server runs for itself, by their names in the metadata of runs."""
WIDTHS = (8, 11, 16, 9, 7)
"""Columns of time, status, agent, duration and tokens; the ids of thread and run follow."""


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the action watch."""
    from app.cli.terminal.parser import sub_command

    actions = parser.add_subparsers(title="actions", dest="action", metavar="ACTION", required=True)
    watch = sub_command(
        actions,
        "watch",
        "print a line for each run that begins, ends or waits, until Ctrl-C",
        "runs watch --status error",
    )
    watch.add_argument(
        "--url", default="http://127.0.0.1:8000", help="address of the server (default: http://127.0.0.1:8000)"
    )
    watch.add_argument("--key-file", metavar="FILE", help="file with an API key")
    watch.add_argument("--status", action="append", metavar="STATUS", help="only runs with it (may be repeated)")
    watch.add_argument("--agent", help="only runs of this agent or assistant id")
    watch.add_argument("--thread", metavar="ID", help="print everything that the runs of this thread say, instead")
    watch.add_argument("--once", action="store_true", help="print the newest runs and end")


def run(arguments: argparse.Namespace) -> int:
    """Print lines until Ctrl-C."""
    client = ServerClient(arguments.url, read_key(arguments.key_file))
    if arguments.thread:
        return _follow_thread(client, arguments.thread)
    return RunWatch(client, arguments).watch(once=arguments.once)


class RunWatch:
    """Asks for the newest runs every second and prints those that have changed."""

    def __init__(self, client: ServerClient, arguments: argparse.Namespace) -> None:
        self._client = client
        self._wanted: dict[str, Any] = {"limit": PAGE, "select": FIELDS}
        if arguments.agent:
            self._wanted["assistant_id"] = arguments.agent
        self._statuses = set(arguments.status or ())
        self._shown: dict[str, str] = {}
        self._answered = False
        self._names: dict[str, str] = {}

    def watch(self, *, once: bool = False) -> int:
        """Print until Ctrl-C, or ``once``."""
        print(styled(_line("TIME", "STATUS", "AGENT", "DURATION", "TOKENS", "THREAD / RUN"), DIM), flush=True)
        lost = False
        while True:
            try:
                self._print_changed()
                self._answered, lost = True, False
            except ConnectionLost as error:
                if not self._answered:
                    raise
                if not lost:
                    print(styled(f"{error}; trying again", RED), file=sys.stderr, flush=True)
                lost = True
            if once:
                return 0
            time.sleep(EVERY_SECONDS)

    def _print_changed(self) -> None:
        page: list[dict[str, Any]] = self._client.call("/runs/search", self._wanted)
        for one in reversed(page):
            status = f"{one['status']} {one['attempts']}"
            if self._shown.get(one["run_id"]) != status:
                self._shown[one["run_id"]] = status
                if not self._statuses or one["status"] in self._statuses:
                    self._print(one)
        known = {one["run_id"] for one in page}
        self._shown = {run_id: status for run_id, status in self._shown.items() if run_id in known}

    def _print(self, one: dict[str, Any]) -> None:
        status = one["status"]
        ended = _moment(one["ended_at"])
        started = _moment(one["started_at"])
        at = (ended or started or _moment(one["created_at"]) or datetime.now(UTC)).astimezone()
        seconds = f"{(ended - started).total_seconds():.2f} s" if ended and started else ""
        tokens = f"{one['usage']['total_tokens']:,}" if one["usage"] else ""
        line = _line(
            f"{at:%H:%M:%S}",
            status,
            self._name(one),
            seconds,
            tokens,
            f"{one['thread_id']} {one['run_id']}",
        )
        print(styled(line, COLOURS[status]) if status in COLOURS else line, flush=True)
        if one["error"]:
            detail = f"{one['error'].get('error', '')}: {one['error'].get('message', '')}"
            print(styled(clipped(f"         {printable(detail)}"), RED), flush=True)

    def _name(self, one: dict[str, Any]) -> str:
        """Return the agent's name. One that the server runs for itself is not listed: it ingests documents."""
        assistant_id = one["assistant_id"]
        if assistant_id not in self._names:
            wanted = {"limit": 1000, "select": ["assistant_id", "graph_id"]}
            for listed in self._client.call("/assistants/search", wanted):
                self._names[listed["assistant_id"]] = listed["graph_id"]
            inner = printable(str((one["metadata"] or {}).get("graph_id") or assistant_id[:8]))
            self._names.setdefault(assistant_id, INNER.get(inner, inner))
        return self._names[assistant_id]


def _follow_thread(client: ServerClient, thread_id: str) -> int:
    """Print what the runs of a thread say, live ones and later ones."""
    cursor, printer = "", RunPrinter()
    while True:
        headers = {"last-event-id": cursor} if cursor else {}
        for event in client.stream(f"/threads/{thread_id}/stream", headers=headers):
            cursor = event.id or cursor
            printer.show(event)
            if event.event == "metadata" and isinstance(event.data, dict) and event.data.get("status") == "run_done":
                printer.finish()
                printer = RunPrinter()
        time.sleep(EVERY_SECONDS)


def _line(*cells: str) -> str:
    head = " ".join(cell.ljust(width) for cell, width in zip(cells, WIDTHS, strict=False))
    if not sys.stdout.isatty():
        return f"{head} {cells[-1]}".rstrip()
    room = max(shutil.get_terminal_size().columns - len(head) - 1, 36)
    return f"{head} {cells[-1][:room]}".rstrip()


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
