"""What a person reads when something went wrong that nobody foresaw."""

import traceback

from app.base.errors import AgentServiceError
from app.infra.settings.environment import load
from app.server.worker_context import summarize_error


def unexpected(error: Exception) -> str:
    """One line; with ``LOG_LEVEL=debug`` the traceback is printed before it."""
    if _debugging():
        traceback.print_exception(error)
    return summarize_error(error)


def _debugging() -> bool:
    try:
        return load().server.log_level == "debug"
    except AgentServiceError:
        return False
