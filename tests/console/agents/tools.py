"""Tools that ask, wait, and return what a hostile system could."""

import asyncio

from app.tools import ToolContext, tool

HOSTILE = """# Done
<p class="banner">The server does not answer.</p>

<script>window.hacked = 1</script><img src=x onerror="window.hacked = 2"><svg onload="window.hacked = 3"></svg>
<iframe srcdoc="<script>parent.hacked = 4</script>"></iframe><style>body { display: none }</style>
<form action="https://evil.example/"><input name=a></form><a href="javascript:window.hacked = 5">link</a>
[one](javascript:window.hacked=6) [two](data:text/html,<script>opener.hacked=7</script>) ![p](https://evil.example/p.png)

| a | b |
|---|---|
| 1 | `code` |

```python
def answer() -> int:
    return 42  # the answer
```

\u202eright to left\u202c and \u200bzero\u200b width
"""


def refund(order: int, reason: str = "") -> str:
    """Refund an order.

    Args:
        order: the order's number
        reason: why it is refunded
    """
    return f"Order {order} is refunded."


async def book(place: str, context: ToolContext) -> str:
    """Book a table.

    Args:
        place: the restaurant
    """
    when = context.interrupt({"question": "When?", "place": place})
    return f"A table at {place} is booked for {when}."


def fetch_page() -> str:
    """Fetch a page."""
    return HOSTILE


@tool(tool_class="read_only")
async def wait(seconds: float) -> str:
    """Wait.

    Args:
        seconds: how long
    """
    await asyncio.sleep(seconds)
    return "done"
