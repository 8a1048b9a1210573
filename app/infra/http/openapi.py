"""Serve ``/openapi.json``, ``/docs`` and ``/docs/errors`` from our own files; nothing is loaded from other hosts.

The page is a vendored renderer (``assets/``), started by our script, so the policy needs no inline script.
"""

import hashlib
import html
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
from litestar import Litestar, Request, Response, Router, get
from litestar.exceptions import NotFoundException
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme, Server
from litestar.params import FromPath

from app.infra.http.problems import KINDS, MEDIA_TYPE

ASSETS = Path(__file__).parent / "assets"
FILES = {
    "docs.js": "text/javascript",
    "docs.css": "text/css",
    "icon.svg": "image/svg+xml",
    "rapidoc-min.js": "text/javascript",
}
# the renderer styles its shadow trees with style elements
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "font-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
COMPLETE = "complete"
ORIGIN = "http://origin.invalid"
SERVER = "http://server.invalid"
"""Placeholders in the cached document for the address of the request, with the routes' prefix and without."""
INTRO = """\
Hold durable, streaming conversations with agents. Every step is checkpointed; a stream resumes where it was cut.

`langgraph_sdk` works unchanged with `url="http://origin.invalid/api/v1"`. With curl:

```bash
curl -N http://origin.invalid/api/v1/runs/stream -H 'Content-Type: application/json' \\
  -H 'Authorization: Bearer KEY' \\
  -d '{"assistant_id": "assistant", "stream_mode": "messages-tuple",
       "input": {"messages": [{"role": "user", "content": "Hello"}]}}'
```

Errors are `application/problem+json`: see [the list of errors](http://origin.invalid/docs/errors). This page as a
document: [openapi.json](http://origin.invalid/openapi.json).
"""
PROBLEM = {
    "type": "object",
    "title": "Problem",
    "description": "RFC 9457. `detail` is a sentence to act on; `request_id` finds the request in the service's log.",
    "required": ["type", "title", "status", "detail", "instance", "request_id"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference", "examples": ["/docs/errors#not-found"]},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string", "format": "uri-reference"},
        "request_id": {"type": "string"},
        "errors": {
            "type": "array",
            "description": "Each invalid value: a JSON pointer into the body, or a parameter's name.",
            "items": {
                "type": "object",
                "required": ["detail"],
                "properties": {
                    "detail": {"type": "string"},
                    "pointer": {"type": "string", "format": "json-pointer"},
                    "parameter": {"type": "string"},
                },
            },
        },
    },
}
ERROR = {
    "description": "An error",
    "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
}
PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="{base}/docs/assets/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="{base}/docs/assets/docs.css">
{head}</head>
<body>
{body}</body>
</html>
"""


class DocumentationPages(Router):
    """The routes of this module, without Litestar's own pages, which load scripts from other hosts."""

    def __init__(self, opt: dict[str, Any] | None = None) -> None:
        self._full = False
        super().__init__(
            path="/", route_handlers=[document, docs, errors, asset], include_in_schema=False, opt=opt, dto=None
        )
        self._full = True

    def register(self, value: Any) -> Any:
        """Accept only the routes of ``__init__``."""
        return [] if self._full else super().register(value)


def openapi_config(
    version: str, opt: dict[str, Any] | None = None, complete: Callable[[dict[str, Any]], dict[str, Any]] = dict
) -> OpenAPIConfig:
    """Return the application's ``openapi_config``; ``opt`` marks its routes as public for the guard.

    ``complete`` is given the document and returns the one to serve.
    """
    return OpenAPIConfig(
        title="agent-service",
        version=version,
        summary="A self-hosted server for AI agents",
        description=INTRO,
        servers=[Server(url=SERVER)],
        security=[{"Bearer": []}, {"ApiKey": []}],
        components=Components(
            security_schemes={
                "Bearer": SecurityScheme(
                    type="http", scheme="bearer", description="A key from `agent-service keys create`."
                ),
                "ApiKey": SecurityScheme(type="apiKey", name="X-Api-Key", security_scheme_in="header"),
            }
        ),
        use_handler_docstrings=True,
        openapi_router=DocumentationPages({**(opt or {}), COMPLETE: complete}),
        render_plugins=[JsonRenderPlugin()],
    )


def finish(schema: dict[str, Any], needs: Mapping[tuple[str, str], str | None]) -> dict[str, Any]:
    """Complete Litestar's document: our error responses, and the scopes that routes require.

    ``needs`` has the scope by path and method, None for public ones. Optional types are simplified.
    """
    schema = _plain(schema)
    schema["components"].setdefault("schemas", {})["Problem"] = PROBLEM
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            if isinstance(operation, dict) and "responses" in operation:
                operation["responses"].pop("400", None)
                operation["responses"]["default"] = ERROR
                scope = needs[path, method.upper()]
                operation["security"] = [] if scope is None else [{"Bearer": [scope]}, {"ApiKey": [scope]}]
    return schema


def needs_of(app: Litestar) -> dict[tuple[str, str], str | None]:
    """Return the scope by path and method, None for public routes."""
    return {
        (route.path_format, method): handler.opt.get("permission")
        for route in app.routes
        for handler in getattr(route, "route_handlers", ())
        for method in getattr(handler, "http_methods", ())
    }


def _plain(node: Any) -> Any:
    """Simplify ``oneOf`` of one simple type and null to the type ``[…, "null"]``, which tools show better."""
    if isinstance(node, list):
        return [_plain(part) for part in node]
    if not isinstance(node, dict):
        return node
    node = {name: _plain(part) for name, part in node.items()}
    if {"type": "null"} in (choices := node.get("oneOf", [])) and len(choices) == 2:
        only = choices[0] if choices[1] == {"type": "null"} else choices[1]
        if isinstance(only.get("type"), str):
            del node["oneOf"]
            node |= {**only, "type": [only["type"], "null"]}
            if "enum" in only:
                node["enum"] = [*only["enum"], None]
    return node


def _base(request: Request[Any, Any, Any], route: str) -> str:
    """Return what precedes ``route`` in the request's path: the prefix that the service is served under."""
    return str(request.scope.get("root_path", "")).rstrip("/") + request.scope["path"].removesuffix(route)


def _page(title: str, base: str, head: str, body: str) -> Response[str]:
    content = PAGE.format(title=title, base=base, head=head, body=body)
    return Response(content, media_type="text/html", headers={"Content-Security-Policy": POLICY})


@get("/openapi.json", sync_to_thread=False)
def document(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Return the OpenAPI document of this server."""
    state = request.app.state
    if "openapi_document" not in state:
        schema = finish(request.app.openapi_schema.to_schema(), needs_of(request.app))
        state.openapi_document = msgspec.json.encode(request.route_handler.opt[COMPLETE](schema))
    host = f"{request.url.scheme}://{request.url.netloc}"
    content = state.openapi_document.replace(ORIGIN.encode(), (host + _base(request, "/openapi.json")).encode())
    content = content.replace(SERVER.encode(), str(request.base_url).rstrip("/").encode())
    return Response(content, media_type="application/json")


@get("/docs", sync_to_thread=False)
def docs(request: Request[Any, Any, Any]) -> Response[str]:
    """Return an interactive page of the document."""
    base = _base(request, "/docs")
    head = (
        f'<script src="{base}/docs/assets/docs.js" type="module"></script>\n'
        f'<script src="{base}/docs/assets/rapidoc-min.js" type="module"></script>\n'
    )
    return _page("agent-service", base, head, f'<div id="docs" data-document="{base}/openapi.json"></div>\n')


@get("/docs/errors", sync_to_thread=False)
def errors(request: Request[Any, Any, Any]) -> Response[str]:
    """Return the page of all kinds of problems, which the ``type`` of a problem points to."""
    rows = "".join(
        f'<tr id="{kind.slug}"><td>{status}</td><td>{html.escape(kind.title)}</td><td>{_code(kind.remedy)}</td></tr>\n'
        for status, kind in KINDS.items()
    )
    body = (
        "<main>\n<h1>Errors of agent-service</h1>\n"
        "<p>Every error is <code>application/problem+json</code> (RFC 9457). Its <code>detail</code> says what to do; "
        "its <code>request_id</code> finds it in the log.</p>\n"
        f"<table>\n<tr><th>Status</th><th>Title</th><th>What to do</th></tr>\n{rows}</table>\n</main>\n"
    )
    return _page("Errors of agent-service", _base(request, "/docs/errors"), "", body)


@get("/docs/assets/{name:str}", sync_to_thread=False)
def asset(name: FromPath[str], request: Request[Any, Any, Any]) -> Response[bytes]:
    """Return a file of the page; it may be cached and revalidated by its ETag."""
    if name not in FILES:
        raise NotFoundException
    content, tag = _file(name)
    headers = {"Cache-Control": "no-cache", "ETag": tag}
    if request.headers.get("if-none-match") == tag:
        return Response(b"", status_code=304, headers=headers)
    return Response(content, media_type=FILES[name], headers=headers)


@cache
def _file(name: str) -> tuple[bytes, str]:
    content = (ASSETS / name).read_bytes()
    return content, f'"{hashlib.sha256(content).hexdigest()[:16]}"'


def _code(text: str) -> str:
    parts = html.escape(text).split("`")
    return "".join(f"<code>{part}</code>" if index % 2 else part for index, part in enumerate(parts))
