"""What the shop can do."""

from typing import Any

from app.tools import ToolContext, ToolResult, tool

ORDERS = {
    "17": {"number": "17", "customer": "Ann", "amount": 40},
    "18": {"number": "18", "customer": "Bob", "amount": 900},
}


@tool(tool_class="read_only", timeout=5)
async def find_order(number: str) -> dict[str, Any]:
    """Look up an order."""
    if number not in ORDERS:
        raise ValueError(f"there is no order {number}")
    return ORDERS[number]


@tool(tool_class="transactional", timeout=5)
async def refund(context: ToolContext, number: str, amount: int) -> ToolResult:
    """Pay an order back. The refund is part of the thread: it commits with the step, exactly once."""
    refunds = context.value("refunds") or []
    return ToolResult(content=f"Refunded {amount} for order {number}.", update={"refunds": [*refunds, number]})
