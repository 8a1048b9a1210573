"""What time it is."""

from datetime import datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from app.tools.function import tool


@tool(tool_class="read_only", timeout=5)
async def clock(zone: str = "UTC") -> str:
    """Tell the current date and time.

    zone: an IANA time zone such as Europe/Berlin
    """
    try:
        found = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"unknown time zone {zone[:64]!r}: use an IANA name such as Europe/Berlin") from error
    return datetime.now(found).strftime("%A, %d %B %Y, %H:%M:%S %Z")
