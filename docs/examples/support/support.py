"""A support agent: it finds the order, asks a person, and pays back or explains."""

from typing import Literal

import msgspec

from app.agents.function import Context, ToolFailed


class Request(msgspec.Struct):
    """What a customer asks for."""

    order: str
    reason: str


class Order(msgspec.Struct):
    """An order, as the shop tells it."""

    number: str
    customer: str
    amount: int


class Decision(msgspec.Struct):
    """What a person decides."""

    action: Literal["approve", "reject"]
    reason: str = ""


async def run(context: Context, request: Request) -> str:
    """Handle one request for a refund."""
    try:
        order = await context.tools.call("find_order", Order, number=request.order)
    except ToolFailed as failed:
        return f"I cannot help: {failed.words}."
    context.state["order"] = order
    decision = await context.interrupt(
        {
            "question": f"Refund {order.amount} to {order.customer}?",
            "because": request.reason,
            "actions": ["approve", "reject"],
        },
        Decision,
    )
    if decision.action == "reject":
        return await context.model.text(f"No refund for order {order.number}, because {decision.reason}.")
    return await context.tools.call("refund", number=order.number, amount=order.amount)
