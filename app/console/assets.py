"""The console's files as they are served: read once, compressed once, under an address made of their content.

All files share one folder name, the digest of all of them, so that modules which import each other by relative
addresses are always of one version, and may be cached for ever.
"""

import gzip
import hashlib
import html
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

STATIC = Path(__file__).parent / "static"
PAGE = "index.html"
MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
FIRST = ("js/", "vendor/", "pages/chat.js")
"""Modules that the first page needs: the browser fetches them at once, not one import after the other."""


class SignIn(NamedTuple):
    """How browsers sign in: as the public client ``client_id`` of the ``issuer``; empty: they do not."""

    issuer: str = ""
    client_id: str = ""
    scope: str = ""
    audience: str = ""

    def attributes(self) -> str:
        """Return what the page knows of it, as attributes."""
        if not self.issuer or not self.client_id:
            return ""
        given = {"issuer": self.issuer, "client": self.client_id, "scope": self.scope, "audience": self.audience}
        return "".join(f' data-{name}="{html.escape(value)}"' for name, value in given.items())

    @property
    def origin(self) -> str:
        """The origin of the issuer, which the page may ask for tokens; empty without one."""
        parts = urlsplit(self.issuer if self.client_id else "")
        return f"{parts.scheme}://{parts.netloc}" if parts.netloc else ""


class Asset(NamedTuple):
    """A file with its media type; ``compressed`` with gzip (RFC 1952)."""

    content: bytes
    compressed: bytes
    media_type: str


class Assets(NamedTuple):
    """The files by their paths below ``static/``, the page, and the version that all of them have together."""

    files: Mapping[str, Asset]
    page: str
    version: str

    def render(self, root: str, sign_in: SignIn) -> str:
        """Return the page for an address from which ``root`` (relative, such as ``../``) leads to the server's root."""
        base = f"{root}console/assets/{self.version}/"
        preloads = "\n".join(
            f'<link rel="modulepreload" href="{base}{name}">'
            for name in self.files
            if name.endswith(".js") and name.startswith(FIRST)
        )
        page = self.page.replace("$preloads", preloads).replace("$assets", base).replace("$root", root)
        return page.replace("$sign_in", sign_in.attributes())


@cache
def assets() -> Assets:
    """Read all files."""
    digest = hashlib.sha256()
    files = {}
    for path in sorted(STATIC.rglob("*")):
        if (media_type := MEDIA_TYPES.get(path.suffix)) is not None:
            content = path.read_bytes()
            digest.update(content)
            compressed = gzip.compress(content, 9, mtime=0)
            files[path.relative_to(STATIC).as_posix()] = Asset(content, compressed, media_type)
    page = (STATIC / PAGE).read_text(encoding="utf-8")
    digest.update(page.encode())
    return Assets(files, page, digest.hexdigest()[:16])
