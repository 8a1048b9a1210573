"""The forward pass of a small BERT in numpy (https://arxiv.org/abs/1810.04805), for sentences (arXiv:1908.10084)."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from app.providers.embeddings.wordpiece import load_tokenizer

Array = Any
"""A numpy array."""

HEADS = 12
LAYERS = 6
MAX_SEQUENCE_LENGTH = 256
"""Word pieces per text; longer texts are truncated (``max_seq_length`` of the model)."""
MAX_BATCH_PIECES = 2048
"""Word pieces of one forward pass, which bounds its memory to about 60 MB."""
EPSILON = 1e-12


class Bert:
    """A model loaded from a folder with ``vocab.txt`` and ``model.safetensors``.

    The weights are memory-mapped, so the processes of a machine share them.
    """

    def __init__(self, folder: Path) -> None:
        self._tokenizer = load_tokenizer(folder / "vocab.txt", MAX_SEQUENCE_LENGTH)
        self._weights = _weights(folder / "model.safetensors")
        # BLAS threads wait by spinning: on a busy machine two are many times slower than one
        threadpool_limits(1, user_api="blas")

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Return the mean of each text's last layer, normalised to length 1."""
        pieces = [self._tokenizer.encode(text).ids for text in texts]
        order = sorted(range(len(texts)), key=lambda n: len(pieces[n]))  # texts of similar length need little padding
        found: list[list[float]] = [[] for _ in texts]
        while order:
            batch = order[: max(1, MAX_BATCH_PIECES // len(pieces[order[0]]))]
            while len(batch) * len(pieces[batch[-1]]) > MAX_BATCH_PIECES and len(batch) > 1:
                batch.pop()
            del order[: len(batch)]
            for number, vector in zip(batch, self._pass([pieces[n] for n in batch]), strict=True):
                found[number] = vector.tolist()
        return found

    def _pass(self, texts: list[list[int]]) -> Array:
        weights = self._weights
        longest = max(map(len, texts))
        ids = np.array([text + [0] * (longest - len(text)) for text in texts])
        mask = np.array([[1.0] * len(text) + [0.0] * (longest - len(text)) for text in texts], dtype=np.float32)
        hidden_states = weights["embeddings.word_embeddings.weight"][ids]
        hidden_states += weights["embeddings.position_embeddings.weight"][:longest]
        hidden_states += weights["embeddings.token_type_embeddings.weight"][0]
        hidden_states = self._layer_norm(hidden_states, "embeddings.LayerNorm")
        padding = (1.0 - mask)[:, None, None, :] * np.float32(-1e9)
        for layer in range(LAYERS):
            hidden_states = self._layer(hidden_states, padding, f"encoder.layer.{layer}")
        mean = (hidden_states * mask[:, :, None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
        return mean / np.linalg.norm(mean, axis=1, keepdims=True)

    def _layer(self, hidden_states: Array, padding: Array, name: str) -> Array:
        texts, length, width = hidden_states.shape

        def head(part: str) -> Array:
            whole = self._linear(hidden_states, f"{name}.attention.self.{part}")
            return whole.reshape(texts, length, HEADS, width // HEADS).transpose(0, 2, 1, 3)

        scores = head("query") @ head("key").transpose(0, 1, 3, 2)
        scores *= np.float32((width // HEADS) ** -0.5)
        scores += padding
        scores -= scores.max(axis=-1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=-1, keepdims=True)
        attention_output = (scores @ head("value")).transpose(0, 2, 1, 3).reshape(texts, length, width)
        hidden_states = hidden_states + self._linear(attention_output, f"{name}.attention.output.dense")
        hidden_states = self._layer_norm(hidden_states, f"{name}.attention.output.LayerNorm")
        inner = _gelu(self._linear(hidden_states, f"{name}.intermediate.dense"))
        return self._layer_norm(hidden_states + self._linear(inner, f"{name}.output.dense"), f"{name}.output.LayerNorm")

    def _linear(self, hidden_states: Array, name: str) -> Array:
        return hidden_states @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"]

    def _layer_norm(self, hidden_states: Array, name: str) -> Array:
        hidden_states = hidden_states - hidden_states.mean(axis=-1, keepdims=True)
        hidden_states /= np.sqrt((hidden_states * hidden_states).mean(axis=-1, keepdims=True) + EPSILON)
        return hidden_states * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"]


def _gelu(x: Array) -> Array:
    """x · Φ(x), Φ by Abramowitz and Stegun 7.1.26 (error below 1.5e-7, about float32 precision)."""
    z = np.abs(x) * np.float32(0.5**0.5)
    t = 1 / (1 + np.float32(0.3275911) * z)
    tail = np.float32(1.061405429)
    for factor in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        tail = tail * t + np.float32(factor)
    half = np.float32(0.5) * tail * t * np.exp(-z * z)
    return x * np.where(x >= 0, 1 - half, half)


def _weights(path: Path) -> dict[str, Array]:
    """Map the float32 tensors of a safetensors file (https://huggingface.co/docs/safetensors)."""
    whole = np.memmap(path, dtype=np.uint8, mode="r")
    start = 8 + int.from_bytes(whole[:8].tobytes(), "little")
    header = json.loads(whole[8:start].tobytes())
    found = {}
    for name, one in header.items():
        if one.get("dtype") == "F32":
            first, last = one["data_offsets"]
            found[name] = whole[start + first : start + last].view("<f4").reshape(one["shape"])
    return found
