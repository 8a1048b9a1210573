"""How a client without credentials learns of the issuer: RFC 9728, and ``WWW-Authenticate`` of a refusal."""

from typing import Any, NamedTuple

from litestar import Controller, get
from litestar.params import FromPath

from app.base.errors import NotFound
from app.features.access.guard import OPEN
from app.infra.http.query_params import AnyRequest
from app.infra.http.request_context import PROTOCOL_LABEL
from app.infra.http.server_address import address_of

WELL_KNOWN = "/.well-known/oauth-protected-resource"


class OAuthResource(NamedTuple):
    """The ``issuer`` of tokens, empty without one, and the path of the service on this process."""

    issuer: str
    prefix: str


def challenge(request: AnyRequest) -> str:
    """Return ``WWW-Authenticate`` of a refusal."""
    oauth: OAuthResource = request.app.state.oauth
    if not oauth.issuer:
        return "Bearer"
    path = request.scope["path"].removeprefix(oauth.prefix)
    return f'Bearer resource_metadata="{address_of(request)}{WELL_KNOWN}{path.rstrip("/")}"'


class ResourceMetadataController(Controller):
    """The metadata of addresses that take tokens of an issuer; no key needed."""

    path = WELL_KNOWN
    tags = ("MCP",)
    opt = {**OPEN, PROTOCOL_LABEL: "mcp"}  # noqa: RUF012  as the framework declares it

    @get("/", summary="Metadata of the service as an OAuth resource", include_in_schema=False)
    async def service(self, request: AnyRequest) -> dict[str, Any]:
        """Return the metadata; 404 without an issuer."""
        return _metadata(request, "")

    @get("/{path:path}", summary="Metadata of one address as an OAuth resource", include_in_schema=False)
    async def address(self, path: FromPath[str], request: AnyRequest) -> dict[str, Any]:
        """Return the metadata of the address ``path``; 404 without an issuer."""
        return _metadata(request, path)


def _metadata(request: AnyRequest, path: str) -> dict[str, Any]:
    oauth: OAuthResource = request.app.state.oauth
    if not oauth.issuer:
        raise NotFound("No issuer of tokens is configured: send an API key.")
    return {
        "resource": address_of(request) + (path if path.strip("/") else ""),
        "resource_name": "agent-service",
        "authorization_servers": [oauth.issuer],
        "bearer_methods_supported": ["header"],
    }
