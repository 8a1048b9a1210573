"""Convert PostgreSQL URLs to SQLAlchemy URLs and driver arguments."""

import ssl
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from app.base.errors import UsageError

SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
VERIFYING = ("verify-ca", "verify-full")
PARAMETERS = frozenset({"host", "port", "sslmode", "sslrootcert"})
DEFAULT_ROOT = "~/.postgresql/root.crt"
FORM = "postgresql://user:password@host/database?sslmode=require"


def to_sqlalchemy(address: str) -> tuple[URL, dict[str, Any]]:
    """Convert an address like ``FORM``, or with a socket folder (``postgresql:///db?host=/folder``), for asyncpg.

    Returns the URL and further driver arguments. ``sslmode`` and ``sslrootcert`` have libpq's meaning
    (https://www.postgresql.org/docs/current/libpq-ssl.html), including ``sslrootcert=system``. Raises ``UsageError``,
    which shows no part of the address that may be secret.
    """
    try:
        url = make_url(address)
        given = {name: _single(value) for name, value in url.query.items()}
        port = int(given["port"]) if "port" in given else url.port
    except (ArgumentError, ValueError):
        raise UsageError(f"the database address is invalid; write it like {FORM}") from None
    if url.get_backend_name() not in {"postgresql", "postgres"}:
        raise UsageError(f"the database address does not name PostgreSQL; write it like {FORM}")
    if unknown := given.keys() - PARAMETERS:
        raise UsageError(f"the database address has unsupported parameters: {', '.join(sorted(unknown))}")
    host = given.get("host") or unquote(url.host or "")
    if "@" in host:
        raise UsageError("the database address has more than one @; in the user or password write it as %40")
    if "," in host:
        raise UsageError("the database address names several hosts; name one")
    mode, root = given.get("sslmode", ""), given.get("sslrootcert", "")
    if mode and mode not in SSL_MODES:
        raise UsageError(f"sslmode of the database address must be one of {', '.join(SSL_MODES)}")
    # libpq: no TLS on a socket of this machine
    arguments = {"ssl": _tls(mode, root)} if mode and not host.startswith("/") else {}
    return url.set(drivername="postgresql+asyncpg", host=host or None, port=port, query={}), arguments


def _single(value: str | tuple[str, ...]) -> str:
    if isinstance(value, str):
        return value
    raise ValueError("given more than once")


def _tls(mode: str, root: str) -> str | ssl.SSLContext:
    if mode not in (*VERIFYING, "require") or (mode == "require" and not root):
        return mode
    if not root:
        root = str(Path(DEFAULT_ROOT).expanduser())
        if not Path(root).exists():
            raise UsageError(
                f"sslmode={mode} of the database address needs a trusted authority: add sslrootcert=FILE, or "
                f"sslrootcert=system for those of this machine"
            )
    try:
        context = ssl.create_default_context(cafile=None if root == "system" else root)
    except OSError as error:
        raise UsageError("sslrootcert of the database address cannot be read as a certificate file") from error
    # libpq: with a root certificate, require means verify-ca; system trusts many, so the host name is verified too
    context.check_hostname = mode == "verify-full" or root == "system"
    return context
