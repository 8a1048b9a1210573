"""The embedder that needs nothing: features of the text itself, hashed into a fixed number of dimensions.

Features are words and their runs of three and four characters, so that spellings, endings and parts of words come near
each other. It knows no meaning: two words for one thing are strangers to it.
"""

import asyncio
import functools
import math
import re
import zlib
from collections import Counter
from collections.abc import Sequence
from uuid import UUID

from app.providers.embeddings.port import Vector

NAME = "hashing"
DIMENSIONS = 384
MAX_TEXT_LENGTH = 8000
"""Characters that are looked at."""
IN_A_THREAD = 2000
"""From so many characters on, which take a millisecond or more."""

_WORD = re.compile(r"[^\W_]+")
_WORD_WEIGHT = 1.0
_SHORT_WEIGHT = 0.4
"""Words of up to three letters say little."""
_PART_WEIGHT = 0.6
_UNSPACED = "\u2e80"
"""From here on scripts put no spaces between words: characters and pairs of them stand for words."""
_RUN_WEIGHT = 0.7

Features = tuple[tuple[int, float], ...]


class HashingEmbedder:
    """Feature hashing (https://arxiv.org/abs/0902.2206) of words and runs of characters, of length 1."""

    def __init__(self, dimensions: int = DIMENSIONS) -> None:
        self.name = NAME
        self.dimensions = dimensions

    async def embed(self, texts: Sequence[str], owners: Sequence[UUID] = ()) -> list[Vector]:
        """Computed here; the same on every machine."""
        if sum(len(text) for text in texts) > IN_A_THREAD:
            return await asyncio.to_thread(self._all, texts)
        return self._all(texts)

    def _all(self, texts: Sequence[str]) -> list[Vector]:
        return [hashed(text, self.dimensions) for text in texts]


def hashed(text: str, dimensions: int) -> list[float]:
    """The vector of ``text``; that of a text without words points along the first dimension."""
    vector = [0.0] * dimensions
    for word, count in Counter(_WORD.findall(text[:MAX_TEXT_LENGTH].casefold())).items():
        often = 1 + math.log(count)
        for number, weight in _features(word):
            vector[number % dimensions] += often * weight
    length = math.hypot(*vector)
    if not length:
        vector[0] = length = 1.0
    return [number / length for number in vector]


@functools.lru_cache(maxsize=20_000)
def _features(word: str) -> Features:
    """The numbers of a word's features, with the weight of each, to be taken modulo the dimensions."""
    if max(word) >= _UNSPACED:
        return tuple(_hashed(run, _RUN_WEIGHT) for run in [*word, *_runs(word, 2)])
    if len(word) <= 3:
        return (_hashed(word, _SHORT_WEIGHT),)
    runs = [*_runs(f"<{word}>", 3), *_runs(f"<{word}>", 4)]
    weight = _PART_WEIGHT * math.sqrt(4 / len(runs))
    return (_hashed(word, _WORD_WEIGHT), *(_hashed(run, weight) for run in runs))


def _runs(text: str, length: int) -> list[str]:
    return [text[at : at + length] for at in range(len(text) - length + 1)]


def _hashed(feature: str, weight: float) -> tuple[int, float]:
    number = zlib.crc32(feature.encode())
    return number >> 1, weight if number & 1 else -weight
