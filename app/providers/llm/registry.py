"""Registry of models by name (``vendor:model``) and of their vendors. The only module that selects adapters."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import UUID

import msgspec

from app.base.errors import Invalid, ModelCredentials, ModelError, UsageError
from app.infra.cache.namespaces import CacheNamespace
from app.infra.secrets.rotating_secret import RotatingSecret, SecretStore
from app.infra.secrets.secret import Secret
from app.infra.settings import LlmSettings
from app.infra.telemetry.meters import Meters
from app.infra.telemetry.tracing import NO_TRACER, Tracer
from app.providers.llm.failover import FailoverModel, ModelLink, RetryRules
from app.providers.llm.instrumented import InstrumentedModel
from app.providers.llm.port import Model
from app.providers.llm.profiles import ANTHROPIC_DEFAULT, ANTHROPIC_URL, OPENAI_DEFAULT, OPENAI_URL
from app.providers.llm.response_cache import CachedModel, ResponseCache
from app.providers.llm.scripted import MODELS as SCRIPTED
from app.providers.llm.vendor_health import Vendor

if TYPE_CHECKING:  # loads aiohttp
    from app.providers.llm.adapters.http_client import Endpoint, HttpClient
    from app.providers.llm.adapters.streaming_model import HttpModel

VENDORS = ("openai", "anthropic", "scripted")
ANTHROPIC_HEADERS = {"anthropic-version": "2023-06-01"}
FIRST_LISTED = "auto"
PROBE_SECONDS = 60.0

NO_KEY = "no provider key found; set OPENAI_API_KEY, ANTHROPIC_API_KEY or OPENAI_BASE_URL"


class ModelRegistry:
    """The models of this process. Adapters are created, and their libraries imported, at first use.

    Raises ``UsageError`` if a base URL or a key is invalid.
    """

    def __init__(
        self,
        settings: LlmSettings,
        meters: Meters,
        rules: RetryRules = RetryRules(),
        *,
        secrets: SecretStore | None = None,
        tracer: Tracer = NO_TRACER,
        answers: CacheNamespace | None = None,
    ) -> None:
        """``secrets``: source of rotated keys; ``answers``: response cache for agents that enable it."""
        self._responses = None if answers is None else ResponseCache(answers, meters)
        self._settings = settings
        self._secrets = secrets
        self._meters = meters
        self._tracer = tracer
        self._rules = rules
        self.openai_url = address("OPENAI_BASE_URL", settings.openai_base_url) or OPENAI_URL
        self._anthropic_url = address("ANTHROPIC_BASE_URL", settings.anthropic_base_url) or ANTHROPIC_URL
        check_key("OPENAI_API_KEY", settings.openai_api_key)
        check_key("OPENAI_API_KEY_SECONDARY", settings.openai_api_key_secondary)
        check_key("ANTHROPIC_API_KEY", settings.anthropic_api_key)
        check_key("ANTHROPIC_API_KEY_SECONDARY", settings.anthropic_api_key_secondary)
        self._vendors: dict[str, Vendor] = {}
        self._adapters: dict[str, HttpModel] = {}
        self._rotating_secrets: dict[str, RotatingSecret] = {}
        self._http: HttpClient | None = None
        self.charge_to: Callable[[UUID, str, int], None] = lambda *_: None
        """Called with tenant, model name and tokens of calls outside of runs, such as embeddings."""

    def charge(self, tenant: UUID, model: str, tokens: int) -> None:
        """Charge a tenant for tokens of ``model`` (vendor:model)."""
        self.charge_to(tenant, model, tokens)

    def default(self) -> tuple[str, str]:
        """Return the default model and the reason for the choice.

        ``openai:auto`` is the first model that the server at ``OPENAI_BASE_URL`` lists, resolved at the first call.
        """
        given = self._settings
        if given.default_model:
            return given.default_model, "AGENT_DEFAULT_MODEL is set"
        if self.openai_url != OPENAI_URL:
            return f"openai:{FIRST_LISTED}", "OPENAI_BASE_URL is set: the first model that it lists"
        if given.openai_api_key is not None:
            return f"openai:{OPENAI_DEFAULT}", "OPENAI_API_KEY is set"
        if given.anthropic_api_key is not None:
            return f"anthropic:{ANTHROPIC_DEFAULT}", "ANTHROPIC_API_KEY is set"
        return "scripted:demo", NO_KEY

    def model(self, name: str, fallback: Sequence[str] = (), cache_ttl: float = 0) -> Model:
        """Return the model ``name`` (empty: the default) with its ``fallback`` models.

        Its answers are cached for ``cache_ttl`` seconds, per tenant. Raises ``Invalid`` for an invalid name, an unknown
        vendor or script, or a missing key; ``UsageError`` if ``AGENT_DEFAULT_MODEL`` is invalid.
        """
        try:
            links = [self._link(name or self.default()[0])]
        except Invalid as error:
            if name or not self._settings.default_model:
                raise
            raise UsageError(f"AGENT_DEFAULT_MODEL: {error}") from None
        links += [self._link(one) for one in fallback]
        model = self._wrapped(links)
        if not cache_ttl or self._responses is None:
            return model
        return CachedModel(model, self._responses, lambda: self._identity(links), cache_ttl)

    def _wrapped(self, links: Sequence[ModelLink]) -> Model:
        if len(links) == 1 and links[0].model.vendor == "scripted":
            # scripted models cannot fail and are free
            model = links[0].model
            return InstrumentedModel(model, self._meters, self._tracer) if self._tracer.active else model
        return InstrumentedModel(FailoverModel(links, self._rules, meters=self._meters), self._meters, self._tracer)

    def _identity(self, links: Sequence[ModelLink]) -> list[str]:
        """Return the names and URLs that identify the answering models; empty while ``auto`` is unresolved."""
        names = [f"{link.model.vendor}:{link.model.name}" for link in links]
        if any(name == f"openai:{FIRST_LISTED}" for name in names):
            return []
        return [*names, self.openai_url, self._anthropic_url]

    def health(self) -> dict[str, dict[str, Any]]:
        """Return the latest observation of each vendor in use, from traffic and ``probe``; does no I/O."""
        return {name: msgspec.to_builtins(vendor.observation) for name, vendor in self._vendors.items()}

    def breakers(self) -> dict[str, bool]:
        """Return whether the circuit breaker of each vendor in use is open."""
        return {name: vendor.open for name, vendor in self._vendors.items()}

    async def probe(self) -> None:
        """Probe each vendor in use without a recent observation (``PROBE_SECONDS``), by listing its models for free.

        Results are observations, never errors, and do not affect breakers: a server that lists its models may still
        fail to answer. Safe to call often.
        """
        for adapter in {adapter.vendor: adapter for adapter in self._adapters.values()}.values():
            vendor = self._vendors[adapter.vendor]
            started_at = vendor.clock()
            if vendor.observed is not None and started_at - vendor.observed < PROBE_SECONDS:
                continue
            vendor.observed = started_at
            try:
                await adapter.list_models()
            except ModelError as error:
                vendor.observe("degraded", error=error)
            else:
                vendor.observe("healthy", vendor.clock() - started_at)

    def check_openai(self, name: str) -> None:
        """Raise ``Invalid`` if ``name`` needs a key and none is set."""
        if self._settings.openai_api_key is None and self.openai_url == OPENAI_URL:
            raise Invalid(f"{name} needs a key: set OPENAI_API_KEY, or OPENAI_BASE_URL for a server without one")

    def openai(self) -> "tuple[HttpClient, Endpoint]":
        """Return the HTTP client and the endpoint of the vendor ``openai``."""
        from app.providers.llm.adapters.http_client import Endpoint

        given = self._settings
        keys = self._rotating_secret("OPENAI_API_KEY", given.openai_api_key, given.openai_api_key_secondary)
        key, spare = keys.pair()
        endpoint = Endpoint(vendor="openai", base_url=self.openai_url, key=key, spare_key=spare, keys=keys)
        return self._client(), endpoint

    async def aclose(self) -> None:
        """Close all connections."""
        if self._http is not None:
            await self._http.aclose()

    def _link(self, name: str) -> ModelLink:
        vendor, _, model = name.partition(":")
        if vendor not in VENDORS or not model:
            raise Invalid(f"unknown model {name!r}: write vendor:model with one of the vendors {', '.join(VENDORS)}")
        if vendor == "scripted":
            if model not in SCRIPTED:
                raise Invalid(f"unknown model {name!r}: the scripted ones are {', '.join(SCRIPTED)}")
            return ModelLink(SCRIPTED[model](), Vendor("scripted"))
        if name not in self._adapters:
            self._adapters[name] = self._openai(model) if vendor == "openai" else self._anthropic(model)
            self._meters.model_attempts.add(
                0, vendor, model, ModelCredentials.__name__
            )  # export the series before the first refusal
        return ModelLink(self._adapters[name], self._vendors.setdefault(vendor, Vendor(vendor)))

    def _openai(self, model: str) -> "HttpModel":
        from app.providers.llm.adapters.openai import OpenAIModel

        self.check_openai(f"openai:{model}")
        return OpenAIModel(model, *self.openai())

    def _anthropic(self, model: str) -> "HttpModel":
        from app.providers.llm.adapters.anthropic import AnthropicModel
        from app.providers.llm.adapters.http_client import Endpoint

        given = self._settings
        if given.anthropic_api_key is None:
            raise Invalid(f"anthropic:{model} needs a key: set ANTHROPIC_API_KEY")
        keys = self._rotating_secret("ANTHROPIC_API_KEY", given.anthropic_api_key, given.anthropic_api_key_secondary)
        key, spare = keys.pair()
        endpoint = Endpoint(
            vendor="anthropic",
            base_url=self._anthropic_url.removesuffix("/v1"),
            key=key,
            spare_key=spare,
            keys=keys,
            key_header="x-api-key",
            key_prefix="",
            headers=ANTHROPIC_HEADERS,
        )
        return AnthropicModel(model, self._client(), endpoint)

    def _rotating_secret(self, name: str, *given: Secret | None) -> RotatingSecret:
        if self._secrets is None:
            return RotatingSecret(*given)
        if name not in self._rotating_secrets:
            self._rotating_secrets[name] = self._secrets.rotating(name, f"{name}_SECONDARY")
        return self._rotating_secrets[name]

    def _client(self) -> "HttpClient":
        if self._http is None:
            from app.providers.llm.adapters.http_client import HttpClient

            self._http = HttpClient()
        return self._http


def address(variable: str, value: str) -> str:
    """Return ``value`` without trailing slashes. Raises ``UsageError`` if it is not a plain http or https URL."""
    if not value:
        return ""
    try:
        parts = urlsplit(value)
        plain = (
            parts.scheme in {"http", "https"}
            and parts.hostname
            and parts.port != 0
            and not parts.query
            and not parts.fragment
        )
        has_credentials = parts.username is not None
    except ValueError:
        plain = has_credentials = False
    if not plain:
        raise UsageError(f"{variable} is not a plain URL; write it like https://host/v1")
    if has_credentials:
        raise UsageError(f"{variable} must not contain a user name or password; set the key in its own variable")
    return value.rstrip("/")


def check_key(variable: str, key: Secret | None) -> None:
    """Raise ``UsageError`` if a key contains characters not allowed in a header; the error reveals nothing of it."""
    if key and not all("!" <= character <= "~" for character in key.reveal()):
        raise UsageError(f"{variable} contains a space, a line break or another character that is invalid in a key")
