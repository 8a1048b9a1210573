"""Sign in at an MCP server (OAuth 2.1), with the flow of the SDK: discovery, registration, PKCE, refresh."""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple
from urllib.parse import urlencode

import httpx2
import msgspec
from mcp.client.auth import OAuthFlowError
from mcp.client.auth.oauth2 import PKCEParameters
from mcp.client.auth.utils import (
    extract_field_from_www_auth,
    extract_scope_from_www_auth,
    issuers_match,
    validate_authorization_response_iss,
)
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from pydantic import AnyUrl, BaseModel

from app.agents.mcp.accounts import SIGN_IN_SECONDS, Account, AccountState, AccountStore, SignInNeeded, SignInRefused
from app.agents.mcp.http_transport import (
    BROKEN,
    LOST,
    MARK,
    REFUSED,
    SIGN_IN,
    UNSENT,
    CheckedTransport,
    failed_response,
)
from app.agents.mcp.oauth_internals import FixedScope, OAuthFlow, Send, model_of
from app.agents.mcp.spec import OAuthSpec, check_encrypted
from app.base.errors import AgentServiceError
from app.base.json_scan import UNREADABLE_JSON
from app.base.single_flight import SingleFlight
from app.base.tasks import Tasks
from app.infra.egress.addresses import AddressAllowlist

ISSUER_SECONDS = 8.0
"""Time for one request to an authorization server."""
EARLY_SECONDS = 30.0
"""An access token that expires within this time is replaced before it is used."""
CLAIM_SECONDS = 2 * ISSUER_SECONDS
"""After this time another process renews the tokens: the one that claimed it has ended."""
FIRST_PAUSE = 0.02
MAX_PAUSE = 0.5
"""Seconds between looks at whether another process has renewed the tokens."""


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


class SignInServices(NamedTuple):
    """What sign-ins work with: where accounts are kept, where people are sent back to, which addresses may be called.

    ``tasks`` exchange codes and refresh tokens, each of which works once: what they yield is stored, even if the caller
    is cancelled.
    """

    accounts: AccountStore
    redirect_uri: str
    allowed: AddressAllowlist
    tasks: Tasks


class SignIn:
    """Sends the requests of ``account`` to the server at ``url``, with its tokens.

    ``client_secret``: that of a client which an operator has registered, as ``spec`` says.
    """

    def __init__(
        self, url: str, spec: OAuthSpec, client_secret: str, account: Account, services: SignInServices
    ) -> None:
        self._state = _State()
        self._spec = spec
        self._client_secret = client_secret
        self._account = account
        self._store = services.accounts
        self._redirect_uri = services.redirect_uri
        self._allowed = services.allowed
        self._tasks = services.tasks
        self._in_turn = asyncio.Lock()
        self._exchanges = SingleFlight[str | None, None]()
        self._answer: httpx2.Response | None = None
        metadata = (FixedScope if spec.scopes else OAuthClientMetadata)(
            redirect_uris=[AnyUrl(self._redirect_uri)],
            client_name="agent-service",
            scope=" ".join(spec.scopes) or None,
            application_type="web",
        )
        self._flow = OAuthFlow(url, metadata, self._state, spec.client_metadata_url, self._begin)
        self._oauth = self._flow.context

    async def send(self, request: httpx2.Request, send: Send) -> httpx2.Response:
        """Send ``request`` with ``send`` as the account. Raises ``SignInNeeded`` and ``SignInRefused``."""
        if self._oauth.current_tokens is None or self._is_due(None):
            await self._renew(None)
        token = self._token()
        response = await send(_with_token(request, token))
        if not _is_refused(response):
            return response
        await response.aread()
        await self._renew(token if response.status_code == 401 else None)
        newer = self._token()
        if newer is not None and newer != token:
            response = await send(_with_token(request, newer))
            if not _is_refused(response):
                return response
            await response.aread()
        if response.status_code == 403 and self._spec.scopes:
            wanted = (extract_scope_from_www_auth(response) or "").split()
            if not set(wanted) <= set(self._spec.scopes):
                raise SignInRefused("it wants a scope that oauth.scopes does not have")
        async with self._in_turn:
            kept = await self._store.load(self._account)
            self._take(kept)
            if not self._is_registered(kept.get("client")):
                self._oauth.client_info = self._registered()
            with self._refusals():
                await self._flow.run(request, response, self._ask)
        raise SignInRefused("its authorization server gave no address at which to sign in")

    async def finish(self, code: str, issuer: str | None) -> None:
        """Take the tokens for ``code``, with which the authorization server ``issuer`` sent the person back.

        Raises ``SignInRefused``; the person then signs in again.
        """
        await self._exchanges.run(code, lambda: self._finish(code, issuer), self._tasks)

    async def _finish(self, code: str, issuer: str | None) -> None:
        async with self._store.changing(self._account) as kept:
            self._take(kept)
            pending = kept.pop("pending", None)  # for good: a state is used once, whatever comes of it
        if pending is None or pending["expires_at"] < time.time():
            raise SignInRefused("the address has expired: ask for a new one")
        self._check_issuer()
        self._oauth.client_metadata.scope = pending["scope"]
        with self._refusals():
            validate_authorization_response_iss(issuer, self._oauth.oauth_metadata)
            await self._flow.exchange(code, pending["verifier"], self._ask)
        found = {**self._state.kept, "tokens_issuer": self._issuer()}
        async with self._store.changing(self._account) as kept:
            if not kept:
                raise SignInRefused("the account was deleted")
            kept.update({name: found[name] for name in ("tokens", "expires_at", "tokens_issuer")})
            kept.pop("claim", None)
            self._take(kept)

    def _token(self) -> str | None:
        tokens = self._oauth.current_tokens
        return None if tokens is None else tokens.access_token

    async def _renew(self, used: str | None) -> None:
        """Load the account, and replace its access token if it expires soon or is ``used``, which was refused."""
        await self._exchanges.run(used, lambda: self._renew_in_turn(used), self._tasks)

    async def _renew_in_turn(self, used: str | None) -> None:
        async with self._in_turn:
            if claim := await self._claim(used):
                await self._refresh(claim)

    async def _claim(self, used: str | None) -> str:
        """Claim the renewal among all processes, because a refresh token works once; empty if none is needed."""
        mine, pause = secrets.token_hex(8), FIRST_PAUSE
        while True:
            self._take(await self._store.load(self._account))
            if not self._is_due(used):
                return ""
            if not _is_claimed(self._state.kept):
                async with self._store.changing(self._account) as kept:
                    self._take(kept)
                    if not self._is_due(used):
                        return ""
                    if not _is_claimed(kept):
                        kept["claim"] = {"owner": mine, "until": time.time() + CLAIM_SECONDS}
                        return mine
            await asyncio.sleep(pause)
            pause = min(2 * pause, MAX_PAUSE)

    async def _refresh(self, claim: str) -> None:
        """Replace the tokens; what comes of it is kept if ``claim`` still holds."""
        renewed: bool | None = None
        try:
            with self._refusals():
                renewed = await self._flow.refresh(self._ask)
        finally:
            found = self._state.kept
            async with self._store.changing(self._account) as kept:
                if kept.get("claim", {}).get("owner") == claim:
                    del kept["claim"]
                    if renewed:
                        kept.update(tokens=found["tokens"], expires_at=found["expires_at"])
                    elif renewed is not None:
                        kept.pop("tokens", None)
                self._take(kept)

    def _expires_soon(self) -> bool:
        expires_at = self._state.kept.get("expires_at")
        return expires_at is not None and expires_at < time.time() + EARLY_SECONDS

    def _is_due(self, used: str | None) -> bool:
        """Whether the tokens can be replaced, where they are from, and must be."""
        issuer = self._issuer()
        if not self._oauth.can_refresh_token() or issuer != self._state.kept.get("tokens_issuer"):
            return False
        return self._is_ours(issuer) and (self._expires_soon() or self._token() == used)

    def _issuer(self) -> str:
        return "" if self._oauth.oauth_metadata is None else str(self._oauth.oauth_metadata.issuer)

    def _is_ours(self, issuer: str) -> bool:
        return not self._spec.issuer or issuers_match(issuer, self._spec.issuer)

    def _check_issuer(self) -> None:
        if not self._is_ours(self._issuer()):
            raise SignInRefused("the server names another authorization server than oauth.issuer")

    async def _ask(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request of the flow, apart from those to the server."""
        self._answer = None
        self._answer = await send_checked(request, self._allowed)
        return self._answer

    @contextlib.contextmanager
    def _refusals(self) -> Iterator[None]:
        """Raise what fails in the flow as ``SignInRefused``, without words of the servers."""
        self._answer = None
        try:
            yield
        except (OAuthFlowError, ValueError):
            raise SignInRefused(_reason(self._answer)) from None

    async def _begin(self) -> None:
        """Keep what the sign-in needs, and raise ``SignInNeeded``."""
        oauth, pkce, state = self._oauth, PKCEParameters.generate(), secrets.token_urlsafe(32)
        if oauth.client_info is None or oauth.oauth_metadata is None:
            raise SignInRefused("the server names no authorization server with metadata")
        self._check_issuer()
        if "S256" not in (oauth.oauth_metadata.code_challenge_methods_supported or []):
            raise SignInRefused("its authorization server does not say that it checks PKCE with S256")
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
        async with self._store.changing(self._account, new=True) as kept:
            same = kept.get("issuer") == found["issuer"] and self._is_registered(kept.get("client"))
            before = kept.get("pending") if same else None
            if before is not None and before["scope"] == scope and before["expires_at"] > time.time() + EARLY_SECONDS:
                raise SignInNeeded(before["url"])  # of another run, or of an attempt before: one address serves all
            if kept.get("tokens_issuer") != self._issuer():
                for name in ("tokens", "expires_at", "tokens_issuer", "claim"):
                    kept.pop(name, None)  # no authorization server gets what another has made
            kept.update(found)
        raise SignInNeeded(url)

    def _take(self, kept: AccountState) -> None:
        self._state.kept = kept
        self._flow.take(kept, self._registered())

    def _is_registered(self, client: dict[str, Any] | None) -> bool:
        """Whether people who sign in with ``client`` are sent back to where this server is now."""
        return client is not None and self._redirect_uri in client["redirect_uris"]

    def _registered(self) -> OAuthClientInformationFull | None:
        """Return the client that an operator has registered."""
        if not self._spec.client_id:
            return None
        return OAuthClientInformationFull(
            client_id=self._spec.client_id,
            client_secret=self._client_secret or None,
            token_endpoint_auth_method="client_secret_basic" if self._client_secret else "none",
            redirect_uris=[AnyUrl(self._redirect_uri)],
            issuer=self._spec.issuer or None,
        )


class AccountTransport(httpx2.AsyncBaseTransport):
    """Transport of the SDK's HTTP client for requests of an account to the server at ``url``."""

    def __init__(self, url: str, allowed: AddressAllowlist, sign_in: SignIn) -> None:
        self._origin = _origin_of(httpx2.URL(url))
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
        except AgentServiceError as error:
            return failed_response(UNSENT, str(error), request)
        except httpx2.StreamError:
            return failed_response(BROKEN, LOST, request)
        if response.is_success:
            self.refusal = None
        return response

    async def _send(self, request: httpx2.Request) -> httpx2.Response:
        if _origin_of(request.url) != self._origin:
            raise SignInRefused("the server refers to another address")
        return await self._checked.handle_async_request(request)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._checked.aclose()


async def send_checked(request: httpx2.Request, allowed: AddressAllowlist) -> httpx2.Response:
    """Send one request to any host that may be called, and read the whole answer. Raises ``SignInRefused``."""
    url, host = str(request.url), request.url.host
    try:
        check_encrypted(url, allowed)
        transport = CheckedTransport(url, allowed)
    except ValueError as error:
        raise SignInRefused(f"an address of its authorization server is refused: {error}") from None
    try:
        async with asyncio.timeout(ISSUER_SECONDS):
            response = await transport.handle_async_request(request)
            body = await response.aread()
    except (TimeoutError, httpx2.HTTPError, httpx2.StreamError) as error:
        raise SignInRefused(f"{host}: {str(error) or 'it did not answer in time'}") from None
    finally:
        await transport.aclose()
    if MARK.encode() in body:
        raise SignInRefused(f"{host}: {msgspec.json.decode(body)['error']['message']}")
    return response


def _origin_of(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _is_claimed(kept: AccountState) -> bool:
    claim = kept.get("claim")
    return claim is not None and claim["until"] > time.time()


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


class _Refusal(msgspec.Struct):
    """What is shown of an authorization server's refusal (RFC 6749, section 5.2)."""

    error: Annotated[str, msgspec.Meta(pattern=r"^[a-z_]{1,64}\Z")]


def _reason(answer: httpx2.Response | None) -> str:
    """Return why the flow failed at ``answer``; None: at none."""
    if answer is None or answer.is_success:
        return "what its authorization server sent does not follow the protocol"
    words = f"its authorization server answered with status {answer.status_code}"
    with contextlib.suppress(*UNREADABLE_JSON):
        words += f" and the error {msgspec.json.decode(answer.content, type=_Refusal).error}"
    return words
