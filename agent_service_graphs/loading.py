"""Import a project's graphs, and call their factories."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import inspect
import os
import sys
import sysconfig
import traceback
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

from langgraph.channels.delta import DeltaChannel
from langgraph.pregel import Pregel

from agent_service_graphs.tools import offering

Graph = Pregel[Any, Any, Any, Any]


OWN_FOLDER, STANDARD_LIBRARY = str(Path(__file__).parent), sysconfig.get_path("stdlib")
PACKAGES = f"{os.sep}site-packages{os.sep}"


class BrokenGraph(Exception):
    """A graph cannot be used: the reason, with file and line where known."""


def keep_whole_values() -> None:
    """Make every ``DeltaChannel`` of this process give its value with each change instead of every hundredth.

    The engine stores lists element by element anyway, and clients read values; so no checkpoint depends on others. It
    is done where channels are made: graphs that a node calls, as tools call subagents, are found in no other way.
    """
    make = DeltaChannel.__init__

    @functools.wraps(make)
    def make_whole(self: DeltaChannel[Any], *arguments: Any, **options: Any) -> None:
        make(self, *arguments, **options)
        self.snapshot_frequency = 1

    DeltaChannel.__init__ = make_whole  # type: ignore[method-assign]


def load(code: str, folder: Path) -> Any:
    """Import the object that ``code`` (``./file.py:variable`` or ``module:variable``) names. Raises ``BrokenGraph``."""
    source, _, variable = code.rpartition(":")
    if not source:
        raise BrokenGraph(f"{code!r} names no graph: write ./file.py:variable")
    if Path(source).suffix in {".ts", ".tsx", ".mts", ".js", ".mjs", ".jsx"}:
        raise BrokenGraph(f"{source} is a graph in JavaScript: this server runs graphs in Python only")
    try:
        module = _from_file(source, folder) if source.endswith(".py") else importlib.import_module(source)
    except BrokenGraph:
        raise
    except SyntaxError as error:
        raise BrokenGraph(f"{error.filename or source}, line {error.lineno}: {error.msg}") from error
    except (Exception, SystemExit) as error:
        raise BrokenGraph(f"{source} cannot be imported: {type(error).__name__}: {error}{location(error)}") from error
    if not hasattr(module, variable):
        raise BrokenGraph(f"{source} has no variable {variable!r}")
    return getattr(module, variable)


def _from_file(source: str, folder: Path) -> Any:
    path = (folder / source).resolve()
    if not path.is_file():
        raise BrokenGraph(f"there is no file {path}")
    name = _module_name(path)
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


def _module_name(path: Path) -> str:
    """Return the name by which the project imports ``path``, so that both get the same module."""
    for root in sys.path:
        if root and path.is_relative_to(root):
            parts = path.relative_to(root).with_suffix("").parts
            if all(part.isidentifier() for part in parts):
                return ".".join(parts)
    return f"graph_{path.stem}_{abs(hash(path)):x}"


def location(error: BaseException) -> str:
    """Return file and line where ``error`` was raised, in parentheses; empty if unknown.

    It is the last line of the project in its traceback, else the last line of an installed package.
    """
    frames = [one for one in reversed(traceback.extract_tb(error.__traceback__)) if not _is_ours(one.filename)]
    at = next((one for one in frames if PACKAGES not in one.filename), frames[0] if frames else None)
    return "" if at is None else f" ({at.filename}, line {at.lineno})"


def _is_ours(file: str) -> bool:
    """Whether ``file`` belongs to this package or, unless it is an installed package, to Python."""
    return file.startswith(("<", OWN_FOLDER)) or (file.startswith(STANDARD_LIBRARY) and PACKAGES not in file)


class GraphSource:
    """A graph by its name in the configuration: the object that its code names, and graphs made from it."""

    def __init__(self, name: str, code: str, folder: Path, tools: Sequence[dict[str, Any]] = ()) -> None:
        """``tools``: those of the agents file, as they are now."""
        self.name = name
        self.code = code
        self._tools = tools
        with offering(tools):
            self._found = load(code, folder)
        self._ready = self._compiled(self._found) if not self.is_factory else None

    @property
    def is_factory(self) -> bool:
        """Whether a function makes the graph, for each use."""
        found = self._found
        return callable(found) and not isinstance(found, Pregel) and not hasattr(found, "compile")

    @contextlib.asynccontextmanager
    async def open(self, config: dict[str, Any], runtime: Callable[[], Any]) -> AsyncIterator[Graph]:
        """Yield the graph for one use. ``runtime`` makes the ``ServerRuntime`` of factories that take one."""
        if self._ready is not None:
            yield self._ready
            return
        with offering(self._tools):
            made = self._found(*self._arguments(config, runtime))
            if inspect.isawaitable(made):
                made = await made
            if hasattr(made, "__aenter__"):
                async with made as graph:
                    yield self._compiled(graph)
            elif hasattr(made, "__enter__") and not isinstance(made, Pregel):
                with made as graph:
                    yield self._compiled(graph)
            else:
                yield self._compiled(made)

    def _arguments(self, config: dict[str, Any], runtime: Callable[[], Any]) -> list[Any]:
        """Return the arguments of the factory: by annotation, else the configuration first and the runtime second."""
        parameters = [
            one
            for one in inspect.signature(self._found).parameters.values()
            if one.kind in {one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD} and one.default is one.empty
        ]
        if len(parameters) > 2:
            raise BrokenGraph(
                f"the factory {self.code!r} takes {len(parameters)} arguments: a config and a runtime at most"
            )
        wants = ["Runtime" in str(one.annotation) or one.name in {"runtime", "server_runtime"} for one in parameters]
        if wants == [False, False]:
            wants = [False, True]
        return [runtime() if wanted else config for wanted in wants]

    def _compiled(self, found: Any) -> Graph:
        if hasattr(found, "compile") and not isinstance(found, Pregel):
            found = found.compile()
        if not isinstance(found, Pregel):
            raise BrokenGraph(
                f"{self.code!r} is a {type(found).__name__}: name a graph, a StateGraph, or a function that returns one"
            )
        return found
