"""Routes of the console. ``/`` is a page only for clients that name ``text/html``; others get a table of contents."""

import zlib
from typing import Any

from litestar import Controller, Request, Response, get
from litestar.exceptions import NotFoundException
from litestar.params import FromPath

from app.console.assets import SignIn, assets
from app.features.access.guard import OPEN
from app.features.system.service import version

POLICY = (
    "default-src 'self'; connect-src 'self'{issuer}; img-src 'self' data: blob:; media-src data: blob:; "
    "object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types dompurify"
)
"""Content Security Policy: our own files alone, no inline script or style, and no text becomes script: only the
sanitiser may make HTML of text (https://www.w3.org/TR/trusted-types/). Requests go to this server, and to the issuer
where browsers sign in."""

REVALIDATED = "no-cache"
IMMUTABLE = "public, max-age=31536000, immutable"

AnyRequest = Request[Any, Any, Any]


class ContentsController(Controller):
    """The table of contents at ``/``, where the console is off."""

    include_in_schema = False
    opt = OPEN

    @get("/", sync_to_thread=False)
    def contents(self) -> Response[dict[str, str]]:
        """Return where things are, relative to this address."""
        return Response(_contents(), headers={"Vary": "Accept"})


class ConsoleController(Controller):
    """The console and its files. They are public: what they show comes from the API, which asks for a key."""

    include_in_schema = False
    opt = OPEN

    @get("/", sync_to_thread=False)
    def root(self, request: AnyRequest) -> Response[Any]:
        """Return the page to browsers, the table of contents to other clients."""
        if not names_html(request.headers.get("accept", "")):
            return Response(_contents() | {"console": "console/"}, headers={"Vary": "Accept"})
        return _page(request, "")

    @get(["/console", "/console/{path:path}"], sync_to_thread=False)
    def page(self, request: AnyRequest, path: FromPath[str] = "") -> Response[Any]:
        """Return the page, which shows what its address names."""
        return _page(request, f"console{path}" if path else "console")

    @get("/console/assets/{digest:str}/{path:path}", sync_to_thread=False)
    def asset(self, request: AnyRequest, digest: FromPath[str], path: FromPath[str]) -> Response[bytes]:
        """Return a file. One of another version is the current one, and not for caching: workers may be of two."""
        found = assets()
        file = found.files.get(path.removeprefix("/"))
        if file is None:
            raise NotFoundException
        headers = {
            "Cache-Control": IMMUTABLE if digest == found.version else REVALIDATED,
            "Content-Type": file.media_type,
            "Vary": "Accept-Encoding",
        }
        if "gzip" in request.headers.get("accept-encoding", ""):
            return Response(file.compressed, headers={**headers, "Content-Encoding": "gzip"})
        return Response(file.content, headers=headers)


def names_html(accept: str) -> bool:
    """Whether an ``Accept`` header names ``text/html``, not merely allows it by a wildcard (RFC 9110, 12.5.1)."""
    for part in accept.lower().split(","):
        name, _, parameters = part.partition(";")
        if name.strip() == "text/html":
            return parameters.replace(" ", "").partition("q=")[2].rstrip("0.") != "" or "q=" not in parameters
    return False


def _contents() -> dict[str, str]:
    return {
        "name": "agent-service",
        "version": version(),
        "api": "api/v1",
        "docs": "docs",
        "openapi": "openapi.json",
        "health": "api/v1/health",
    }


def _page(request: AnyRequest, route: str) -> Response[Any]:
    """Return the page at ``route``; its addresses are relative, so that a proxy may serve it under any prefix."""
    found = assets()
    depth = route.count("/") + request.scope["raw_path"].endswith(b"/") if route else 0
    sign_in: SignIn = request.app.state.get("sign_in", SignIn())
    tag = f'"{found.version}-{depth}-{zlib.crc32(sign_in.attributes().encode()):x}"'
    policy = POLICY.format(issuer=f" {sign_in.origin}" if sign_in.origin else "")
    headers = {"Cache-Control": REVALIDATED, "Content-Security-Policy": policy, "ETag": tag, "Vary": "Accept"}
    if request.headers.get("if-none-match") == tag:
        return Response(b"", status_code=304, headers=headers)
    return Response(found.render("../" * depth or "./", sign_in), media_type="text/html", headers=headers)
