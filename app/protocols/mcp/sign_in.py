"""Where authorization servers send a person back to who signs in at an MCP server for an agent (OAuth 2.1).

The page names whose account the server gets, and waits for the person's consent: a person who follows
the address of someone else's sign-in must see that.
"""

import html
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import urlsplit

import structlog
from litestar import Controller, Response, get
from litestar.di import NamedDependency

from app.agents.mcp.accounts import CALLBACK, SignInRefused
from app.agents.mcp.servers import McpServers
from app.base.errors import StartError
from app.features.access.guard import OPEN
from app.infra.http.query_params import AnyRequest
from app.infra.http.request_context import PROTOCOL_LABEL
from app.security.access.structs import AuditEvent, AuditSink

log = structlog.get_logger(__name__)

POLICY = "default-src 'none'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
HEADERS = {"Content-Security-Policy": POLICY, "Cache-Control": "no-store", "Referrer-Policy": "same-origin"}
MAX_LENGTH = 4096
"""Characters of a parameter."""
ERROR = re.compile("[a-z_]{1,64}")
"""A code of RFC 6749, the only words of an authorization server that are shown."""
UNKNOWN = "This address is not known, or it has expired or was used. Ask the agent again: it makes a new one."


class McpSignIns(NamedTuple):
    """What the route works with."""

    servers: McpServers
    records: AuditSink


class McpSignInController(Controller):
    """The callback of sign-ins; no key needed: the state of the pending sign-in is the credential."""

    path = CALLBACK
    tags = ("MCP",)
    include_in_schema = False
    opt = {**OPEN, PROTOCOL_LABEL: "mcp"}  # noqa: RUF012  as the framework declares it

    @get("/")
    async def finish(self, mcp_sign_ins: NamedDependency[McpSignIns], request: AnyRequest) -> Response[str]:
        """Return the page of the callback, whose button is a GET too: this server takes JSON bodies alone, and a page
        without script cannot send those.
        """
        page = await callback_page(mcp_sign_ins, request.query_params)
        return Response(page.html, media_type="text/html", status_code=page.status, headers=HEADERS)


class CallbackPage(NamedTuple):
    """A page with ``words``, and with a button that sends ``fields``; it goes out with ``HEADERS``."""

    words: str
    status: int = HTTPStatus.OK
    fields: Mapping[str, str] = {}

    @property
    def html(self) -> str:
        """The page's text."""
        inputs = "".join(
            f'<input type="hidden" name="{name}" value="{html.escape(value)}">' for name, value in self.fields.items()
        )
        form = f'<form method="get">{inputs}<button type="submit">Give access</button></form>' if inputs else ""
        return (
            '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Sign in</title>'
            '<meta name="viewport" content="width=device-width"></head>'
            f"<body><main><h1>Sign in</h1><p>{html.escape(self.words)}</p>{form}</main></body></html>"
        )


async def callback_page(sign_ins: McpSignIns, given: Mapping[str, str]) -> CallbackPage:
    """Ask the person for consent, then exchange the code that the authorization server has ``given`` for tokens."""
    servers, records = sign_ins
    code, state, iss, error = (str(given.get(name, ""))[:MAX_LENGTH] for name in ("code", "state", "iss", "error"))
    account = await servers.pending(state) if state else None
    if account is None:
        return CallbackPage(UNKNOWN, HTTPStatus.NOT_FOUND)
    if error or not code:
        reason = (error if ERROR.fullmatch(error) else "an error was sent") if error else "no code was sent"
        return CallbackPage(f"The sign-in at {account.server} was refused: {reason}.")
    if given.get("consent") != "yes":
        fields = {"code": code, "state": state, "iss": iss, "consent": "yes"}
        whose = f"agents of {account.about} at {urlsplit(servers.redirect_uri).netloc}"
        return CallbackPage(f"Give {whose} access to your account at {account.server}?", fields=fields)
    try:
        await servers.finish_sign_in(account, code, iss or None)
    except (SignInRefused, StartError) as refused:
        log.warning("mcp_sign_in_refused", server=account.server, reason=str(refused))
        return CallbackPage(f"The sign-in at {account.server} failed: {refused}.", HTTPStatus.BAD_GATEWAY)
    event = AuditEvent(account.tenant_id, "mcp.signed_in", account.user_id or "tenant", account.server)
    records.record(event)
    return CallbackPage(f"Signed in at {account.server}. Go back to where you came from and continue.")
