"""Agent cards, signed if a key is configured: https://a2a-protocol.org/latest/specification/#8-agent-discovery-the-agent-card"""

import base64
import hashlib
import json
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from app.agents.port import Agents
from app.base.errors import NotFound, UsageError
from app.infra.secrets.secret import Secret
from app.protocols.a2a.content import INPUT_MODES, OUTPUT_MODES
from app.security.access.structs import WRITE

VERSION = "1.0"
OLD_VERSION = "0.3"
MAX_AGE = 300
"""Seconds for which clients and caches may keep a card."""

SCHEMES: dict[str, dict[str, Any]] = {
    "bearer": {"httpAuthSecurityScheme": {"scheme": "Bearer"}},
    "apiKey": {"apiKeySecurityScheme": {"location": "header", "name": "X-Api-Key"}},
}
_OLD_SCHEMES: dict[str, dict[str, Any]] = {
    "bearer": {"type": "http", "scheme": "Bearer"},
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
}

_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""Of the group of P-256: a private key is a number from 1 to one less (SEC 2, section 2.4.2)."""


class Described(NamedTuple):
    """What a card says of an agent. ``id`` is its name, or the id of an assistant."""

    id: str
    name: str
    description: str


class CardSigner:
    """Signs cards by ES256. Raises ``UsageError`` if ``secret`` is no 64 hexadecimal digits."""

    def __init__(self, secret: Secret) -> None:
        try:
            number = int.from_bytes(bytes.fromhex(secret.reveal()), "big")
            if not 0 < number < _ORDER or len(secret.reveal()) != 64:
                raise ValueError
        except ValueError:
            raise UsageError("AGENT_CARD_KEY is not a key: set it to the output of: openssl rand -hex 32") from None
        import jwt  # a worker without a key needs neither
        from cryptography.hazmat.primitives.asymmetric import ec

        self._encode = jwt.api_jws.encode
        self._key = ec.derive_private_key(number, ec.SECP256R1())
        public: dict[str, Any] = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(self._key.public_key()))
        self.public = {name: public[name] for name in ("crv", "kty", "x", "y")}
        thumbprint = hashlib.sha256(json.dumps(self.public, separators=(",", ":"), sort_keys=True).encode()).digest()
        self.key_id = base64.urlsafe_b64encode(thumbprint).rstrip(b"=").decode()
        self.sign = lru_cache(maxsize=256)(self._sign)

    @property
    def key_set(self) -> dict[str, Any]:
        """The JSON Web Key Set with the public key."""
        return {"keys": [{**self.public, "kid": self.key_id, "use": "sig", "alg": "ES256"}]}

    def _sign(self, payload: bytes, key_set_url: str) -> tuple[str, str]:
        headers = {"typ": "JOSE", "kid": self.key_id, "jku": key_set_url}
        token = self._encode(payload, self._key, algorithm="ES256", headers=headers)
        protected, _, signature = token.split(".")
        return protected, signature


class AgentCards:
    """The cards of the agents of this server. ``default`` is the agent of clients that name none.

    ``base`` is the server's address.
    """

    def __init__(
        self,
        agents: Agents,
        default: str,
        version: str,
        *,
        authenticated: bool,
        key: Secret | None = None,
    ) -> None:
        self.default = default
        self._agents = agents
        self._version = version
        self._authenticated = authenticated
        self.signer = None if key is None else CardSigner(key)

    def describe(self, name: str) -> Described:
        """Return what the public card of an agent says of it. Raises ``NotFound``."""
        agent = self._agents.get(name) if name in self._agents.names() else None
        if agent is None:
            raise NotFound(f"No agent {name[:200]!r}: use one of {', '.join(self._agents.names())}.")
        return Described(name, name, agent.description)

    def card(self, about: Described, base: str, version: str = "") -> tuple[bytes, str]:
        """Return the card as JSON, and its ETag. Peers of both versions read the one without a ``version``.

        That is signed twice: whole, and without the names of version 0.3, because SDKs of 1.0 verify what they know.
        """
        card = self._unsigned(about, base)
        signed = [canonical(card)]
        if version == OLD_VERSION:
            card = self._old_card(about, base)
            signed = [canonical(card)]
        elif version != VERSION:
            card |= self._old_members(about, base)
            if self._authenticated:
                card["securitySchemes"] = {name: SCHEMES[name] | _OLD_SCHEMES[name] for name in SCHEMES}
            signed.insert(0, canonical(card))
        if self.signer is not None:
            signatures = [self.signer.sign(one, f"{base}/a2a/jwks.json") for one in signed]
            card["signatures"] = [{"protected": protected, "signature": one} for protected, one in signatures]
        key_id = "" if self.signer is None else self.signer.key_id
        tag = hashlib.sha256(signed[0] + key_id.encode()).hexdigest()[:32]
        return msgspec.json.encode(card), f'"{tag}"'

    def _unsigned(self, about: Described, base: str) -> dict[str, Any]:
        url = f"{base}/a2a/{about.id}"
        bindings = (("JSONRPC", VERSION), ("HTTP+JSON", VERSION), ("JSONRPC", OLD_VERSION))
        card: dict[str, Any] = {
            "name": about.name,
            "description": about.description or f"The agent {about.name}.",
            "version": self._version,
            "documentationUrl": f"{base}/docs",
            "supportedInterfaces": [
                {"url": url, "protocolBinding": binding, "protocolVersion": version} for binding, version in bindings
            ],
            "capabilities": {"streaming": True, "pushNotifications": True, "extendedAgentCard": True},
            "defaultInputModes": list(INPUT_MODES),
            "defaultOutputModes": list(OUTPUT_MODES),
            "skills": [_skill(about)],
        }
        if self._authenticated:
            card["securitySchemes"] = SCHEMES
            card["securityRequirements"] = [{"schemes": {name: {"list": [WRITE]}}} for name in SCHEMES]
        return card

    def _old_card(self, about: Described, base: str) -> dict[str, Any]:
        card = self._unsigned(about, base) | self._old_members(about, base)
        del card["supportedInterfaces"]
        del card["capabilities"]["extendedAgentCard"]
        if card.pop("securityRequirements", None):
            card["securitySchemes"] = _OLD_SCHEMES
        return card

    def _old_members(self, about: Described, base: str) -> dict[str, Any]:
        """Return what a card has in version 0.3 and not in 1.0."""
        members: dict[str, Any] = {
            "url": f"{base}/a2a/{about.id}",
            "preferredTransport": "JSONRPC",
            "protocolVersion": "0.3.0",
            "supportsAuthenticatedExtendedCard": True,
        }
        if self._authenticated:
            members["security"] = [{name: [WRITE]} for name in _OLD_SCHEMES]  # verifiers leave out what is empty
        return members


def _skill(about: Described) -> dict[str, Any]:
    description = about.description or f"Does what {about.name} is for."
    return {"id": about.id, "name": about.name, "description": description, "tags": ["agent"]}


def canonical(card: dict[str, Any]) -> bytes:
    """Return the canonical form of a card without signatures (RFC 8785): its values are texts, lists and booleans.

    Empty values are left out, as https://a2a-protocol.org/latest/specification/#841 asks; a card has none.
    """
    return json.dumps(card, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()
