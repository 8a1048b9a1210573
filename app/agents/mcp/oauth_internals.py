"""Everything that leans on private parts of the SDK's OAuth client (``OAuthClientProvider`` of mcp 2.3).

- ``_perform_authorization_code_grant``: the SDK waits for the browser within the request; here the run ends, and any
  process finishes the sign-in. Remove it when the SDK begins and finishes a sign-in apart.
- ``_exchange_token_authorization_code``, ``_handle_token_response``: the second half of that. Remove it with the first.
- ``_refresh_token``, ``_handle_refresh_response``: the SDK renews tokens within a flow that holds a lock until the
  request is answered, and knows no other process. Remove it when tokens can be renewed apart from requests.
- ``_initialized``: what a flow knows is loaded here, metadata included. Remove it with the first.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import httpx2
from mcp.client.auth import OAuthClientProvider, OAuthFlowError, TokenStorage
from mcp.shared.auth import (
    OAuthClientInformationFull,
    OAuthClientMetadata,
    OAuthMetadata,
    OAuthToken,
    ProtectedResourceMetadata,
)
from pydantic import BaseModel

from app.agents.mcp.accounts import AccountState

FIRST_REVISION = "2025-11-25"
"""The oldest revision that is spoken here; all have the parameter ``resource`` (RFC 8707)."""

logging.getLogger("mcp.client.auth").setLevel(logging.CRITICAL)  # it logs what servers say, and sign-ins as errors

Model = TypeVar("Model", bound=BaseModel)

Send = Callable[[httpx2.Request], Awaitable[httpx2.Response]]
"""Sends a request to any host that may be called."""


class FixedScope(OAuthClientMetadata):
    """A client's metadata with the scopes of an operator, in place of which the flow would set those of the server."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name != "scope":
            super().__setattr__(name, value)


class OAuthFlow(OAuthClientProvider):
    """The SDK's flow in parts. ``on_sign_in`` is called where a person must sign in, and raises."""

    def __init__(
        self,
        url: str,
        metadata: OAuthClientMetadata,
        storage: TokenStorage,
        client_metadata_url: str,
        on_sign_in: Callable[[], Awaitable[None]],
    ) -> None:
        super().__init__(url, metadata, storage, client_metadata_url=client_metadata_url or None)
        self._on_sign_in = on_sign_in

    def take(self, kept: AccountState, registered: OAuthClientInformationFull | None) -> None:
        """Make ``kept`` what the flow knows of the account; ``registered``: the client of an operator."""
        oauth = self.context
        oauth.current_tokens = model_of(OAuthToken, kept.get("tokens"))
        oauth.token_expiry_time = None  # decided by the caller
        oauth.client_info = registered or model_of(OAuthClientInformationFull, kept.get("client"))
        oauth.oauth_metadata = model_of(OAuthMetadata, kept.get("issuer"))
        oauth.protected_resource_metadata = resource = model_of(ProtectedResourceMetadata, kept.get("resource"))
        oauth.auth_server_url = None if resource is None else str(resource.authorization_servers[0])
        oauth.protocol_version = oauth.protocol_version or FIRST_REVISION
        self._initialized = True

    async def run(self, request: httpx2.Request, refusal: httpx2.Response, send: Send) -> None:
        """Run the flow after the ``refusal`` of ``request``, up to where a person must sign in."""
        flow = self.async_auth_flow(request)
        try:
            outgoing = await flow.__anext__()
            while True:
                response = refusal if outgoing is request else await send(outgoing)
                outgoing = await flow.asend(response)
        except StopAsyncIteration:
            return
        finally:
            await flow.aclose()

    async def exchange(self, code: str, verifier: str, send: Send) -> None:
        """Exchange ``code`` for tokens, which the storage gets."""
        await self._handle_token_response(await send(await self._exchange_token_authorization_code(code, verifier)))

    async def refresh(self, send: Send) -> bool:
        """Renew the tokens in the storage; return whether the authorization server did."""
        response = await send(await self._refresh_token())
        if response.status_code >= 500 or response.status_code == 429:
            raise OAuthFlowError(f"the authorization server answered with status {response.status_code}")
        return await self._handle_refresh_response(response)

    async def _perform_authorization_code_grant(self) -> tuple[str, str]:
        await self._on_sign_in()
        raise OAuthFlowError("a person must sign in")


def model_of(kind: type[Model], value: object) -> Model | None:
    """Return the model of stored JSON; None for None."""
    return None if value is None else kind.model_validate(value)
