"""Word pieces, on a vocabulary that can be looked over."""

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
        ("a\u00ad\u200bb\x00\ufffd", ["a", "##b"]),  # what is not seen is not there
        ("unab cafe", ["[UNK]", "cafe"]),
        ("x" * 101, ["[UNK]"]),
        ("\u2028 \t\n", []),
        ("", []),
    ],
)
def test_a_text_is_cut_as_the_model_was_taught(text: str, pieces: list[str]) -> None:
    numbers = WordPieceTokenizer(PIECES).encode(text, 64)
    assert [PIECES[number] for number in numbers] == ["[CLS]", *pieces, "[SEP]"]


def test_a_long_text_is_cut_off_and_keeps_its_border() -> None:
    numbers = WordPieceTokenizer(PIECES).encode("a " * 1_000_000, 8)
    assert [PIECES[number] for number in numbers] == ["[CLS]", *["a"] * 6, "[SEP]"]
