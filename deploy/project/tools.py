"""Tools of the agents: typed functions.

A model sees the name, the types and the docstring; arguments of other types never reach the function.
"""

from typing import Literal, TypedDict

from app.tools import tool


class Order(TypedDict):
    """What the model gets to know about an order."""

    number: int
    state: Literal["open", "sent"]
    items: list[str]


ORDERS: dict[int, Order] = {
    17: {"number": 17, "state": "sent", "items": ["tea", "cups"]},
    18: {"number": 18, "state": "open", "items": ["kettle"]},
}
"""Stands for your database."""


@tool(tool_class="read_only", timeout=10)
def find_order(number: int) -> Order:
    """Look up an order.

    Args:
        number: the order's number
    """
    if number not in ORDERS:
        raise ValueError(f"There is no order {number}.")  # the model reads this sentence
    return ORDERS[number]
