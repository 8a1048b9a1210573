"""Embedder without a model: features of the text, hashed into a fixed number of dimensions.

Features are words and their character trigrams and 4-grams, so that spellings, endings and parts of words are similar.
Synonyms are not: it knows no meaning.
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
"""Characters; longer texts are truncated."""
THREAD_LENGTH = 2000
"""Characters from which on hashing takes over 1 ms and runs in a thread."""

_WORD = re.compile(r"[^\W_]+")
_WORD_WEIGHT = 1.0
_SHORT_WEIGHT = 0.4
"""Of words of up to three letters, which say little."""
_NGRAM_WEIGHT = 0.6
_UNSPACED = "\u2e80"
"""Scripts from here on do not separate words by spaces: characters and bigrams stand for words."""
_CHARACTER_WEIGHT = 0.7

Features = tuple[tuple[int, float], ...]


class HashingEmbedder:
    """Feature hashing (https://arxiv.org/abs/0902.2206) of words and n-grams, normalised to length 1."""

    def __init__(self, dimensions: int = DIMENSIONS) -> None:
        self.name = NAME
        self.dimensions = dimensions

    async def embed(self, texts: Sequence[str], owners: Sequence[UUID] = ()) -> list[Vector]:
        """Compute the vectors in this process; they are the same on every machine."""
        if sum(len(text) for text in texts) > THREAD_LENGTH:
            return await asyncio.to_thread(self._all, texts)
        return self._all(texts)

    def _all(self, texts: Sequence[str]) -> list[Vector]:
        return [hash_text(text, self.dimensions) for text in texts]


def hash_text(text: str, dimensions: int) -> list[float]:
    """Return the vector of ``text``; one without words gets the first unit vector."""
    vector = [0.0] * dimensions
    for word, count in Counter(_WORD.findall(text[:MAX_TEXT_LENGTH].casefold())).items():
        frequency = 1 + math.log(count)
        for number, weight in _features(word):
            vector[number % dimensions] += frequency * weight
    length = math.hypot(*vector)
    if not length:
        vector[0] = length = 1.0
    return [number / length for number in vector]


@functools.lru_cache(maxsize=20_000)
def _features(word: str) -> Features:
    """Return the features of a word as (number, weight); numbers are taken modulo the dimensions."""
    if max(word) >= _UNSPACED:
        return tuple(_hash(ngram, _CHARACTER_WEIGHT) for ngram in [*word, *_ngrams(word, 2)])
    if len(word) <= 3:
        return (_hash(word, _SHORT_WEIGHT),)
    ngrams = [*_ngrams(f"<{word}>", 3), *_ngrams(f"<{word}>", 4)]
    weight = _NGRAM_WEIGHT * math.sqrt(4 / len(ngrams))
    return (_hash(word, _WORD_WEIGHT), *(_hash(ngram, weight) for ngram in ngrams))


def _ngrams(text: str, length: int) -> list[str]:
    return [text[at : at + length] for at in range(len(text) - length + 1)]


def _hash(feature: str, weight: float) -> tuple[int, float]:
    number = zlib.crc32(feature.encode())
    return number >> 1, weight if number & 1 else -weight
