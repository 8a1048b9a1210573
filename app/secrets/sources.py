"""Where secrets come from."""

from pathlib import Path

from app.base.errors import UsageError


def secret_file(name: str, path: str) -> str:
    """The text of the file that the variable ``name`` names, stripped. Raises ``UsageError``."""
    try:
        text = Path(path).read_text("utf-8").strip()
    except OSError as error:
        raise UsageError(f"{name}: cannot read {path} ({error.strerror}); name a readable file") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{name}: {path} is not UTF-8 text; write the bare secret into it") from error
    if not text:
        raise UsageError(f"{name}: {path} is empty; write the bare secret into it")
    return text
