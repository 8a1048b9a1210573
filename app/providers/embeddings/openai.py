"""Embedder for the OpenAI API: ``POST /embeddings``, which many servers implement."""

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias
from uuid import UUID

import msgspec

from app.base.errors import ModelCredentials, ModelError, ModelProtocol, ModelRejected
from app.base.json_scan import UNREADABLE_JSON
from app.providers.embeddings.port import Vector
from app.providers.llm.token_estimate import estimate_text_tokens
from app.providers.llm.vendor_health import FailureScope, Vendor

if TYPE_CHECKING:  # loads aiohttp
    from app.providers.llm.adapters.http_client import Endpoint, HttpClient

    Connect: TypeAlias = Callable[[], tuple[HttpClient, Endpoint]]

VENDOR = "openai"
NATIVE_DIMENSIONS = {"text-embedding-3-small": 1536, "text-embedding-3-large": 3072, "text-embedding-ada-002": 1536}
"""Native dimensions of known models; fewer are requested with ``dimensions``."""
MAX_TEXTS = 64
MAX_TEXT_LENGTH = 8000
"""Characters; longer texts are truncated."""
TIMEOUT_SECONDS = 20.0
RETRY_SECONDS = 0.3


class _EmbeddingRow(msgspec.Struct):
    index: int
    embedding: list[float]


class _EmbeddingResponse(msgspec.Struct):
    data: list[_EmbeddingRow]


class OpenAIEmbedder:
    """A model behind ``/embeddings``. ``connect`` returns the client and the endpoint on first use.

    ``on_usage`` is called after each request with an owner of its texts, the model's name and their estimated tokens.
    """

    def __init__(
        self,
        model: str,
        dimensions: int,
        connect: "Connect",
        on_usage: Callable[[UUID, str, int], None] = lambda *_: None,
    ) -> None:
        self._on_usage = on_usage
        self.name = f"{VENDOR}:{model}"
        self.dimensions = dimensions
        self._model = model
        self._connect = connect
        self._vendor = Vendor(f"{VENDOR} embeddings")

    async def embed(self, texts: Sequence[str], owners: Sequence[UUID] = ()) -> list[Vector]:
        """Embed ``texts`` in requests of up to 64 each. Raises ``ModelError``."""
        found: list[Vector] = []
        for start in range(0, len(texts), MAX_TEXTS):
            batch = [text[:MAX_TEXT_LENGTH] for text in texts[start : start + MAX_TEXTS]]
            tenants = set(owners[start : start + MAX_TEXTS])
            scope = FailureScope(str(tenants.pop())) if len(tenants) == 1 else FailureScope()
            found += await self._with_fresh_keys(batch, scope)
            self._charge(batch, owners[start : start + MAX_TEXTS])
        return found

    def _charge(self, texts: Sequence[str], owners: Sequence[UUID]) -> None:
        tokens: dict[UUID, int] = {}
        for text, owner in zip(texts, owners, strict=False):
            tokens[owner] = tokens.get(owner, 0) + estimate_text_tokens(text)
        for owner, count in tokens.items():
            self._on_usage(owner, self.name, count)

    async def _with_fresh_keys(self, texts: list[str], scope: FailureScope) -> list[Vector]:
        """Try both keys; if both are refused, reload them and try again if they have changed."""
        try:
            return await self._with_either_key(texts, scope)
        except ModelCredentials:
            if not self._connect()[1].keys.refresh():
                raise
        return await self._with_either_key(texts, scope)

    async def _with_either_key(self, texts: list[str], scope: FailureScope) -> list[Vector]:
        client, endpoint = self._connect()
        try:
            return await self._with_retry(client, endpoint, texts, scope)
        except ModelCredentials:
            if endpoint.spare_key is None:
                raise
        spare = msgspec.structs.replace(endpoint, key=endpoint.spare_key, spare_key=endpoint.key)
        return await self._with_retry(client, spare, texts, scope._replace(key="spare"))

    async def _with_retry(
        self, client: "HttpClient", endpoint: "Endpoint", texts: list[str], scope: FailureScope
    ) -> list[Vector]:
        """Retry once after a transient error."""
        try:
            return await self._request(client, endpoint, texts, scope)
        except ModelError as error:
            if not error.retryable or (error.retry_after or 0) > 1:
                raise
        await asyncio.sleep(RETRY_SECONDS)
        return await self._request(client, endpoint, texts, scope)

    async def _request(
        self, client: "HttpClient", endpoint: "Endpoint", texts: list[str], scope: FailureScope
    ) -> list[Vector]:
        body: dict[str, object] = {"model": self._model, "input": texts}
        if NATIVE_DIMENSIONS.get(self._model, self.dimensions) != self.dimensions:
            body["dimensions"] = self.dimensions
        attempt = self._vendor.begin(scope)
        try:
            response = await client.fetch(endpoint, "/embeddings", TIMEOUT_SECONDS, msgspec.json.encode(body))
            found = self._parse(response, len(texts))
            attempt.succeeded()
        except ModelError as error:
            attempt.failed(error)
            raise
        finally:
            attempt.abandoned()
        return found

    def _parse(self, response: bytes, count: int) -> list[Vector]:
        try:
            data = sorted(msgspec.json.decode(response, type=_EmbeddingResponse).data, key=lambda one: one.index)
        except UNREADABLE_JSON as error:
            raise ModelProtocol(
                f"{self.name} sent a response that is not a list of embeddings", vendor=VENDOR
            ) from error
        if [one.index for one in data] != list(range(count)):
            raise ModelProtocol(f"{self.name} sent embeddings of other texts than requested", vendor=VENDOR)
        for one in data:
            if len(one.embedding) != self.dimensions:
                raise ModelRejected(
                    f"{self.name} returns {len(one.embedding)} dimensions, the agents file has {self.dimensions}",
                    vendor=VENDOR,
                )
        return [self._normalise(one.embedding) for one in data]

    def _normalise(self, numbers: list[float]) -> list[float]:
        """Scale a vector to length 1, which 16-bit floats can hold."""
        length = math.sqrt(sum(number * number for number in numbers))
        if not 0 < length < math.inf:
            raise ModelProtocol(f"{self.name} sent an embedding without a direction", vendor=VENDOR)
        return [number / length for number in numbers]
