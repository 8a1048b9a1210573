"""Run start-up work in a forked child process, so that its imports do not use the parent's memory."""

import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from app.base.errors import AgentServiceError, StartError, UsageError


def run_in_child(work: Callable[[], Any]) -> Any:
    """Run ``work`` in a forked child and return its JSON result. Re-raises ``StartError`` and ``UsageError``."""
    readable, writable = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.close(readable)
            _send_result(work, writable)
            sys.stdout.flush()
        finally:
            os._exit(0)  # the caller's cleanup must run in the parent only
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
        raise KeyboardInterrupt if -code == signal.SIGINT else StartError(f"a start-up check exited with status {code}")
    result = json.loads(text)
    if "failed" in result:
        raise (UsageError if result["usage"] else StartError)(result["failed"])
    return result["result"]


def _send_result(work: Callable[[], Any], writable: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        result = {"result": work()}
    except AgentServiceError as error:
        result = {"failed": str(error), "usage": isinstance(error, UsageError)}
    except Exception as error:  # noqa: BLE001  the edge: the parent reports it
        from app.cli.terminal.unexpected_errors import unexpected

        result = {"failed": unexpected(error), "usage": False}
    with os.fdopen(writable, "w") as pipe:
        json.dump(result, pipe)
