"""Accounts of tenants and people at MCP servers that want a sign-in (OAuth 2.1): whose they are, and their storage."""

import contextlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple, Protocol
from uuid import UUID

SIGN_IN_SECONDS = 900.0
"""How long the address at which a person signs in can be used."""
CALLBACK = "/mcp/oauth/callback"
"""Where authorization servers send a person back to, below the server's public URL."""


class SignInNeeded(Exception):
    """A person must sign in first, at ``url``."""

    def __init__(self, url: str) -> None:
        super().__init__("a person must sign in first")
        self.url = url


class SignInRefused(Exception):
    """A sign-in is impossible, or failed; the message is the reason."""


class Account(NamedTuple):
    """The account at ``server`` of a tenant, or of its user ``user_id``."""

    tenant_id: UUID
    server: str
    user_id: str

    @property
    def about(self) -> str:
        """Whose it is, for a person."""
        tenant = f"the tenant {self.tenant_id}"
        return f"the user {self.user_id} of {tenant}" if self.user_id else tenant


AccountState = dict[str, Any]
"""What is kept of an account, JSON: tokens and who made them, the client's registration, metadata of the issuer, a
pending sign-in, and the claim of the process that renews the tokens."""


class AccountStore(Protocol):
    """Where accounts are kept, encrypted."""

    async def load(self, account: Account) -> AccountState:
        """Return what is kept of ``account``; empty if nothing is."""
        ...

    def changing(self, account: Account, new: bool = False) -> AbstractAsyncContextManager[AccountState]:
        """Enter with what is kept of ``account``, alone among all processes; what is changed in the block is kept.

        Of an account that is not known nothing is kept, unless it may be ``new``. Nothing is waited for in the block.
        """
        ...

    async def find(self, state: str) -> Account | None:
        """Return the account whose pending sign-in has this ``state``."""
        ...


class MemoryAccounts:
    """Accounts of this process alone (``AccountStore``): for commands without a database, and for tests."""

    def __init__(self) -> None:
        self._states: dict[Account, AccountState] = {}

    async def load(self, account: Account) -> AccountState:
        """Return what is kept."""
        return dict(self._states.get(account, {}))

    @contextlib.asynccontextmanager
    async def changing(self, account: Account, new: bool = False) -> AsyncIterator[AccountState]:
        """Enter with what is kept."""
        yield self._states.setdefault(account, {}) if new else self._states.get(account, {})

    async def find(self, state: str) -> Account | None:
        """Return the account with the pending sign-in ``state``."""
        found = (one for one, kept in self._states.items() if kept.get("pending", {}).get("state") == state)
        return next(found, None)
