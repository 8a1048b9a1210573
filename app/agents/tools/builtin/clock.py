"""Return the current date and time."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from app.agents.tools.function_tool import tool


@tool(tool_class="read_only", timeout=5)
async def clock(zone: str = "UTC") -> str:
    """Tell the current date and time.

    Args:
        zone: an IANA time zone such as Europe/Berlin
    """
    try:
        found = UTC if zone == "UTC" else ZoneInfo(zone)  # UTC needs no time zone database
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"unknown time zone {zone[:64]!r}: use an IANA name such as Europe/Berlin") from error
    return datetime.now(found).strftime("%A, %d %B %Y, %H:%M:%S %Z")
