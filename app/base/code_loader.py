"""Load user code named as ``module:attribute`` or ``path/file.py:attribute``."""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from app.base.containment import kind_of, tamed, text_of
from app.base.errors import StartError


def load(name: str, folder: Path) -> Any:
    """Import and return the object that ``name`` refers to.

    Paths are relative to ``folder``, which is also put first on the module search path. Raises ``StartError`` with the
    cause, the file and the line.
    """
    source, _, attribute = name.rpartition(":")
    if not source or not attribute:
        raise StartError(f"{name!r} names no code: write module:attribute or ./file.py:attribute")
    module = _file(source, folder) if source.endswith(".py") else _module(source, folder)
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise StartError(f"{name!r}: {source} has no attribute {attribute!r}")
        found = getattr(found, part)
    return found


def _file(source: str, folder: Path) -> ModuleType:
    path = (folder / source).resolve()
    if not path.is_file():
        raise StartError(f"{source!r} is not a file in {folder}")
    name = f"agent_code_{path.stem}_{abs(hash(path)):x}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        _import(lambda: spec.loader.exec_module(module), source, path.parent)
    except StartError:
        del sys.modules[name]
        raise
    return module


def _module(source: str, folder: Path) -> ModuleType:
    found: list[ModuleType] = []
    _import(lambda: found.append(importlib.import_module(source)), source, folder)
    return found[0]


def _import(work: Any, source: str, folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    try:
        work()
    except SyntaxError as error:
        raise StartError(f"{error.filename or source}, line {error.lineno}: {error.msg}") from error
    except (SystemExit, KeyboardInterrupt) as error:
        # user code must not end the process that imports it; Ctrl-C does not reach workers
        raise StartError(f"{source!r} cannot be imported: it raised {error!r}{_location(error)}") from error
    except Exception as error:
        what = f"{kind_of(error)}: {text_of(error)}{_location(tamed(error))}"
        raise StartError(f"{source!r} cannot be imported: {what}") from error


def _location(error: BaseException) -> str:
    trace = error.__traceback__
    last = None
    while trace is not None:
        last, trace = trace, trace.tb_next
    if last is None or "importlib" in last.tb_frame.f_code.co_filename:
        return ""
    return f" ({last.tb_frame.f_code.co_filename}, line {last.tb_lineno})"
