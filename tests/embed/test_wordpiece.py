"""The WordPiece tokenizer with a small vocabulary. Skipped without the extra ``minilm`` (``make minilm``)."""

import importlib.util
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tokenizers") is None, reason="the extra minilm is not installed: make minilm"
)

PIECES = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "un",
    "##afford",
    "##able",
    "cafe",
    ",",
    "中",
    "文",
    "a",
    "##b",
    "!",
    "'",
    "s",
]


def encode(folder: Path, text: str, max_pieces: int) -> list[int]:
    """Return the ids of ``text``."""
    from app.providers.embeddings.wordpiece import load_tokenizer

    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("".join(f"{piece}\n" for piece in PIECES), encoding="utf-8")
    found: list[int] = load_tokenizer(vocabulary, max_pieces).encode(text).ids
    return found


@pytest.mark.parametrize(
    "text, pieces",
    [
        ("unaffordable", ["un", "##afford", "##able"]),
        ("UnAffordable, a", ["un", "##afford", "##able", ",", "a"]),
        ("Café\u0301!", ["cafe", "!"]),
        ("中文a", ["中", "文", "a"]),
        ("cafe's", ["cafe", "'", "s"]),
        ("a\u00ad\u200bb\x00\ufffd", ["a", "##b"]),  # invisible characters are ignored
        ("unab cafe", ["[UNK]", "cafe"]),
        ("x" * 101, ["[UNK]"]),
        ("\u2028 \t\n", []),
        ("[SEP]", ["[UNK]", "[UNK]", "[UNK]"]),  # a delimiter in a text delimits nothing
        ("", []),
    ],
)
def test_a_text_is_split_like_the_training_data_of_the_model(text: str, pieces: list[str], tmp_path: Path) -> None:
    numbers = encode(tmp_path, text, 64)
    assert [PIECES[number] for number in numbers] == ["[CLS]", *pieces, "[SEP]"]


def test_a_long_text_is_truncated_and_keeps_its_delimiter(tmp_path: Path) -> None:
    numbers = encode(tmp_path, "a " * 100_000, 8)
    assert [PIECES[number] for number in numbers] == ["[CLS]", *["a"] * 6, "[SEP]"]
