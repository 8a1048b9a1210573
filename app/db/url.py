"""Database addresses: the ordinary PostgreSQL form in, what the driver takes out."""

import ssl
from typing import Any

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from app.base.errors import UsageError

SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
FORM = "postgresql://user:password@host/database?sslmode=require"


def to_sqlalchemy(address: str) -> tuple[URL, dict[str, Any]]:
    """An address like ``FORM``, or one with a socket folder (``?host=/folder``), as URL and driver arguments.

    ``sslmode`` and ``sslrootcert`` mean what libpq means by them
    (https://www.postgresql.org/docs/current/libpq-ssl.html). Raises ``UsageError``, which never shows the address.
    """
    try:
        url = make_url(address)
    except (ArgumentError, ValueError) as error:
        raise UsageError(f"the database address cannot be read; write it like {FORM}") from error
    if url.get_backend_name() not in {"postgresql", "postgres"}:
        raise UsageError(f"the database address does not name PostgreSQL; write it like {FORM}")
    query = dict(url.query)
    mode = query.pop("sslmode", None)
    root = query.pop("sslrootcert", None)
    unknown = set(query) - {"host", "port"}
    if unknown:
        raise UsageError(f"the database address has parameters that are not supported: {', '.join(sorted(unknown))}")
    arguments: dict[str, Any] = {}
    if mode is not None:
        if mode not in SSL_MODES:
            raise UsageError(f"sslmode of the database address must be one of {', '.join(SSL_MODES)}")
        arguments["ssl"] = _context(str(mode), str(root)) if root else str(mode)
    return url.set(drivername="postgresql+asyncpg", query=query), arguments


def _context(mode: str, root: str) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=root)
    except OSError as error:
        raise UsageError("sslrootcert of the database address cannot be read as a certificate file") from error
    context.check_hostname = mode == "verify-full"
    if mode not in {"verify-ca", "verify-full"}:
        context.verify_mode = ssl.CERT_NONE
    return context
