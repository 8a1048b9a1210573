"""The WordPiece tokenizer with a small vocabulary."""

import pytest

from app.providers.embeddings.wordpiece import WordPieceTokenizer

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
        ("", []),
    ],
)
def test_a_text_is_split_like_the_training_data_of_the_model(text: str, pieces: list[str]) -> None:
    numbers = WordPieceTokenizer(PIECES).encode(text, 64)
    assert [PIECES[number] for number in numbers] == ["[CLS]", *pieces, "[SEP]"]


def test_a_long_text_is_truncated_and_keeps_its_delimiter() -> None:
    numbers = WordPieceTokenizer(PIECES).encode("a " * 1_000_000, 8)
    assert [PIECES[number] for number in numbers] == ["[CLS]", *["a"] * 6, "[SEP]"]
