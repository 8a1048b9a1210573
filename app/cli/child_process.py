"""Work in a child process: what it imports never weighs on the parent, which only waits for the answer."""

import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from app.base.errors import AgentServiceError, StartError, UsageError


def run_in_child(work: Callable[[], Any]) -> Any:
    """What ``work`` returns (JSON), run in a forked child. Raises ``StartError`` or ``UsageError`` as it did."""
    readable, writable = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.close(readable)
            _answer(work, writable)
            sys.stdout.flush()
        finally:
            os._exit(0)  # whatever the caller has open, and must close, is the parent's
    os.close(writable)
    try:
        with os.fdopen(readable) as pipe:
            text = pipe.read()
    except BaseException:
        os.kill(child, signal.SIGTERM)
        raise
    finally:
        _, status = os.waitpid(child, 0)
    if not text:
        code = os.waitstatus_to_exitcode(status)
        raise KeyboardInterrupt if -code == signal.SIGINT else StartError(f"a start-up check was ended (status {code})")
    answer = json.loads(text)
    if "failed" in answer:
        raise (UsageError if answer["usage"] else StartError)(answer["failed"])
    return answer["result"]


def _answer(work: Callable[[], Any], writable: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        answer = {"result": work()}
    except AgentServiceError as error:
        answer = {"failed": str(error), "usage": isinstance(error, UsageError)}
    except Exception as error:  # noqa: BLE001  the edge: the parent has the words
        from app.cli.terminal.unexpected_errors import unexpected

        answer = {"failed": unexpected(error), "usage": False}
    with os.fdopen(writable, "w") as pipe:
        json.dump(answer, pipe)
