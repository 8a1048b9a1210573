"""``agent-service chat``: talk to an agent of any server in the terminal."""

import argparse
import re
import secrets
import sys
import time
from typing import Any

from app.base.errors import UsageError
from app.cli.terminal.conversation import RunPrinter, clipped, printable, text_of
from app.cli.terminal.output import BOLD, CYAN, DIM, styled
from app.cli.terminal.questions import ask_all
from app.cli.terminal.server_client import ConnectionLost, RequestRefused, ServerClient, read_key

MODES = ["messages-tuple", "updates"]
RECENT_MESSAGES = 6
"""Messages that are printed of a thread that is resumed."""
RECONNECT_SECONDS = 60.0
"""How long a stream that broke off is asked for again, each time after ``PAUSE_SECONDS``."""
PAUSE_SECONDS = 1.0

_ESCAPES = re.compile("(\033\\[[0-9;]*m)")

HELP = "/new starts another thread, /agent NAME changes the agent, /quit ends; Ctrl-C stops an answer"


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the agent, the server and the thread."""
    parser.add_argument("agent", nargs="?", metavar="AGENT", help="name or assistant id (default: assistant)")
    parser.add_argument(
        "--url", default="http://127.0.0.1:8000", help="address of the server (default: http://127.0.0.1:8000)"
    )
    parser.add_argument("--key-file", metavar="FILE", help="file with an API key")
    parser.add_argument("--thread", metavar="ID", help="continue this thread")
    parser.add_argument("-m", "--message", metavar="TEXT", help="send one message, print the answer and end")


def run(arguments: argparse.Namespace) -> int:
    """Talk until the end of the input; exit code 1 if the last run failed."""
    chat = Chat(ServerClient(arguments.url, read_key(arguments.key_file)), arguments.agent, arguments.thread)
    if arguments.message is not None:
        return 0 if chat.say(arguments.message) else 1
    return chat.talk()


class Chat:
    """A conversation on one thread at a time. Raises ``AgentServiceError`` if the server refuses the first request."""

    def __init__(self, client: ServerClient, agent: str | None, thread_id: str | None) -> None:
        self._client = client
        self._names: list[str] = []
        self._agent = self._known(agent)
        self._thread_id = thread_id or ""
        self._questions = self._resume() if thread_id else []

    def talk(self) -> int:
        """Read messages until the end of the input. Return the exit code."""
        if sys.stdin.isatty():
            _enable_editing()
            print(styled(f"{self._agent} at {self._client.url}", BOLD))
            print(styled(f"{HELP}\n", DIM))
        succeeded = self._questions == [] or self._answer()
        while True:
            try:
                text = _read(styled("you  ", CYAN)).strip()
            except EOFError:
                return 0 if succeeded else 1
            except KeyboardInterrupt:
                print()
                return 0
            if text.startswith("/"):
                if not self._command(text):
                    return 0
            elif text:
                succeeded = self.say(text)

    def say(self, text: str) -> bool:
        """Send a message, print the answer and ask what the run asks. Return whether it succeeded."""
        try:
            if not self._thread_id:
                self._thread_id = self._client.call("/threads", {})["thread_id"]
                print(styled(f"thread {self._thread_id}", DIM))
            return self._run({"input": {"messages": [{"role": "user", "content": text}]}})
        except (ConnectionLost, RequestRefused) as error:
            print(f"agent-service: {error}", file=sys.stderr)
            return False

    def _answer(self) -> bool:
        """Ask the open questions and continue the run with the answers."""
        try:
            answers = ask_all(self._questions, _read)
        except (EOFError, KeyboardInterrupt):
            print(f"\nThe question stays open: agent-service chat {self._agent} --thread {self._thread_id}")
            return False
        return self._run({"command": {"resume": answers}})

    def _run(self, body: dict[str, Any]) -> bool:
        printer = RunPrinter()
        try:
            self._follow(body, printer)
        except KeyboardInterrupt:
            self._stop(printer)
        printer.finish()
        self._questions = printer.questions if printer.status == "interrupted" else []
        return self._answer() if self._questions else printer.status == "success"

    def _follow(self, body: dict[str, Any], printer: RunPrinter) -> None:
        """Print a run's stream; after a lost connection it resumes where it broke off."""
        path, headers = f"/threads/{self._thread_id}/runs/stream", {"idempotency-key": secrets.token_hex(16)}
        asked: Any = {"assistant_id": self._agent, "stream_mode": MODES, **body}
        deadline = 0.0
        while True:
            try:
                for event in self._client.stream(path, asked, headers):
                    deadline = 0.0
                    printer.show(event)
                if printer.status or not printer.run_id:
                    return
                lost: Exception | None = None
            except (ConnectionLost, RequestRefused) as error:
                if isinstance(error, RequestRefused) and error.reply.status not in {502, 503, 504}:
                    raise
                lost = error
            deadline = deadline or time.monotonic() + RECONNECT_SECONDS
            if time.monotonic() > deadline or (lost is not None and not printer.run_id):
                raise lost or ConnectionLost("the stream ended before the run")
            time.sleep(PAUSE_SECONDS)
            modes = "&".join(f"stream_mode={mode}" for mode in MODES)
            path = f"/threads/{self._thread_id}/runs/{printer.run_id}/stream?{modes}"
            asked, headers = None, {"last-event-id": printer.last_id}

    def _stop(self, printer: RunPrinter) -> None:
        if printer.run_id:
            self._client.call(f"/threads/{self._thread_id}/runs/{printer.run_id}/cancel?wait=0", {})
        printer.status = "interrupted"
        print(styled("\nstopped", DIM))

    def _command(self, text: str) -> bool:
        """Carry out a command; return whether to continue."""
        word, _, rest = text.partition(" ")
        if word in {"/quit", "/exit", "/q"}:
            return False
        if word == "/new":
            self._thread_id = ""
        elif word == "/agent" and rest:
            try:
                self._agent = self._known(rest.strip())
            except UsageError as error:
                print(error)
        elif word == "/agent":
            print(", ".join(self._names))
        else:
            print(HELP)
        return True

    def _known(self, agent: str | None) -> str:
        """Return the agent to talk to. Raises ``UsageError`` if the server has none of that name."""
        found = self._client.call("/assistants/search", {"limit": 1000})
        if not isinstance(found, list):
            raise UsageError(f"no agent-service answers at {self._client.url}: check --url")
        self._names = sorted({one["graph_id"] for one in found})
        known = {*self._names, *(one["assistant_id"] for one in found)}
        if agent is None:
            return "assistant" if "assistant" in known else next(iter(self._names), "")
        if agent not in known:
            raise UsageError(f"the server has no agent {agent!r}: choose one of {', '.join(self._names)}")
        return agent

    def _resume(self) -> list[dict[str, Any]]:
        """Print the newest messages of the thread; return its open questions."""
        state = self._client.call(f"/threads/{self._thread_id}/state")
        values = state.get("values")
        messages = values.get("messages") if isinstance(values, dict) else None
        for message in messages[-RECENT_MESSAGES:] if isinstance(messages, list) else ():
            text = printable(text_of(message.get("content")))
            if text and message.get("type") == "human":
                print(f"{styled('you  ', CYAN)}{text}")
            elif text:
                print(text if message.get("type") == "ai" else styled(clipped(f"← {text}"), DIM))
        return [one for task in state.get("tasks") or () for one in task.get("interrupts") or ()]


def _enable_editing() -> None:
    import readline

    readline.parse_and_bind("set enable-bracketed-paste on")


def _read(prompt: str, text: str = "") -> str:
    """Read a line; on a terminal it begins as ``text``, to be edited. Raises ``EOFError``."""
    if not sys.stdin.isatty():
        line = sys.stdin.readline()
        if not line:
            raise EOFError
        return line.rstrip("\n")
    import readline

    readline.set_startup_hook(lambda: readline.insert_text(text))
    try:
        return input(_ESCAPES.sub("\001\\1\002", prompt))  # what is between them takes no place on the line
    finally:
        readline.set_startup_hook()
