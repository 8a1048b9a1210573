"""Sign in at an MCP server (OAuth 2.1), with the flow of the SDK: discovery, registration, PKCE, refresh."""

import asyncio
import ipaddress
import secrets
import time
from typing import Any
from urllib.parse import urlencode

import httpx2
import msgspec
from mcp.client.auth import OAuthFlowError
from mcp.client.auth.oauth2 import PKCEParameters
from mcp.client.auth.utils import extract_field_from_www_auth, validate_authorization_response_iss
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from pydantic import AnyUrl, BaseModel, ValidationError

from app.agents.mcp.accounts import SIGN_IN_SECONDS, Account, AccountState, AccountStore, SignInNeeded, SignInRefused
from app.agents.mcp.http_transport import MARK, REFUSED, SIGN_IN, CheckedTransport, failed_response
from app.agents.mcp.oauth_internals import OAuthFlow, Send, model_of
from app.agents.mcp.spec import OAuthSpec
from app.infra.egress.addresses import AddressAllowlist, host_of

ISSUER_SECONDS = 15.0
"""Time for one request to an authorization server."""
EARLY_SECONDS = 30.0
"""An access token that expires within this time is replaced before it is used."""


class _State:
    """The SDK's view of an account's state (its ``TokenStorage``)."""

    def __init__(self) -> None:
        self.kept: AccountState = {}

    async def get_tokens(self) -> OAuthToken | None:
        return model_of(OAuthToken, self.kept.get("tokens"))

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.kept["tokens"] = _plain(tokens)
        self.kept["expires_at"] = None if tokens.expires_in is None else time.time() + tokens.expires_in

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return model_of(OAuthClientInformationFull, self.kept.get("client"))

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.kept["client"] = _plain(client_info)


class SignIn:
    """Sends the requests of ``account`` to the server at ``url``, with its tokens.

    ``client_secret``: that of a client which an operator has registered, as ``spec`` says.
    """

    def __init__(
        self, url: str, spec: OAuthSpec, client_secret: str, account: Account, store: AccountStore, redirect_uri: str
    ) -> None:
        self._state = _State()
        self._spec = spec
        self._client_secret = client_secret
        self._account = account
        self._store = store
        self._redirect_uri = redirect_uri
        self._in_turn = asyncio.Lock()
        metadata = OAuthClientMetadata(
            redirect_uris=[AnyUrl(redirect_uri)],
            client_name="agent-service",
            scope=" ".join(spec.scopes) or None,
            application_type="web",
        )
        self._flow = OAuthFlow(url, metadata, self._state, spec.client_metadata_url, self._begin)
        self._oauth = self._flow.context

    async def send(self, request: httpx2.Request, send: Send) -> httpx2.Response:
        """Send ``request`` as the account. Raises ``SignInNeeded`` and ``SignInRefused``."""
        token = await self._token(send)
        response = await send(_with_token(request, token))
        if not _is_refused(response):
            return response
        await response.aread()
        async with self._in_turn:
            newer = await self._newer_token(token, response, send)
            if newer is not None:
                response = await send(_with_token(request, newer))
                if not _is_refused(response):
                    return response
                await response.aread()
            self._take(await self._store.load(self._account))
            try:
                await self._flow.run(request, response, send)
            except (OAuthFlowError, ValidationError) as error:
                raise SignInRefused(_words(error)) from None
        raise SignInRefused("its authorization server gave no address at which to sign in")

    async def finish(self, code: str, issuer: str | None, send: Send) -> None:
        """Take the tokens for ``code``, with which the authorization server ``issuer`` sent the person back."""
        async with self._store.changing(self._account) as kept:
            self._take(kept)
            pending = kept.pop("pending", None)
            if pending is None or pending["expires_at"] < time.time():
                raise SignInRefused("the address has expired: ask for a new one")
            self._oauth.client_metadata.scope = pending["scope"]
            try:
                validate_authorization_response_iss(issuer, self._oauth.oauth_metadata)
                await self._flow.exchange(code, pending["verifier"], send)
            except (OAuthFlowError, ValidationError) as error:
                raise SignInRefused(_words(error)) from None

    async def _token(self, send: Send) -> str | None:
        """Return the access token, replaced if it is about to expire; None before the first sign-in."""
        if self._oauth.current_tokens is None or self._is_due():
            async with self._in_turn:
                self._take(await self._store.load(self._account))
                if self._is_due():
                    await self._refresh(send)
        tokens = self._oauth.current_tokens
        return None if tokens is None else tokens.access_token

    def _is_due(self) -> bool:
        expires_at = self._state.kept.get("expires_at")
        return expires_at is not None and expires_at < time.time() + EARLY_SECONDS and self._oauth.can_refresh_token()

    async def _refresh(self, send: Send, used: str | None = None) -> None:
        """Replace the tokens, unless another process has done it: a refresh token may be used once."""
        async with self._store.changing(self._account) as kept:
            self._take(kept)
            tokens = self._oauth.current_tokens
            if tokens is None or not self._oauth.can_refresh_token():
                return
            if self._is_due() or tokens.access_token == used:
                try:
                    renewed = await self._flow.refresh(send)
                except OAuthFlowError as error:
                    raise SignInRefused(_words(error)) from None
                if not renewed:
                    del kept["tokens"]
                self._take(kept)

    async def _newer_token(self, used: str | None, response: httpx2.Response, send: Send) -> str | None:
        """Return another token than the one ``used``: of another process, or refreshed; None if there is none."""
        self._take(await self._store.load(self._account))
        tokens = self._oauth.current_tokens
        if used is not None and tokens is not None and tokens.access_token == used and response.status_code == 401:
            await self._refresh(send, used)
            tokens = self._oauth.current_tokens
        return None if tokens is None or tokens.access_token == used else tokens.access_token

    async def _begin(self) -> None:
        """Keep what the sign-in needs, and raise ``SignInNeeded``."""
        oauth, pkce, state = self._oauth, PKCEParameters.generate(), secrets.token_urlsafe(32)
        if oauth.client_info is None or oauth.oauth_metadata is None:
            raise OAuthFlowError("the server names no authorization server with metadata")
        scope = oauth.client_metadata.scope
        asked = {
            "response_type": "code",
            "client_id": oauth.client_info.client_id,
            "redirect_uri": self._redirect_uri,
            "state": state,
            "code_challenge": pkce.code_challenge,
            "code_challenge_method": "S256",
            "resource": oauth.get_resource_url(),
        }
        if scope:
            asked["scope"] = scope
            if "offline_access" in scope.split():
                asked["prompt"] = "consent"
        endpoint = str(oauth.oauth_metadata.authorization_endpoint)
        url = f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(asked)}"
        found = {
            "client": _plain(oauth.client_info),
            "issuer": _plain(oauth.oauth_metadata),
            "resource": None
            if oauth.protected_resource_metadata is None
            else _plain(oauth.protected_resource_metadata),
            "pending": {
                "state": state,
                "verifier": pkce.code_verifier,
                "scope": scope,
                "url": url,
                "expires_at": time.time() + SIGN_IN_SECONDS,
            },
        }
        async with self._store.changing(self._account) as kept:
            before = kept.get("pending")
            if before is not None and before["scope"] == scope and before["expires_at"] > time.time() + EARLY_SECONDS:
                raise SignInNeeded(before["url"])  # of another run, or of an attempt before: one address serves all
            kept.update(found)
        raise SignInNeeded(url)

    def _take(self, kept: AccountState) -> None:
        self._state.kept = kept
        self._flow.take(kept, self._registered())

    def _registered(self) -> OAuthClientInformationFull | None:
        """Return the client that an operator has registered."""
        if not self._spec.client_id:
            return None
        return OAuthClientInformationFull(
            client_id=self._spec.client_id,
            client_secret=self._client_secret or None,
            token_endpoint_auth_method="client_secret_basic" if self._client_secret else "none",
            redirect_uris=[AnyUrl(self._redirect_uri)],
        )


class AccountTransport(httpx2.AsyncBaseTransport):
    """Transport of the SDK's HTTP client for requests of an account: to the server, and to its authorization server."""

    def __init__(self, url: str, allowed: AddressAllowlist, sign_in: SignIn) -> None:
        self._host = host_of(url)
        self._allowed = allowed
        self._sign_in = sign_in
        self._checked = CheckedTransport(url, allowed)
        self.refusal: SignInNeeded | SignInRefused | None = None
        """Why the last request was not sent, which the SDK hides if it then tries another revision."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request."""
        try:
            response = await self._sign_in.send(request, self._send)
        except SignInNeeded as error:
            self.refusal = error
            return failed_response(SIGN_IN, error.url, request)
        except SignInRefused as error:
            self.refusal = error
            return failed_response(REFUSED, str(error), request)
        if response.is_success:
            self.refusal = None
        return response

    async def _send(self, request: httpx2.Request) -> httpx2.Response:
        if request.url.host == self._host:
            return await self._checked.handle_async_request(request)
        return await send_checked(request, self._allowed)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._checked.aclose()


async def send_checked(request: httpx2.Request, allowed: AddressAllowlist) -> httpx2.Response:
    """Send one request to any host that may be called, and read the whole answer. Raises ``SignInRefused``."""
    host = request.url.host
    if request.url.scheme != "https" and not _may_be_plain(host, allowed):
        raise SignInRefused(f"{host} is not an https address")
    transport = CheckedTransport(str(request.url), allowed)
    try:
        async with asyncio.timeout(ISSUER_SECONDS):
            response = await transport.handle_async_request(request)
            body = await response.aread()
    except (TimeoutError, httpx2.HTTPError) as error:
        raise SignInRefused(f"{host}: {str(error) or 'it did not answer in time'}") from None
    finally:
        await transport.aclose()
    if MARK.encode() in body:
        raise SignInRefused(f"{host}: {msgspec.json.decode(body)['error']['message']}")
    return response


def _may_be_plain(host: str, allowed: AddressAllowlist) -> bool:
    """Whether ``host`` may be called without TLS: one of the operator's own network, which is checked again."""
    try:
        return allowed.host(host) or ipaddress.ip_address(host).is_private
    except ValueError:
        return False


def _is_refused(response: httpx2.Response) -> bool:
    return response.status_code == 401 or (
        response.status_code == 403 and extract_field_from_www_auth(response, "error") == "insufficient_scope"
    )


def _with_token(request: httpx2.Request, token: str | None) -> httpx2.Request:
    if token is not None:
        request.headers["Authorization"] = f"Bearer {token}"
    return request


def _plain(model: BaseModel) -> dict[str, Any]:
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)


def _words(error: Exception) -> str:
    """Return why a sign-in failed, without what the servers said beyond their first line."""
    if isinstance(error, ValidationError):
        return "its authorization server's answer does not follow the protocol"
    return (str(error) or type(error).__name__).partition("\n")[0][:300]
