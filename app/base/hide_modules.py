"""Imports that are not worth their memory: libraries load what is installed, wanted or not."""

import contextlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def hide_modules(*names: str) -> Iterator[None]:
    """Within the block, these modules are as if they were not installed; afterwards who wants them can have them.

    Those that are loaded already stay. Other threads must not import meanwhile.
    """
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
