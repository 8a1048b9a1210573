"""The vendors of models, one row each: settings, defaults and adapter. The only module that selects adapters."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import msgspec

from app.infra.secrets.secret import Secret
from app.infra.settings import LlmSettings
from app.providers.llm import scripted
from app.providers.llm.port import Model
from app.providers.llm.profiles import ANTHROPIC_DEFAULT, ANTHROPIC_URL, OPENAI_DEFAULT, OPENAI_URL

if TYPE_CHECKING:  # loads aiohttp
    from app.providers.llm.adapters.http_client import Endpoint, HttpClient
    from app.providers.llm.adapters.streaming_model import HttpModel


class VendorSettings(msgspec.Struct, frozen=True):
    """What the settings say about a vendor: its key, the key to try if that is refused, its base URL."""

    key: Secret | None
    secondary: Secret | None
    base_url: str


def _openai(model: str, http: "HttpClient", endpoint: "Endpoint") -> "HttpModel":
    from app.providers.llm.adapters.openai import OpenAIModel

    return OpenAIModel(model, http, endpoint)


def _anthropic(model: str, http: "HttpClient", endpoint: "Endpoint") -> "HttpModel":
    from app.providers.llm.adapters.anthropic import AnthropicModel

    endpoint = msgspec.structs.replace(
        endpoint,
        base_url=endpoint.base_url.removesuffix("/v1"),
        key_header="x-api-key",
        key_prefix="",
        headers={"anthropic-version": "2023-06-01"},
    )
    return AnthropicModel(model, http, endpoint)


class VendorSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A vendor behind HTTP. ``adapter`` makes a model of its name, a client and the vendor's endpoint.

    ``prefix``: of its environment variables; ``given`` reads their values. ``url`` and ``default_model``: its own,
    unless settings name others. ``compatible_servers``: other servers speak its API; they may need no key.
    ``url_hint``: what to check of a base URL that does not answer as expected.
    """

    prefix: str
    given: Callable[[LlmSettings], VendorSettings]
    url: str
    default_model: str
    adapter: "Callable[[str, HttpClient, Endpoint], HttpModel]"
    compatible_servers: bool = False
    url_hint: str = ""

    @property
    def key_variable(self) -> str:
        """Name of the environment variable of its key."""
        return f"{self.prefix}_API_KEY"

    @property
    def secondary_variable(self) -> str:
        """Name of the environment variable of its second key."""
        return f"{self.prefix}_API_KEY_SECONDARY"

    @property
    def url_variable(self) -> str:
        """Name of the environment variable of its base URL."""
        return f"{self.prefix}_BASE_URL"

    @property
    def address_hint(self) -> str:
        """What to check if a server responds at the base URL, but not as a provider does."""
        return f"check {self.url_variable}{self.url_hint}"


VENDORS = {
    "openai": VendorSpec(
        prefix="OPENAI",
        given=lambda llm: VendorSettings(llm.openai_api_key, llm.openai_api_key_secondary, llm.openai_base_url),
        url=OPENAI_URL,
        default_model=OPENAI_DEFAULT,
        adapter=_openai,
        compatible_servers=True,
        url_hint=": does it end in /v1?",
    ),
    "anthropic": VendorSpec(
        prefix="ANTHROPIC",
        given=lambda llm: VendorSettings(
            llm.anthropic_api_key, llm.anthropic_api_key_secondary, llm.anthropic_base_url
        ),
        url=ANTHROPIC_URL,
        default_model=ANTHROPIC_DEFAULT,
        adapter=_anthropic,
    ),
}
"""By name; the first one whose key is set answers agents that name no model."""

BUILT_IN: dict[str, Mapping[str, Callable[[], Model]]] = {scripted.VENDOR: scripted.MODELS}
"""Models that this process plays itself, by vendor: they need no server, cannot fail and are free."""
