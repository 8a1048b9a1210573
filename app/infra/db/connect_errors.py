"""Why the database does not let us in, in one sentence: what is wrong, and what to do."""

import re
import socket
import ssl
from collections.abc import Iterator

import asyncpg

from app.infra.db.url import to_sqlalchemy


def reason(error: BaseException, url: str, *, setting: str = "DATABASE_URL") -> str:
    """What ``error`` says of the address ``url``, which ``setting`` gives. No secret of it is shown."""
    address, _ = to_sqlalchemy(url)
    user, database, host = address.username or "", address.database or "", address.host or ""
    for cause in _chain(error):
        words = str(cause).splitlines()[0] if str(cause) else ""
        if isinstance(cause, asyncpg.InvalidPasswordError):
            return f"the database refuses the password of the user {user!r}: check the password in {setting}"
        if isinstance(cause, asyncpg.InvalidCatalogNameError):
            return f"the server has no database {database!r}: create it, or check its name in {setting}"
        if isinstance(cause, asyncpg.InvalidAuthorizationSpecificationError):
            return _refused(words, user, setting)
        if isinstance(cause, asyncpg.InsufficientPrivilegeError):
            return _lacking(words, user, setting)
        if isinstance(cause, asyncpg.TooManyConnectionsError):
            return "the database has no connection left: raise its max_connections, or lower WORKERS"
        if isinstance(cause, socket.gaierror):
            return f"no host is named {host!r}: check the host in {setting}"
        if isinstance(cause, ssl.SSLError):
            return f"the TLS of the database is not trusted ({words}): name its authority by sslrootcert in {setting}"
        if isinstance(cause, ConnectionError) and "rejected SSL upgrade" in words:
            return f"the database offers no TLS, which {setting} asks for: turn it on there, or leave out sslmode"
        if isinstance(cause, ConnectionRefusedError):
            return f"the database cannot be reached (ConnectionRefusedError from {host}): start it, or check {setting}"
        if isinstance(cause, TimeoutError):
            return f"the database cannot be reached ({host} does not answer in time): check {setting} and firewalls"
    return f"the database cannot be reached ({type(error).__name__}): check {setting}"


def _refused(words: str, user: str, setting: str) -> str:
    if "no encryption" in words or "SSL off" in words:
        return f"the database lets the user {user!r} in with TLS alone: add ?sslmode=require to {setting}"
    if match := re.search(r'role "([^"]{1,63})" does not exist', words):
        return f"the database has no user {match[1]!r}: create it, or check the user in {setting}"
    return f"the database does not let the user {user!r} in ({words}): check {setting} and the server's pg_hba.conf"


def _lacking(words: str, user: str, setting: str) -> str:
    if match := re.search(r'permission denied to set role "([^"]{1,63})"', words):
        return f"the user {user!r} of {setting} may not act as {match[1]}: as the owner run: grant {match[1]} to {user}"
    return f"the user {user!r} of {setting} lacks a right ({words}): grant it, or check the user in {setting}"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """``error`` and what it wraps, the innermost first."""
    found: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting and len(found) < 20:
        one = waiting.pop()
        if one is not None and one not in found:
            found.append(one)
            waiting += [one.__context__, one.__cause__, getattr(one, "orig", None)]
    return reversed(found)
