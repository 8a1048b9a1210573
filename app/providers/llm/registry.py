"""Registry of models by name (``vendor:model``) and of their vendors."""

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
from app.providers.llm.response_cache import CachedModel, ResponseCache
from app.providers.llm.vendor_health import Vendor
from app.providers.llm.vendors import BUILT_IN, VENDORS

if TYPE_CHECKING:  # loads aiohttp
    from app.providers.llm.adapters.http_client import Endpoint, HttpClient
    from app.providers.llm.adapters.streaming_model import HttpModel

FIRST_LISTED = "auto"
PROBE_SECONDS = 60.0


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
        self._given = {name: spec.given(settings) for name, spec in VENDORS.items()}
        self._urls: dict[str, str] = {}
        for name, spec in VENDORS.items():
            given = self._given[name]
            self._urls[name] = address(spec.url_variable, given.base_url) or spec.url
            check_key(spec.key_variable, given.key)
            check_key(spec.secondary_variable, given.secondary)
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
        if self._settings.default_model:
            return self._settings.default_model, "AGENT_DEFAULT_MODEL is set"
        for name, spec in VENDORS.items():
            if spec.compatible_servers and self._urls[name] != spec.url:
                return f"{name}:{FIRST_LISTED}", f"{spec.url_variable} is set: the first model that it lists"
            if self._given[name].key is not None:
                return f"{name}:{spec.default_model}", f"{spec.key_variable} is set"
        keys = ", ".join(spec.key_variable for spec in VENDORS.values())
        urls = ", ".join(spec.url_variable for spec in VENDORS.values() if spec.compatible_servers)
        return "scripted:demo", f"no provider key found; set {keys} or {urls}"

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
        if len(links) == 1 and links[0].model.vendor in BUILT_IN:
            model = links[0].model
            return InstrumentedModel(model, self._meters, self._tracer) if self._tracer.active else model
        return InstrumentedModel(FailoverModel(links, self._rules, meters=self._meters), self._meters, self._tracer)

    def _identity(self, links: Sequence[ModelLink]) -> list[str]:
        """Return the names and URLs that identify the answering models; empty while ``auto`` is unresolved."""
        if any(link.model.name == FIRST_LISTED for link in links):
            return []
        return [*(f"{link.model.vendor}:{link.model.name}" for link in links), *self._urls.values()]

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

    def url(self, vendor: str) -> str:
        """Return the base URL of ``vendor``."""
        return self._urls[vendor]

    def check_has_key(self, name: str) -> None:
        """Raise ``Invalid`` if the model ``name`` (vendor:model) needs a key and none is set."""
        vendor = name.partition(":")[0]
        spec = VENDORS[vendor]
        if self._given[vendor].key is None and not (spec.compatible_servers and self._urls[vendor] != spec.url):
            other = f", or {spec.url_variable} for a server without one" if spec.compatible_servers else ""
            raise Invalid(f"{name} needs a key: set {spec.key_variable}{other}")

    def connect(self, vendor: str) -> "tuple[HttpClient, Endpoint]":
        """Return the HTTP client and the endpoint of ``vendor``."""
        from app.providers.llm.adapters.http_client import Endpoint, HttpClient

        keys = self._rotating_secret(vendor)
        key, spare = keys.pair()
        spec = VENDORS[vendor]
        endpoint = Endpoint(
            vendor=vendor,
            base_url=self._urls[vendor],
            key=key,
            spare_key=spare,
            keys=keys,
            key_variable=spec.key_variable,
            address_hint=spec.address_hint,
        )
        if self._http is None:
            self._http = HttpClient()
        return self._http, endpoint

    async def aclose(self) -> None:
        """Close all connections."""
        if self._http is not None:
            await self._http.aclose()

    def _link(self, name: str) -> ModelLink:
        vendor, _, model = name.partition(":")
        if vendor not in {*VENDORS, *BUILT_IN} or not model:
            known = ", ".join((*VENDORS, *BUILT_IN))
            raise Invalid(f"unknown model {name!r}: write vendor:model with one of the vendors {known}")
        if (built_in := BUILT_IN.get(vendor)) is not None:
            if model not in built_in:
                raise Invalid(f"unknown model {name!r}: the {vendor} ones are {', '.join(built_in)}")
            return ModelLink(built_in[model](), Vendor(vendor))
        if name not in self._adapters:
            self.check_has_key(name)
            self._adapters[name] = VENDORS[vendor].adapter(model, *self.connect(vendor))
            self._meters.model_attempts.add(
                0, vendor, model, ModelCredentials.__name__
            )  # export the series before the first refusal
        return ModelLink(self._adapters[name], self._vendors.setdefault(vendor, Vendor(vendor)))

    def _rotating_secret(self, vendor: str) -> RotatingSecret:
        given, spec = self._given[vendor], VENDORS[vendor]
        if self._secrets is None:
            return RotatingSecret(given.key, given.secondary)
        if vendor not in self._rotating_secrets:
            self._rotating_secrets[vendor] = self._secrets.rotating(spec.key_variable, spec.secondary_variable)
        return self._rotating_secrets[vendor]


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
