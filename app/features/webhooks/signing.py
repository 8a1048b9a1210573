"""Signatures by which a receiver knows that a call is ours and new: https://www.standardwebhooks.com."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence

from app.base.errors import UsageError
from app.infra.secrets.secret import Secret

PREFIX = "whsec_"


def key_of(secret: Secret) -> bytes:
    """The key that ``secret`` stands for: base64 after ``whsec_``, else its own bytes. Raises ``UsageError``."""
    text = secret.reveal()
    if not text.startswith(PREFIX):
        return text.encode()
    try:
        return base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        raise UsageError("a webhook secret that begins with whsec_ must go on in base64") from None


def signed(keys: Sequence[bytes], id_: str, seconds: int, body: bytes) -> dict[str, str]:
    """The headers of a call: its id, its time (Unix seconds), and a signature with each of ``keys``."""
    headers = {"webhook-id": id_, "webhook-timestamp": str(seconds)}
    text = f"{id_}.{seconds}.".encode() + body
    signatures = [base64.b64encode(hmac.new(key, text, hashlib.sha256).digest()).decode() for key in keys]
    if signatures:
        headers["webhook-signature"] = " ".join(f"v1,{signature}" for signature in signatures)
    return headers
