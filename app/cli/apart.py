"""Work in a child process: what it imports never weighs on the parent, which only waits for the answer."""

import json
import os
import sys
from collections.abc import Callable
from typing import Any

from app.base.errors import AgentServiceError, StartError, UsageError


def apart(work: Callable[[], Any]) -> Any:
    """What ``work`` returns (JSON), run in a forked child. Raises ``StartError`` or ``UsageError`` as it did."""
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(readable)
        os._exit(_answer(work, writable))
    os.close(writable)
    with os.fdopen(readable) as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    if not text:
        raise StartError(f"a start-up check ended without an answer (status {os.waitstatus_to_exitcode(status)})")
    answer = json.loads(text)
    if "usage" in answer:
        raise UsageError(answer["usage"])
    if "error" in answer:
        raise StartError(answer["error"])
    return answer["result"]


def _answer(work: Callable[[], Any], writable: int) -> int:
    try:
        answer = {"result": work()}
    except UsageError as error:
        answer = {"usage": str(error)}
    except AgentServiceError as error:
        answer = {"error": str(error)}
    except KeyboardInterrupt:
        return 130
    sys.stdout.flush()
    with os.fdopen(writable, "w") as pipe:
        json.dump(answer, pipe)
    return 0
