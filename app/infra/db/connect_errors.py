"""Explain connection errors in one sentence: what is wrong, and what to do."""

import re
import socket
import ssl
from collections.abc import Iterator

import asyncpg

from app.infra.db.url import to_sqlalchemy


def reason(error: BaseException, url: str, *, setting: str = "DATABASE_URL") -> str:
    """Explain why connecting to ``url``, from ``setting``, failed with ``error``. Shows no secret of the address."""
    address, _ = to_sqlalchemy(url)
    user, database, host = address.username or "", address.database or "", address.host or ""
    for cause in _chain(error):
        message = str(cause).splitlines()[0] if str(cause) else ""
        if isinstance(cause, asyncpg.InvalidPasswordError):
            return f"the database refuses the password of the user {user!r}: check the password in {setting}"
        if isinstance(cause, asyncpg.InvalidCatalogNameError):
            return f"the server has no database {database!r}: create it, or check its name in {setting}"
        if isinstance(cause, asyncpg.InvalidAuthorizationSpecificationError):
            return _refused(message, user, setting)
        if isinstance(cause, asyncpg.InsufficientPrivilegeError):
            return _missing_privilege(message, user, setting)
        if isinstance(cause, asyncpg.TooManyConnectionsError):
            return "the database has no free connections: raise its max_connections, or lower WORKERS"
        if isinstance(cause, socket.gaierror):
            return f"no host is named {host!r}: check the host in {setting}"
        if isinstance(cause, ssl.SSLError):
            return (
                f"the database's TLS certificate is not trusted ({message}): set sslrootcert in "
                f"{setting} to its authority"
            )
        if isinstance(cause, ConnectionError) and "rejected SSL upgrade" in message:
            return f"the database does not support TLS, which {setting} requires: enable it there, or remove sslmode"
        if isinstance(cause, ConnectionRefusedError):
            return f"the database cannot be reached (ConnectionRefusedError from {host}): start it, or check {setting}"
        if isinstance(cause, TimeoutError):
            return f"the database cannot be reached ({host} does not answer in time): check {setting} and firewalls"
    return f"the database cannot be reached ({type(error).__name__}): check {setting}"


def _refused(message: str, user: str, setting: str) -> str:
    if "no encryption" in message or "SSL off" in message:
        return f"the database accepts the user {user!r} only with TLS: add ?sslmode=require to {setting}"
    if match := re.search(r'role "([^"]{1,63})" does not exist', message):
        return f"the database has no user {match[1]!r}: create it, or check the user in {setting}"
    return f"the database refuses the user {user!r} ({message}): check {setting} and the server's pg_hba.conf"


def _missing_privilege(message: str, user: str, setting: str) -> str:
    if match := re.search(r'permission denied to set role "([^"]{1,63})"', message):
        return f"the user {user!r} of {setting} may not act as {match[1]}: as the owner run: grant {match[1]} to {user}"
    return f"the user {user!r} of {setting} lacks a privilege ({message}): grant it, or check the user in {setting}"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Return ``error`` and the errors it wraps, the innermost first."""
    found: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting and len(found) < 20:
        one = waiting.pop()
        if one is not None and one not in found:
            found.append(one)
            waiting += [one.__context__, one.__cause__, getattr(one, "orig", None)]
    return reversed(found)
