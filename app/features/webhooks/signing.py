"""Sign webhooks as Standard Webhooks describes (https://www.standardwebhooks.com)."""

import base64
import binascii
from collections.abc import Sequence
from datetime import UTC, datetime

from standardwebhooks import Webhook

from app.base.errors import UsageError
from app.infra.secrets.secret import Secret

PREFIX = "whsec_"


def key_of(secret: Secret) -> bytes:
    """Return the signing key of ``secret``: base64 after ``whsec_``, else its bytes. Raises ``UsageError``."""
    text = secret.reveal()
    if not text.startswith(PREFIX):
        return text.encode()
    try:
        return base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        raise UsageError("a webhook secret that begins with whsec_ must continue in base64") from None


def signed_headers(keys: Sequence[bytes], id_: str, seconds: int, body: bytes) -> dict[str, str]:
    """Return the headers of a call: id, timestamp (Unix seconds) and a signature with each of ``keys``."""
    headers = {"webhook-id": id_, "webhook-timestamp": str(seconds)}
    if keys:
        sent_at, text = datetime.fromtimestamp(seconds, UTC), body.decode()
        headers["webhook-signature"] = " ".join(Webhook(key).sign(id_, sent_at, text) for key in keys)
    return headers
