"""Evaluate arithmetic by interpreting the syntax tree; model output is never executed."""

import ast
import math
import operator
from collections.abc import Callable

from app.agents.tools.function_tool import tool

MAX_EXPRESSION_LENGTH = 500
MAX_BITS = 4096
"""Larger integers are rejected before they are computed."""

Number = int | float

BINARY: dict[type[ast.operator], Callable[[Number, Number], Number]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
UNARY: dict[type[ast.unaryop], Callable[[Number], Number]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}
FUNCTIONS: dict[str, Callable[..., Number]] = {"sqrt": math.sqrt, "abs": abs, "round": round}
MAX_DIGITS = 300
MAX_ARGUMENTS = {"sqrt": 1, "abs": 1, "round": 2}
NAMES = {"pi": math.pi, "e": math.e}


@tool(tool_class="read_only", timeout=5)
async def calculator(expression: str) -> str:
    """Evaluate an arithmetic expression, such as 12*(3+4) or sqrt(2)**3.

    Args:
        expression: numbers, + - * / // % **, parentheses, sqrt(x), abs(x), round(x, digits), pi, e
    """
    return str(evaluate(expression))


def evaluate(expression: str) -> Number:
    """Return the value of ``expression``. Raises ``ValueError`` if it is not arithmetic or is too large."""
    if len(expression) > MAX_EXPRESSION_LENGTH:
        raise ValueError(f"the expression is longer than {MAX_EXPRESSION_LENGTH} characters")
    try:
        value = _value(ast.parse(expression.strip(), mode="eval").body)
    except SyntaxError as error:
        raise ValueError(f"not an arithmetic expression: {expression[:80]!r}") from error
    except (ZeroDivisionError, OverflowError) as error:
        raise ValueError(str(error)) from error
    except (RecursionError, MemoryError) as error:
        raise ValueError("the expression is nested too deeply") from error
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("the result is too large")
    return value


def _value(node: ast.expr) -> Number:
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return value
        case ast.Name(id=name) if name in NAMES:
            return NAMES[name]
        case ast.UnaryOp(op=op, operand=operand) if type(op) in UNARY:
            return UNARY[type(op)](_value(operand))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in BINARY:
            return _binary(op, _value(left), _value(right))
        case ast.Call(func=ast.Name(id=name), args=[_, *_] as arguments, keywords=[]) if name in FUNCTIONS:
            return _call(name, [_value(argument) for argument in arguments])
        case _:
            raise ValueError(f"{ast.unparse(node)[:80]!r} is not arithmetic")


def _call(name: str, values: list[Number]) -> Number:
    if len(values) > MAX_ARGUMENTS[name]:
        raise ValueError(f"{name} takes no more than {MAX_ARGUMENTS[name]} numbers")
    if len(values) == 2 and not (isinstance(values[1], int) and abs(values[1]) <= MAX_DIGITS):
        raise ValueError(f"the digits must be a whole number of at most {MAX_DIGITS}")
    return FUNCTIONS[name](*values)


def _binary(op: ast.operator, left: Number, right: Number) -> Number:
    whole = isinstance(left, int) and isinstance(right, int)
    if isinstance(op, ast.Pow) and whole and left.bit_length() * abs(right) > MAX_BITS:  # type: ignore[union-attr]
        raise ValueError("the power is too large")
    if isinstance(op, ast.Mult) and whole and left.bit_length() + right.bit_length() > MAX_BITS:  # type: ignore[union-attr]
        raise ValueError("the product is too large")
    result = BINARY[type(op)](left, right)
    if isinstance(result, complex):
        raise ValueError("the result is not a real number")  # noqa: TRY004  depends on the values, not their types
    return result
