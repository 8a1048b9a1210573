"""Embeddings over OpenAI's wire: ``POST /embeddings``, which many servers speak."""

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias
from uuid import UUID

import msgspec

from app.base.errors import ModelCredentials, ModelError, ModelProtocol, ModelRejected
from app.providers.embeddings.port import Vector
from app.providers.llm.token_estimate import weight_of_text
from app.providers.llm.vendor_health import FailureScope, Vendor

if TYPE_CHECKING:  # loads aiohttp
    from app.providers.llm.adapters.http_client import Endpoint, HttpClient

    Connect: TypeAlias = Callable[[], tuple[HttpClient, Endpoint]]

VENDOR = "openai"
NATIVE = {"text-embedding-3-small": 1536, "text-embedding-3-large": 3072, "text-embedding-ada-002": 1536}
"""The dimensions of models that are known; a smaller number is asked for."""
MAX_TEXTS = 64
MAX_TEXT_LENGTH = 8000
"""Characters of a text that are sent."""
SECONDS = 20.0
PAUSE_SECONDS = 0.3


class _EmbeddingRow(msgspec.Struct):
    index: int
    embedding: list[float]


class _EmbeddingResponse(msgspec.Struct):
    data: list[_EmbeddingRow]


class OpenAIEmbedder:
    """A model behind ``/embeddings``. ``connect`` gives the client and the endpoint when they are first needed.

    ``charged`` is called with the owner of texts that were embedded, the model's name and their (estimated) tokens.
    """

    def __init__(
        self,
        model: str,
        dimensions: int,
        connect: "Connect",
        charged: Callable[[UUID, str, int], None] = lambda *_: None,
    ) -> None:
        self._charged = charged
        self.name = f"{VENDOR}:{model}"
        self.dimensions = dimensions
        self._model = model
        self._connect = connect
        self._vendor = Vendor(f"{VENDOR} embeddings")

    async def embed(self, texts: Sequence[str], owners: Sequence[UUID] = ()) -> list[Vector]:
        """In requests of up to 64 texts each. Raises ``ModelError``."""
        found: list[Vector] = []
        for start in range(0, len(texts), MAX_TEXTS):
            batch = [text[:MAX_TEXT_LENGTH] for text in texts[start : start + MAX_TEXTS]]
            tenants = set(owners[start : start + MAX_TEXTS])
            scope = FailureScope(str(tenants.pop())) if len(tenants) == 1 else FailureScope()
            found += await self._patiently(batch, scope)
            self._charge(batch, owners[start : start + MAX_TEXTS])
        return found

    def _charge(self, texts: Sequence[str], owners: Sequence[UUID]) -> None:
        tokens: dict[UUID, int] = {}
        for text, owner in zip(texts, owners, strict=False):
            tokens[owner] = tokens.get(owner, 0) + weight_of_text(text)
        for owner, count in tokens.items():
            self._charged(owner, self.name, count)

    async def _patiently(self, texts: list[str], scope: FailureScope) -> list[Vector]:
        """With either key; where both are refused, with those that are there by now, if they are others."""
        try:
            return await self._with_either(texts, scope)
        except ModelCredentials:
            if not self._connect()[1].keys.refresh():
                raise
        return await self._with_either(texts, scope)

    async def _with_either(self, texts: list[str], scope: FailureScope) -> list[Vector]:
        client, endpoint = self._connect()
        try:
            return await self._twice(client, endpoint, texts, scope)
        except ModelCredentials:
            if endpoint.spare_key is None:
                raise
        other = msgspec.structs.replace(endpoint, key=endpoint.spare_key, spare_key=endpoint.key)
        return await self._twice(client, other, texts, scope._replace(key="spare"))

    async def _twice(
        self, client: "HttpClient", endpoint: "Endpoint", texts: list[str], scope: FailureScope
    ) -> list[Vector]:
        """Ask once more where that may help at once."""
        try:
            return await self._ask(client, endpoint, texts, scope)
        except ModelError as error:
            if not error.retryable or (error.retry_after or 0) > 1:
                raise
        await asyncio.sleep(PAUSE_SECONDS)
        return await self._ask(client, endpoint, texts, scope)

    async def _ask(
        self, client: "HttpClient", endpoint: "Endpoint", texts: list[str], scope: FailureScope
    ) -> list[Vector]:
        body: dict[str, object] = {"model": self._model, "input": texts}
        if NATIVE.get(self._model, self.dimensions) != self.dimensions:
            body["dimensions"] = self.dimensions
        attempt = self._vendor.begin(scope)
        try:
            answer = await client.fetch(endpoint, "/embeddings", SECONDS, msgspec.json.encode(body))
            found = self._read(answer, len(texts))
            attempt.succeeded()
        except ModelError as error:
            attempt.failed(error)
            raise
        finally:
            attempt.abandoned()
        return found

    def _read(self, answer: bytes, count: int) -> list[Vector]:
        try:
            data = sorted(msgspec.json.decode(answer, type=_EmbeddingResponse).data, key=lambda one: one.index)
        except msgspec.DecodeError as error:
            raise ModelProtocol(f"{self.name} sent something that is no list of embeddings", vendor=VENDOR) from error
        if [one.index for one in data] != list(range(count)):
            raise ModelProtocol(f"{self.name} sent embeddings of other texts than were asked for", vendor=VENDOR)
        for one in data:
            if len(one.embedding) != self.dimensions:
                raise ModelRejected(
                    f"{self.name} gives {len(one.embedding)} dimensions, the agents file says {self.dimensions}",
                    vendor=VENDOR,
                )
        return [self._direction(one.embedding) for one in data]

    def _direction(self, numbers: list[float]) -> list[float]:
        """``numbers`` at length 1, which every table can hold."""
        length = math.sqrt(sum(number * number for number in numbers))
        if not 0 < length < math.inf:
            raise ModelProtocol(f"{self.name} sent an embedding that points nowhere", vendor=VENDOR)
        return [number / length for number in numbers]
