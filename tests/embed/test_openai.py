"""The OpenAI embedder: requests, batches, retries and invalid responses."""

import math
from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.base.errors import (
    Invalid,
    ModelCredentials,
    ModelError,
    ModelProtocol,
    ModelRejected,
    ModelUnavailable,
    UsageError,
)
from app.infra.secrets.secret import Secret
from app.infra.settings import LlmSettings
from app.infra.telemetry.meters import Meters
from app.providers.embeddings.hashing import HashingEmbedder
from app.providers.embeddings.openai import OpenAIEmbedder
from app.providers.embeddings.port import Embedder
from app.providers.embeddings.registry import build_embedder, dimensions_of
from app.providers.llm.registry import ModelRegistry
from tests.embed.server import Embeddings, meaning


@pytest.fixture
async def server() -> AsyncIterator[Embeddings]:
    async with Embeddings() as server:
        yield server


@pytest.fixture
async def models(server: Embeddings) -> AsyncIterator[ModelRegistry]:
    settings = LlmSettings(
        openai_base_url=server.url, openai_api_key=Secret("first"), openai_api_key_secondary=Secret("second")
    )
    models = ModelRegistry(settings, Meters())
    yield models
    await models.aclose()


def embedder(models: ModelRegistry, name: str = "openai:small", dimensions: int = 64) -> Embedder:
    found = build_embedder(name, dimensions, models)
    assert isinstance(found, OpenAIEmbedder)
    return found


async def test_texts_are_requested_in_batches_and_returned_in_order(server: Embeddings, models: ModelRegistry) -> None:
    texts = [f"text number {number}" for number in range(150)]
    found = await embedder(models).embed(texts)
    assert [len(body["input"]) for body in server.asked] == [64, 64, 22]
    assert {body["model"] for body in server.asked} == {"small"}
    assert all("dimensions" not in body for body in server.asked)
    for text, vector in zip(texts, found, strict=True):
        assert all(math.isclose(a, b, abs_tol=1e-9) for a, b in zip(vector, meaning(text, 64), strict=True))
    assert set(server.keys) == {"first"}


async def test_fewer_dimensions_than_a_known_model_has_are_requested(server: Embeddings, models: ModelRegistry) -> None:
    (vector,) = await embedder(models, "openai:text-embedding-3-small", 256).embed(["x"])
    assert (server.asked[0]["dimensions"], len(vector)) == (256, 256)
    assert dimensions_of("openai:text-embedding-3-small", 0) == 1536


async def test_a_long_text_is_truncated(server: Embeddings, models: ModelRegistry) -> None:
    await embedder(models).embed(["x" * 100_000])
    assert len(server.asked[0]["input"][0]) == 8000


async def test_a_refused_key_falls_back_to_the_secondary(server: Embeddings, models: ModelRegistry) -> None:
    server.refused_keys = {"first"}
    assert len(await embedder(models).embed(["x"])) == 1
    assert server.keys == ["first", "second"]
    server.refused_keys = {"first", "second"}
    with pytest.raises(ModelCredentials):
        await embedder(models).embed(["x"])


async def test_a_transient_error_is_retried_once(server: Embeddings, models: ModelRegistry) -> None:
    server.plan.append((503, {}))
    assert len(await embedder(models).embed(["x"])) == 1
    server.down = True
    with pytest.raises(ModelUnavailable):
        await embedder(models).embed(["x"])
    assert len(server.asked) == 4


def one(embedding: Any, index: int = 0) -> dict[str, Any]:
    return {"data": [{"index": index, "embedding": embedding}]}


@pytest.mark.parametrize(
    "answer,error",
    [
        ({}, ModelProtocol),
        ([], ModelProtocol),
        ({"data": []}, ModelProtocol),
        (one([1.0] * 64, index=1), ModelProtocol),
        (one([0.0] * 64), ModelProtocol),
        (one([1e200] * 64), ModelProtocol),
        (one(["x"] * 64), ModelProtocol),
        (one("AAAA"), ModelProtocol),
        (one([1.0] * 63), ModelRejected),
    ],
)
async def test_an_invalid_response_is_an_error(
    server: Embeddings, models: ModelRegistry, answer: Any, error: type[ModelError]
) -> None:
    server.plan.extend([(200, answer)] * 2)
    with pytest.raises(error):
        await embedder(models).embed(["x"])


async def test_a_rejected_request_is_not_retried(server: Embeddings, models: ModelRegistry) -> None:
    server.plan.append((400, {"error": {"message": "too long"}}))
    with pytest.raises(ModelRejected):
        await embedder(models).embed(["x"])
    assert len(server.asked) == 1


def test_names_of_embedders_are_validated(models: ModelRegistry) -> None:
    assert isinstance(build_embedder("hashing", 0, models), HashingEmbedder)
    assert build_embedder("none", 0, models) is None
    for name, dimensions, words in (
        ("hash", 0, "unknown embedder"),
        ("openai:", 0, "unknown embedder"),
        ("cohere:x", 0, "unknown embedder"),
        ("openai:own", 0, "give dimensions"),
        ("openai:own", 4000, "from 8 to 3072"),
        ("hashing", 4, "from 8 to 3072"),
    ):
        with pytest.raises(UsageError, match=words):
            build_embedder(name, dimensions, models)
    with pytest.raises(Invalid, match="needs a key"):
        build_embedder("openai:text-embedding-3-small", 0, ModelRegistry(LlmSettings(), Meters()))
