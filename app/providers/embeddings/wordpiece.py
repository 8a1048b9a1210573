"""WordPiece tokenizer of BERT's uncased models (https://arxiv.org/abs/1609.08144).

Text is lower-cased without accents; punctuation and Chinese characters are words of their own. A word is split greedily
into the longest pieces of the vocabulary, and is unknown if that fails.
"""

import unicodedata
from collections.abc import Iterator, Sequence

UNKNOWN, CLASS, SEPARATOR = "[UNK]", "[CLS]", "[SEP]"
MAX_WORD_LENGTH = 100
"""Characters; a longer word is unknown."""

_CJK = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)
_IGNORED_CATEGORIES = frozenset({"Cc", "Cf", "Co", "Cs"})
_ASCII_PUNCTUATION = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")


class WordPieceTokenizer:
    """A vocabulary: ``pieces`` in the order of their IDs; those that continue a word begin with ``##``."""

    def __init__(self, pieces: Sequence[str]) -> None:
        self._ids = {piece: number for number, piece in enumerate(pieces)}
        self._unknown = self._ids[UNKNOWN]
        self._delimiters = (self._ids[CLASS], self._ids[SEPARATOR])

    def encode(self, text: str, max_pieces: int) -> list[int]:
        """Return the IDs of ``text`` between its delimiters, truncated to ``max_pieces`` in all."""
        first, last = self._delimiters
        found: list[int] = []
        for word in _words(text):
            found += self._split(word)
            if len(found) >= max_pieces - 2:
                break
        return [first, *found[: max_pieces - 2], last]

    def _split(self, word: str) -> list[int]:
        if len(word) > MAX_WORD_LENGTH:
            return [self._unknown]
        found: list[int] = []
        at = 0
        while at < len(word):
            for end in range(len(word), at, -1):
                number = self._ids.get(("##" if at else "") + word[at:end])
                if number is not None:
                    found.append(number)
                    at = end
                    break
            else:
                return [self._unknown]
        return found


def _words(text: str) -> Iterator[str]:
    """Yield words and punctuation marks in order."""
    word: list[str] = []
    for raw in text.split():
        for character in unicodedata.normalize("NFD", _clean(raw)):
            if unicodedata.category(character) == "Mn":
                continue
            alone = character.isspace() or _is_cjk(character) or _is_punctuation(character)
            if alone and word:
                yield "".join(word).lower()
                word = []
            if not alone:
                word.append(character)
            elif not character.isspace():
                yield character.lower()
        if word:
            yield "".join(word).lower()
            word = []


def _clean(text: str) -> str:
    """Remove control characters, NUL and replacement characters."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(one for one in text if one != "\ufffd" and unicodedata.category(one) not in _IGNORED_CATEGORIES)


def _is_cjk(character: str) -> bool:
    return character > "\u33ff" and any(first <= ord(character) <= last for first, last in _CJK)


def _is_punctuation(character: str) -> bool:
    return character in _ASCII_PUNCTUATION or unicodedata.category(character).startswith("P")
