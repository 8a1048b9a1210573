"""Resolve tool names: built-in tools, and functions in the user's code."""

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.agents.tools.builtin.calculator import calculator
from app.agents.tools.builtin.clock import clock
from app.agents.tools.builtin.knowledge import NAME as KNOWLEDGE
from app.agents.tools.builtin.knowledge import knowledge_tool, names_knowledge
from app.agents.tools.builtin.memory import memory_tool
from app.agents.tools.builtin.notes import notes
from app.agents.tools.function_tool import FunctionTool
from app.agents.tools.port import LongTerm, Tool
from app.base.errors import StartError

BUILTIN: dict[str, Callable[..., Any]] = {"clock": clock, "calculator": calculator, "notes": notes}

MEMORY = "memory"

LoadCode = Callable[[str, Path], Any]
"""Loads ``module:attribute`` or ``file.py:attribute``, relative to a folder."""


def find_tool(name: str, folder: Path, load: LoadCode, store: LongTerm | None = None) -> Tool:
    """Return the tool ``name``: a built-in one, or a function in the user's code. Raises ``StartError``.

    ``store``: the long-term memory for the tools ``memory`` and ``knowledge``; None to inspect agents only.
    """
    if names_knowledge(name):
        return knowledge_tool(name, store)
    if name == MEMORY:
        return memory_tool(store)
    if name in BUILTIN:
        return FunctionTool(BUILTIN[name])
    if ":" not in name:
        known = [*BUILTIN, MEMORY, KNOWLEDGE]
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"use {', '.join(known)},"
        raise StartError(f"unknown tool {name!r}; {hint} or name a function: module:function or ./file.py:function")
    found = load(name, folder)
    if isinstance(found, type) or not callable(found):
        raise StartError(f"tool {name!r} is not a function but of type {type(found).__name__}")
    return FunctionTool(found)
