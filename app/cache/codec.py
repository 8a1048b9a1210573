"""How a value rests in a cache: with the key that it belongs to, compressed where it is long.

What comes out of a cache may have been written by anybody, be cut off, or belong elsewhere: what is no envelope of ours
for this very key is nothing.
"""

import msgspec
import zstandard

FORM = 1
"""Another form of envelopes has another number."""

COMPRESS_BYTES = 1024
LARGEST = 4 << 20
"""Bytes of a value. What is larger is not kept, and nothing may claim to unpack to more."""


class Envelope(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A value; ``packed``: it is a zstd frame (RFC 8878)."""

    form: int
    key: bytes
    packed: bool
    body: bytes


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Envelope).decode


def seal(key: bytes, body: bytes) -> bytes | None:
    """``body`` as it is kept at ``key``; None for one that is too large."""
    if len(body) > LARGEST:
        return None
    if len(body) <= COMPRESS_BYTES:
        return _encode(Envelope(FORM, key, False, body))
    return _encode(Envelope(FORM, key, True, zstandard.ZstdCompressor(level=1).compress(body)))


def unseal(key: bytes, stored: bytes) -> bytes | None:
    """The body in ``stored``; None where it is no envelope for ``key``."""
    try:
        envelope = _decode(stored)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    if envelope.form != FORM or envelope.key != key or len(envelope.body) > LARGEST:
        return None
    if not envelope.packed:
        return envelope.body
    try:
        if not 0 <= zstandard.frame_content_size(envelope.body) <= LARGEST:
            return None
        return zstandard.ZstdDecompressor().decompress(envelope.body)
    except zstandard.ZstdError:
        return None
