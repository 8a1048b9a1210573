"""Storage format of JSON: plain, or compressed with zstd if long.

The first byte distinguishes them: a zstd frame begins with ``0x28`` (RFC 8878), which begins no JSON text.
"""

import msgspec
import zstandard

from app.domain.state import Head

COMPRESS_BYTES = 2048
"""JSON longer than this is compressed; shorter texts gain too little for the time."""

MAX_UNPACKED_BYTES = 256 * 1024 * 1024
"""Maximum size to which a stored item may decompress."""

_ZSTD = 0x28
_head_decoder = msgspec.json.Decoder(Head)


def pack(json: bytes) -> bytes:
    """Return the stored form of ``json``."""
    if len(json) <= COMPRESS_BYTES:
        return json
    # a compressor is not thread-safe, and cheap to create
    return zstandard.ZstdCompressor(level=3).compress(json)


def unpack(stored: bytes) -> bytes:
    """Return the JSON of ``stored``. Raises ``zstandard.ZstdError`` if it is damaged."""
    if stored[:1] and stored[0] == _ZSTD:
        return zstandard.ZstdDecompressor().decompress(stored, max_output_size=MAX_UNPACKED_BYTES)
    return stored


def unpacked_size(stored: bytes) -> int:
    """Return the size in bytes of the JSON of ``stored`` without decompressing it."""
    if stored[:1] and stored[0] == _ZSTD:
        return max(len(stored), zstandard.frame_content_size(stored))
    return len(stored)


def pack_head(head: Head) -> bytes:
    """Return the stored form of ``head``."""
    return msgspec.json.encode(head)


def unpack_head(stored: bytes) -> Head:
    """Return the head of ``stored``. Raises ``msgspec.DecodeError`` if it is damaged."""
    return _head_decoder.decode(stored)


def ranges_of(head: Head) -> tuple[list[int], list[int]]:
    """Return the log items that ``head`` refers to, as starts and inclusive ends of ranges."""
    firsts: list[int] = []
    lasts: list[int] = []
    for ranges in head.lists.values():
        firsts += ranges[::2]
        lasts += ranges[1::2]
    firsts += head.items.values()
    lasts += head.items.values()
    return firsts, lasts
