"""Hide optional modules from libraries that import whatever is installed, to save their memory."""

import contextlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def hide_modules(*names: str) -> Iterator[None]:
    """Hide modules from import within the block, so that libraries skip optional integrations.

    Modules already loaded stay loaded. No other thread may import during the block.
    """
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
