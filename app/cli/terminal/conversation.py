"""Print a run as it streams: the text of the answer, tool calls and their results, errors, tokens."""

import json
import re
import shutil
import sys
import time
from typing import Any

from app.cli.terminal.output import CYAN, DIM, RED, styled
from app.cli.terminal.server_client import ServerEvent

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""What could steer the terminal or reorder a line: control characters but line feed and tab, and overrides of the
direction of text (Unicode Standard Annex 9)."""

MAX_RESULT_LINES = 6
MIN_WIDTH = 40


def printable(text: str) -> str:
    """Remove what could steer the terminal."""
    return _CONTROL.sub("", text.replace("\r\n", "\n"))


def text_of(content: Any) -> str:
    """Return the text of a message's content: a string, or a list of blocks."""
    if isinstance(content, str):
        return content
    blocks = content if isinstance(content, list) else []
    return "".join(block if isinstance(block, str) else str(block.get("text") or "") for block in blocks)


class RunPrinter:
    """Prints the events of one run, in the modes ``messages-tuple``, ``updates`` and ``custom``.

    ``run_id`` and ``last_id`` are where a lost stream resumes; ``questions`` are the run's open interrupts.
    """

    def __init__(self) -> None:
        self.run_id = ""
        self.last_id = ""
        self.status = ""
        self.questions: list[dict[str, Any]] = []
        self.error = ""
        self._started_at = time.monotonic()
        self._tokens = 0
        self._calls: dict[Any, dict[str, str]] = {}
        self._shown_calls: set[str] = set()
        self._streamed: set[str] = set()
        self._open_line = False

    def show(self, event: ServerEvent) -> None:
        """Print what is new in ``event``."""
        self.last_id = event.id or self.last_id
        kind = event.event.partition("|")[0]
        if kind == "metadata":
            self.run_id = event.data.get("run_id") or self.run_id
        elif kind == "messages" and isinstance(event.data, list):
            self._message(event.data[0])
        elif kind == "updates" and isinstance(event.data, dict):
            self._update(event.data)
        elif kind == "error":
            self.error = f"{event.data.get('error', 'error')}: {event.data.get('message', '')}"
        elif kind == "end":
            self.status = event.data.get("status", "")

    def finish(self) -> None:
        """Print how the run ended."""
        self._end_line()
        if self.error:
            print(styled(printable(self.error), RED), flush=True)
        elif self.status not in {"success", "interrupted", ""}:
            print(styled(f"The run ended with the status {self.status}.", RED), flush=True)
        seconds = time.monotonic() - self._started_at
        tokens = f" · {self._tokens:,} tokens" if self._tokens else ""
        print(styled(f"{seconds:.1f} s{tokens}", DIM), flush=True)

    def _message(self, message: dict[str, Any]) -> None:
        kind = message.get("type", "")
        if kind == "tool":
            self._result(message)
        elif kind in {"AIMessageChunk", "ai"}:
            chunk = kind == "AIMessageChunk"
            if chunk or message.get("id") not in self._streamed:
                self._text(text_of(message.get("content")))
            self._streamed.add(message.get("id") or "")
            for part in message.get("tool_call_chunks") or ():
                call = self._calls.setdefault(part.get("index"), {"id": "", "name": "", "args": ""})
                for name in call:
                    call[name] += part.get(name) or ""
            if message.get("chunk_position") == "last":
                self._show_calls()

    def _update(self, update: dict[str, Any]) -> None:
        self._show_calls()
        self.questions = update.get("__interrupt__") or self.questions
        for values in update.values():
            messages = values.get("messages") if isinstance(values, dict) else None
            for message in messages if isinstance(messages, list) else ():
                if isinstance(message, dict) and message.get("type") == "ai":
                    self._tokens += (message.get("usage_metadata") or {}).get("total_tokens", 0)

    def _text(self, text: str) -> None:
        if text:
            sys.stdout.write(printable(text))
            sys.stdout.flush()
            self._open_line = not text.endswith("\n")

    def _end_line(self) -> None:
        if self._open_line:
            print(flush=True)
        self._open_line = False

    def _show_calls(self) -> None:
        for call in self._calls.values():
            if call["id"] not in self._shown_calls:
                self._shown_calls.add(call["id"])
                self._end_line()
                print(styled(clipped(f"→ {call['name']}({_arguments(call['args'])})"), CYAN), flush=True)
        self._calls = {}

    def _result(self, message: dict[str, Any]) -> None:
        self._end_line()
        lines = printable(text_of(message.get("content"))).splitlines() or [""]
        if len(lines) > MAX_RESULT_LINES:
            lines = [*lines[:MAX_RESULT_LINES], f"… {len(lines) - MAX_RESULT_LINES} more lines"]
        colour = RED if message.get("status") == "error" else DIM
        for number, line in enumerate(lines):
            print(styled(clipped(("  " if number else "← ") + line), colour), flush=True)


def _arguments(text: str) -> str:
    """Format the JSON arguments of a call as ``name=value``."""
    try:
        given = json.loads(text or "{}")
    except ValueError:
        return text
    if not isinstance(given, dict):
        return text
    return ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in given.items())


def clipped(text: str) -> str:
    """Return one line, without control characters; on a terminal it is cut to fit."""
    line = printable(" ".join(text.split()) if "\n" in text else text)
    if not sys.stdout.isatty():
        return line
    width = max(shutil.get_terminal_size().columns, MIN_WIDTH)
    return line if len(line) <= width else f"{line[: width - 1]}…"
