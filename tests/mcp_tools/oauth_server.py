"""The fixture server behind OAuth 2.1, with an authorization server at whose page everybody consents at once."""

import asyncio
import base64
import hashlib
import itertools
import threading
import time
from typing import Any
from urllib.parse import urlencode

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

RESOURCE_METADATA = "/.well-known/oauth-protected-resource/mcp"


class OAuthServer:
    """``base``: its address. ``seconds``: lifetime of access tokens. ``refreshed`` counts refreshes; reuse is fatal.

    ``named``: the authorization server that the MCP server names, itself by default. ``metadata`` is added to its own.
    ``closed``: the MCP server takes no token. ``refusal``: how the token endpoint answers instead; it answers once
    ``gate`` is set, counts in ``asked`` and sets ``reached``.
    """

    def __init__(self, mcp: ASGIApp) -> None:
        self.base = ""
        self.seconds = 3600
        self.named = ""
        self.metadata: dict[str, Any] = {}
        self.refusal: Response | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.reached = threading.Event()
        self.closed = False
        self.asked = 0
        self.registered: list[dict[str, Any]] = []
        self.clients: dict[str, dict[str, Any]] = {}
        self.refreshed = 0
        self.valid: dict[str, float] = {}
        self.refresh_tokens: set[str] = set()
        self._numbers = itertools.count(1)
        self._codes: dict[str, Any] = {}
        self._mcp = mcp
        routes = [
            Route(RESOURCE_METADATA, self._resource),
            Route("/.well-known/oauth-authorization-server", self._metadata),
            Route("/register", self._register, methods=["POST"]),
            Route("/authorize", self._authorize),
            Route("/token", self._token, methods=["POST"]),
            Mount("/", self._guarded),
        ]
        self.app = Starlette(routes=routes, lifespan=lambda _: mcp.router.lifespan_context(mcp))  # type: ignore[attr-defined]

    def revoke(self) -> None:
        """Make all tokens invalid."""
        self.valid.clear()
        self.refresh_tokens.clear()

    async def _guarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        token = Request(scope).headers.get("authorization", "").removeprefix("Bearer ")
        if not self.closed and self.valid.get(token, 0) > time.time():
            await self._mcp(scope, receive, send)
            return
        challenge = f'Bearer resource_metadata="{self.base}{RESOURCE_METADATA}", scope="tools"'
        await Response(status_code=401, headers={"WWW-Authenticate": challenge})(scope, receive, send)

    async def _resource(self, _: Request) -> Response:
        return JSONResponse({"resource": f"{self.base}/mcp", "authorization_servers": [self.named or self.base]})

    async def _metadata(self, _: Request) -> Response:
        found = {
            "issuer": self.base,
            "authorization_endpoint": f"{self.base}/authorize",
            "token_endpoint": f"{self.base}/token",
            "registration_endpoint": f"{self.base}/register",
            "response_types_supported": ["code"],
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": True,
        }
        return JSONResponse({**found, **self.metadata})

    async def _register(self, request: Request) -> Response:
        asked = await request.json()
        self.registered.append(asked)
        given = {"client_id": f"client-{next(self._numbers)}", "token_endpoint_auth_method": "none"}
        self.clients[given["client_id"]] = asked
        return JSONResponse({**asked, **given}, 201)

    async def _authorize(self, request: Request) -> Response:
        asked = dict(request.query_params)
        registered = self.clients.get(asked["client_id"])
        if registered is not None and asked["redirect_uri"] not in registered["redirect_uris"]:
            return JSONResponse({"error": "invalid_request"}, 400)
        code = f"code-{next(self._numbers)}"
        self._codes[code] = asked
        sent = {"code": code, "state": asked["state"], "iss": self.base}
        return RedirectResponse(f"{asked['redirect_uri']}?{urlencode(sent)}", 302)

    async def _token(self, request: Request) -> Response:
        form = await request.form()
        self.asked += 1
        self.reached.set()
        await asyncio.to_thread(self.gate.wait, 30)
        if self.refusal is not None:
            return self.refusal
        asked = {name: str(value) for name, value in form.items()}
        if asked["grant_type"] == "refresh_token":
            self.refreshed += 1
            if asked["refresh_token"] not in self.refresh_tokens:
                self.revoke()  # it was stolen
                return JSONResponse({"error": "invalid_grant"}, 400)
            self.refresh_tokens.remove(asked["refresh_token"])
        else:
            begun = self._codes.pop(asked["code"])
            digest = hashlib.sha256(asked["code_verifier"].encode()).digest()
            assert base64.urlsafe_b64encode(digest).decode().rstrip("=") == begun["code_challenge"]
            assert (begun["redirect_uri"], begun["client_id"]) == (asked["redirect_uri"], asked["client_id"])
            assert begun["resource"] == f"{self.base}/mcp"
        assert asked["resource"] == f"{self.base}/mcp"
        access, refresh = f"access-{next(self._numbers)}", f"refresh-{next(self._numbers)}"
        self.valid[access] = time.time() + self.seconds
        self.refresh_tokens.add(refresh)
        given = {"access_token": access, "token_type": "Bearer", "expires_in": self.seconds, "refresh_token": refresh}
        return JSONResponse(given)
