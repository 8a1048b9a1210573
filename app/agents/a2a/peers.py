"""All agents that agents of this process call, with their cards: fetched at start, and again while they are used."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import structlog

from app.agents.a2a.card import PeerCard, parse_card
from app.agents.a2a.client import A2AClient
from app.agents.a2a.spec import A2AAgentSpec, A2AName
from app.agents.tools.remote import Lookup, LostConnection, ServerAway, ServerError, expand_references
from app.base.errors import AgentServiceError, StartError
from app.base.tasks import Tasks
from app.infra.egress.addresses import AddressAllowlist, check_url

log = structlog.get_logger(__name__)

REFRESH_SECONDS = 300.0
"""A card older than this is fetched again."""
CARD_SECONDS = 10.0
CHECK_SECONDS = 15.0
"""Seconds between checks whether a card is old or still missing."""


class A2APeer:
    """One agent, ``name`` for models and people."""

    def __init__(self, name: str, spec: A2AAgentSpec, client: A2AClient) -> None:
        self.name = name
        self.spec = spec
        self._client = client
        self._card: PeerCard | None = None
        self._etag = ""
        self._fetched_at = 0.0
        self._problem = ""
        self._lock = asyncio.Lock()

    @property
    def description(self) -> str:
        """What a model reads about it: the operator's description, else the card's."""
        if self.spec.description:
            return self.spec.description
        return f"The agent {self.name}." if self._card is None else self._card.description

    async def call(self, method: str, params: dict[str, Any]) -> Any:
        """Return the result of a method. Raises as ``A2AClient``."""
        card = self._card
        if card is None:
            try:
                card = await self.fetch_card()
            except LostConnection as error:  # the call itself was not sent
                raise ServerAway(str(error)) from error
        return await self._client.call(card, method, params)

    async def fetch_card(self) -> PeerCard:
        """Return the agent's card, fetched again if it is old. Raises as ``A2AClient``."""
        async with self._lock:
            if self._card is not None and time.monotonic() - self._fetched_at < REFRESH_SECONDS:
                return self._card
            try:
                async with asyncio.timeout(CARD_SECONDS):
                    found = await self._client.card(self._etag if self._card is not None else "")
            except TimeoutError:
                raise ServerAway(f"its card took longer than {CARD_SECONDS:g} s") from None
            if found is not None:
                self._card, self._etag = parse_card(found[0], self.spec.card_url), found[1]
            self._fetched_at = time.monotonic()
            assert self._card is not None
            return self._card

    async def refresh_card(self) -> None:
        """Fetch the card if it is old; the one before is used while the agent is away."""
        try:
            await self.fetch_card()
            self._problem = ""
        except (ServerAway, ServerError, LostConnection) as error:
            if str(error) != self._problem:
                self._problem = str(error)
                log.warning("a2a_agent_unavailable", agent=self.name, reason=self._problem)


_NO_ADDRESSES = AddressAllowlist()


def _no_value(_name: str) -> str:
    return ""


class A2APeers:
    """The agents of an agents file, by their names or URLs. Only those that agents use are made.

    Without ``lookup`` (variables that headers refer to) and ``allowed`` they can be inspected, and not called.
    """

    def __init__(
        self,
        specs: Mapping[str, A2AAgentSpec],
        lookup: Lookup = _no_value,
        allowed: AddressAllowlist = _NO_ADDRESSES,
    ) -> None:
        self._specs = specs
        self._lookup = lookup
        self._allowed = allowed
        self._peers: dict[str, A2APeer] = {}
        self._tasks = Tasks("a2a")

    def get(self, name: A2AName) -> A2APeer:
        """Return the agent ``name``. Raises ``StartError`` if it is unknown or may not be called."""
        if name.key not in self._peers:
            self._peers[name.key] = self._made(name)
        return self._peers[name.key]

    def _made(self, name: A2AName) -> A2APeer:
        spec = A2AAgentSpec(url=name.key) if name.is_url else self._specs.get(name.key)
        if spec is None:
            known = ", ".join(self._specs) or "none"
            raise StartError(f"there is no A2A agent {name.key!r}: define [a2a.{name.key}]. Defined: {known}")
        try:
            check_url(spec.url, self._allowed)
            headers = expand_references(spec.headers, self._lookup)
        except (ValueError, AgentServiceError) as error:
            raise StartError(f"the A2A agent {name.key!r}: {error}") from error
        return A2APeer(name.tool, spec, A2AClient(spec.card_url, headers, self._allowed))

    @property
    def needed(self) -> list[A2APeer]:
        """The agents that agents of this process use."""
        return list(self._peers.values())

    def start(self) -> None:
        """Begin to fetch cards."""
        for peer in self.needed:
            self._tasks.repeat(peer.refresh_card, CHECK_SECONDS, name=f"card-{peer.name}")

    async def aclose(self) -> None:
        """Fetch no more cards."""
        await self._tasks.aclose()
