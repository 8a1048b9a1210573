"""Seal what a client keeps for the server, so that any process accepts it later, from the same principal alone.

A sealed text is readable and authenticated (HMAC-SHA256, RFC 2104). Nothing in it grants access: what it names is
looked up with the rights of the principal who brings it.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from app.infra.secrets.secret import Secret
from app.security.access.structs import Principal

MAC_BYTES = 16
MAX_SEALED = 16_384
"""Characters of a sealed text."""

_encode = msgspec.json.Encoder(order="sorted").encode


class Unsealable(Exception):
    """The text was not sealed by this service for this principal and purpose, or has expired."""


def digest(*what: Any) -> str:
    """Return a short digest of JSON values."""
    return hashlib.sha256(_encode(what)).hexdigest()[:32]


class Sealer:
    """Seals JSON values for a principal, a purpose and a time.

    ``keys`` returns the service's secrets: the first seals, each of them opens, so a rotation invalidates nothing.
    ``clock`` returns seconds.
    """

    def __init__(self, keys: Callable[[], Sequence[Secret]], clock: Callable[[], float] = time.time) -> None:
        self._keys = keys
        self._clock = clock

    def seal(self, principal: Principal, purpose: str, value: Any, seconds: float) -> str:
        """Return ``value``, sealed for ``principal`` and ``purpose``, for ``seconds``."""
        payload = _encode([int(self._clock() + seconds), value])
        mac = _mac(self._keys()[0], principal, purpose, payload)
        return _text(mac + payload)

    def nonce(self) -> str:
        """Return a text that identifies one sealed value."""
        return secrets.token_urlsafe(9)

    def unseal(self, principal: Principal, purpose: str, text: str) -> Any:
        """Return the value of ``text``. Raises ``Unsealable``."""
        try:
            if len(text) > MAX_SEALED:
                raise Unsealable
            raw = base64.urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
        except (binascii.Error, UnicodeEncodeError) as error:
            raise Unsealable from error
        mac, payload = raw[:MAC_BYTES], raw[MAC_BYTES:]
        macs = [_mac(secret, principal, purpose, payload) for secret in self._keys()]
        if _text(raw) != text or not sum(hmac.compare_digest(mac, one) for one in macs):
            raise Unsealable
        expires, value = msgspec.json.decode(payload)
        if expires < self._clock():
            raise Unsealable
        return value


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _mac(secret: Secret, principal: Principal, purpose: str, payload: bytes) -> bytes:
    key = hmac.digest(secret.reveal().encode(), b"agent-service mcp", "sha256")
    bound = _encode([str(principal.tenant_id), principal.user_id or principal.key_id or "", purpose])
    return hmac.digest(key, bound + b"\n" + payload, "sha256")[:MAC_BYTES]
