"""Accounts at MCP servers in the database, encrypted (AES-256-GCM)."""

import contextlib
import hashlib
import hmac
import secrets
from collections.abc import AsyncIterator, Callable, Sequence

import msgspec
import structlog

from app.agents.mcp import queries
from app.agents.mcp.accounts import Account, AccountState
from app.infra.db.engine import Database
from app.infra.secrets.secret import Secret

log = structlog.get_logger(__name__)

NONCE_BYTES = 12

_encode = msgspec.json.Encoder(order="sorted").encode
_decode = msgspec.json.Decoder(AccountState).decode


class DatabaseAccounts:
    """Accounts (``app.agents.mcp.accounts.AccountStore``).

    ``keys`` returns the service's secrets: the first encrypts, each of them decrypts. What none of them decrypts counts
    as nothing: its owner signs in again.
    """

    def __init__(self, database: Database, keys: Callable[[], Sequence[Secret]]) -> None:
        self._database = database
        self._keys = keys

    async def load(self, account: Account) -> AccountState:
        """Return what is kept of ``account``."""
        async with self._database.tenant_connection(account.tenant_id) as connection:
            sealed = await connection.fetchval(queries.LOAD_ACCOUNT, *account)
        return {} if sealed is None else self._opened(account, sealed)

    @contextlib.asynccontextmanager
    async def changing(self, account: Account, new: bool = False) -> AsyncIterator[AccountState]:
        """Enter with what is kept of ``account``; its row is locked, and written at the end of the block."""
        lock = queries.MAKE_ACCOUNT if new else queries.LOCK_ACCOUNT
        async with self._database.tenant_connection(account.tenant_id) as connection, connection.transaction():
            sealed = await connection.fetchval(lock, *account)
            state = {} if sealed is None else self._opened(account, sealed)
            yield state
            if sealed is None:
                return
            pending = state.get("pending")
            found = None if pending is None else _digest(pending["state"])
            await connection.execute(queries.SAVE_ACCOUNT, *account, self._sealed(account, state), found)

    async def find(self, state: str) -> Account | None:
        """Return the account with the pending sign-in ``state``, of any tenant."""
        async with self._database.engine_connection() as connection:
            row = await connection.fetchrow(queries.FIND_ACCOUNT, _digest(state))
        return None if row is None else Account(row["tenant_id"], row["server"], row["user_id"])

    def _sealed(self, account: Account, state: AccountState) -> bytes:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # loaded by the first sign-in

        nonce = secrets.token_bytes(NONCE_BYTES)
        return nonce + AESGCM(_key(self._keys()[0])).encrypt(nonce, _encode(state), _bound(account))

    def _opened(self, account: Account, sealed: bytes) -> AccountState:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        if not sealed:
            return {}
        for secret in self._keys():
            with contextlib.suppress(InvalidTag):
                body = AESGCM(_key(secret)).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], _bound(account))
                return _decode(body)
        log.warning("mcp_account_unreadable", server=account.server, detail="AGENT_KEY_PEPPER changed: sign in again")
        return {}


def _key(secret: Secret) -> bytes:
    return hmac.digest(secret.reveal().encode(), b"agent-service mcp accounts", "sha256")


def _bound(account: Account) -> bytes:
    """Return what binds the encrypted state to its row."""
    return _encode([str(account.tenant_id), account.server, account.user_id])


def _digest(state: str) -> str:
    return hashlib.sha256(state.encode()).hexdigest()
