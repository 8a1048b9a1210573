"""Report unexpected errors on the command line."""

import traceback

from app.base.errors import AgentServiceError
from app.infra.settings.environment import load
from app.server.worker_context import summarize_error


def unexpected(error: Exception) -> str:
    """Return a one-line message; print the traceback first if ``LOG_LEVEL=debug``."""
    if _debugging():
        traceback.print_exception(error)
    return summarize_error(error)


def _debugging() -> bool:
    try:
        return load().server.log_level == "debug"
    except AgentServiceError:
        return False
