"""Names → models: ``vendor:model``, with what all models of a vendor share. The only place that picks adapters."""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any, cast

import msgspec

from app.base.errors import Invalid, ModelError
from app.llm import profiles
from app.llm.failover import Failover, Link
from app.llm.port import Finished, Model, ModelEvent, ModelRequest
from app.llm.scripted import MODELS as SCRIPTED
from app.llm.vendor import Vendor
from app.settings import LlmSettings
from app.telemetry.meters import Meters

VENDORS = ("openai", "anthropic", "scripted")
ANTHROPIC_HEADERS = {"anthropic-version": "2023-06-01"}
FIRST_LISTED = "auto"

NO_KEY = "no provider key found; set OPENAI_API_KEY, ANTHROPIC_API_KEY or OPENAI_BASE_URL"


class Registry:
    """The models of this process. Adapters are made, and their libraries imported, when an agent first names them."""

    def __init__(self, settings: LlmSettings, meters: Meters) -> None:
        self._settings = settings
        self._meters = meters
        self._vendors: dict[str, Vendor] = {}
        self._http: Any = None

    def default(self) -> tuple[str, str]:
        """The model of agents that name none, and why it is that one."""
        given = self._settings
        if given.default_model:
            return given.default_model, "AGENT_DEFAULT_MODEL"
        if given.openai_api_key is not None:
            return f"openai:{profiles.OPENAI_DEFAULT}", "OPENAI_API_KEY is set"
        if given.openai_base_url:
            return f"openai:{FIRST_LISTED}", "OPENAI_BASE_URL is set: the first model that it lists"
        if given.anthropic_api_key is not None:
            return f"anthropic:{profiles.ANTHROPIC_DEFAULT}", "ANTHROPIC_API_KEY is set"
        return "scripted:demo", NO_KEY

    def model(self, name: str, fallback: Sequence[str] = ()) -> Model:
        """The model ``name`` (empty: the default one), handing over to ``fallback`` in turn. Raises ``Invalid``."""
        links = [self._link(one) for one in (name or self.default()[0], *fallback)]
        if len(links) == 1 and links[0].model.vendor == "scripted":
            return links[0].model  # nothing there can fail, and nothing is paid
        return Measured(Failover(links), self._meters)

    def health(self) -> dict[str, dict[str, Any]]:
        """How each vendor in use did in real traffic lately; asks nobody."""
        return {name: msgspec.to_builtins(vendor.observation) for name, vendor in self._vendors.items()}

    async def aclose(self) -> None:
        """Close the connections."""
        if self._http is not None:
            await self._http.aclose()

    def _link(self, name: str) -> Link:
        vendor, _, model = name.partition(":")
        if vendor not in VENDORS or not model:
            raise Invalid(f"unknown model {name!r}: write vendor:model with one of the vendors {', '.join(VENDORS)}")
        if vendor == "scripted":
            if model not in SCRIPTED:
                raise Invalid(f"unknown model {name!r}: the scripted ones are {', '.join(SCRIPTED)}")
            return Link(SCRIPTED[model](), Vendor("scripted"))
        found = self._vendors.setdefault(vendor, Vendor(vendor))
        return Link(self._openai(model) if vendor == "openai" else self._anthropic(model), found)

    def _openai(self, model: str) -> Model:
        from app.llm.http import Endpoint
        from app.llm.openai import OpenAIModel

        base_url = self._settings.openai_base_url.rstrip("/") or profiles.OPENAI_URL
        key = self._settings.openai_api_key
        if key is None and not self._settings.openai_base_url:
            raise Invalid(
                f"openai:{model} needs a key: set OPENAI_API_KEY, or OPENAI_BASE_URL for a server without one"
            )
        return OpenAIModel(model, self._client(), Endpoint(vendor="openai", base_url=base_url, key=key))

    def _anthropic(self, model: str) -> Model:
        from app.llm.anthropic import AnthropicModel
        from app.llm.http import Endpoint

        key = self._settings.anthropic_api_key
        if key is None:
            raise Invalid(f"anthropic:{model} needs a key: set ANTHROPIC_API_KEY")
        endpoint = Endpoint(
            vendor="anthropic",
            base_url=self._settings.anthropic_base_url.rstrip("/") or profiles.ANTHROPIC_URL,
            key=key,
            key_header="x-api-key",
            key_prefix="",
            headers=ANTHROPIC_HEADERS,
        )
        return AnthropicModel(model, self._client(), endpoint)

    def _client(self) -> Any:
        if self._http is None:
            from app.llm.http import HttpClient

            self._http = HttpClient()
        return self._http


class Measured:
    """A model whose calls and tokens are counted (GenAI semantic conventions)."""

    def __init__(self, model: Failover, meters: Meters) -> None:
        self.vendor = model.vendor
        self.name = model.name
        self._model = model
        self._meters = meters

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """Ask and count."""
        began = time.monotonic()
        vendor, name, failure = self.vendor, self._model.name, ""
        events = cast("AsyncGenerator[ModelEvent, None]", self._model.stream(request))
        try:
            async for event in events:
                if isinstance(event, Finished):
                    vendor, name = event.vendor, event.model
                    self._count(event)
                yield event
        except ModelError as error:
            failure = type(error).__name__
            raise
        finally:
            await events.aclose()
            self._meters.model_duration.record(time.monotonic() - began, "chat", vendor, name, failure)

    def _count(self, end: Finished) -> None:
        if end.usage is not None:
            labels = ("chat", end.vendor, end.model)
            self._meters.model_tokens.record(end.usage.input_tokens, *labels, "input")
            self._meters.model_tokens.record(end.usage.output_tokens, *labels, "output")
