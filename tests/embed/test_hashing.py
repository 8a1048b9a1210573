"""The hashing embedder."""

import math

from app.providers.embeddings.hashing import THREAD_LENGTH, HashingEmbedder, hash_text


def similarity(one: str, other: str, dimensions: int = 384) -> float:
    return sum(a * b for a, b in zip(hash_text(one, dimensions), hash_text(other, dimensions), strict=True))


def test_every_vector_has_length_one_whatever_the_text() -> None:
    for text in ("", " ", "?!", "a", "x" * 100_000, "世界", "🌍", "\n\n", "a b c " * 5000):
        for dimensions in (8, 384, 3072):
            vector = hash_text(text, dimensions)
            assert len(vector) == dimensions
            assert math.isclose(sum(number * number for number in vector), 1, rel_tol=1e-9)


def test_the_same_text_has_the_same_vector_in_any_case_and_order() -> None:
    assert math.isclose(similarity("The Red Fox", "fox red the"), 1, rel_tol=1e-9)
    first = hash_text("stable over processes", 16)[:3]
    assert [round(number, 6) for number in first] == [-0.19001, -0.047299, 0.084706]


def test_texts_that_share_words_or_parts_of_words_are_more_similar() -> None:
    for text, near, far in (
        ("Alice loves climbing mountains", "mountain climbers", "the quarterly tax report"),
        ("my favourite colour is blue", "favorite color", "a trip to Lisbon"),
        ("Лыжные прогулки в горах", "прогулка", "квартальный отчёт"),
        ("私は東京に住んでいます", "東京の天気", "大阪の食べ物"),
    ):
        assert similarity(text, near) > similarity(text, far) + 0.1


def test_synonyms_are_not_similar() -> None:
    assert abs(similarity("automobile", "car")) < 0.2


async def test_a_batch_gives_the_same_vectors_as_single_texts() -> None:
    embedder = HashingEmbedder(64)
    texts = ["one", "two", "three " * THREAD_LENGTH]
    assert await embedder.embed(texts) == [hash_text(text, 64) for text in texts]
    assert await embedder.embed([]) == []
