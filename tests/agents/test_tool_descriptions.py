"""What a model reads about a function tool comes from its docstring."""

import inspect
from typing import Annotated, Any

import msgspec
import pytest

from app.agents.tools.function_tool import FunctionTool

GOOGLE = """Add two numbers
and round the sum.

Floats are fine: also negative ones.

Args:
    a: The first number.
    b (int, optional): The second: one
        to add.

Returns:
    int: the sum
"""
NUMPY = """Add two numbers and round the sum.

Parameters
----------
a, b : int
    One of both.

Returns
-------
int
"""
SPHINX = """Add two numbers and round the sum.

:param a: The first, see https://example.org:8080/.
:param int b: The second
    one.
:returns: the sum
"""
FIRST, SECOND = "The first number.", "The second: one to add."


def spec(docstring: str | None) -> tuple[str, dict[str, Any]]:
    """Return the description of a tool with ``docstring``, and those of its parameters."""

    def add(a: int, b: int = 0) -> int:
        return a + b

    add.__doc__ = docstring
    found = FunctionTool(add).spec
    properties = found.parameters["properties"]
    return found.description, {name: one.get("description") for name, one in properties.items()}


@pytest.mark.parametrize(
    "docstring, parameters",
    [
        (GOOGLE, {"a": FIRST, "b": SECOND}),
        (GOOGLE.replace("\n", "\n    "), {"a": FIRST, "b": SECOND}),
        (NUMPY, {"a": "One of both.", "b": "One of both."}),
        (SPHINX, {"a": "The first, see https://example.org:8080/.", "b": "The second one."}),
        ("Add two numbers and round the sum.", {"a": None, "b": None}),
        ("Add two numbers and round the sum.\nArgs:\n  b:\n    " + SECOND, {"a": None, "b": SECOND}),
    ],
    ids=["Google", "indented", "NumPy", "Sphinx", "without", "no blank line"],
)
def test_the_three_styles_describe_parameters(docstring: str, parameters: dict[str, Any]) -> None:
    assert spec(docstring) == ("Add two numbers and round the sum.", parameters)


@pytest.mark.parametrize(
    "docstring", [None, "", "  \n ", "Raw:\n::\n  : x", ":param", "Args:\n    no colon\n    a: x\n:"]
)
def test_a_docstring_that_cannot_be_parsed_describes_no_parameter(docstring: str | None) -> None:
    description, parameters = spec(docstring)
    assert parameters == {"a": None, "b": None}
    assert description == " ".join(inspect.cleandoc(docstring or "").partition("\n\n")[0].split())


def test_an_annotation_describes_its_parameter_before_the_docstring_does() -> None:
    def add(a: Annotated[int, msgspec.Meta(description="Annotated.")], *, b: int) -> int:
        """Add.

        Args:
            a: Documented.
            b: Documented.
        """
        return a + b

    properties = FunctionTool(add).spec.parameters["properties"]
    assert [properties[name]["description"] for name in "ab"] == ["Annotated.", "Documented."]
