"""Names → tools: those that come with the program, and functions of the user's own code."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.base.errors import StartError
from app.tools.builtin.calculator import calculator
from app.tools.builtin.clock import clock
from app.tools.builtin.notes import notes
from app.tools.function import FunctionTool
from app.tools.port import Tool

BUILTIN: dict[str, Callable[..., Any]] = {"clock": clock, "calculator": calculator, "notes": notes}

Load = Callable[[str, Path], Any]
"""Finds what ``module:attribute`` or ``file.py:attribute`` names, relative to a folder."""


def find_tool(name: str, folder: Path, load: Load) -> Tool:
    """The tool ``name``: one of ``BUILTIN``, or a function in the user's code. Raises ``StartError``."""
    if name in BUILTIN:
        return FunctionTool(BUILTIN[name])
    if ":" not in name:
        raise StartError(f"unknown tool {name!r}: use {', '.join(BUILTIN)}, or module:function, or ./file.py:function")
    found = load(name, folder)
    if isinstance(found, type) or not callable(found):
        raise StartError(f"tool {name!r} is not a function")
    return FunctionTool(found)
