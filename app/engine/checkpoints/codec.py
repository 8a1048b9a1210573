"""How JSON rests in the database: as it is, or compressed with zstd once it is long.

The first byte tells: a zstd frame begins with ``0x28`` (RFC 8878), which begins no JSON text.
"""

import msgspec
import zstandard

from app.domain.state import Head

COMPRESS_BYTES = 2048
"""JSON longer than this is compressed: shorter texts gain too little for the time."""

MAX_UNPACKED_BYTES = 256 * 1024 * 1024
"""A stored item may not claim to unpack to more than this."""

_ZSTD = 0x28
_head_decoder = msgspec.json.Decoder(Head)


def pack(json: bytes) -> bytes:
    """The stored form of ``json``."""
    if len(json) <= COMPRESS_BYTES:
        return json
    # a compressor is not safe to share between threads, and cheap to make
    return zstandard.ZstdCompressor(level=3).compress(json)


def unpack(stored: bytes) -> bytes:
    """The JSON that ``stored`` holds. Raises ``zstandard.ZstdError`` on a damaged item."""
    if stored[:1] and stored[0] == _ZSTD:
        return zstandard.ZstdDecompressor().decompress(stored, max_output_size=MAX_UNPACKED_BYTES)
    return stored


def unpacked_size(stored: bytes) -> int:
    """Bytes of the JSON that ``stored`` holds, without unpacking it."""
    if stored[:1] and stored[0] == _ZSTD:
        return max(len(stored), zstandard.frame_content_size(stored))
    return len(stored)


def pack_head(head: Head) -> bytes:
    """The stored form of ``head``."""
    return msgspec.json.encode(head)


def unpack_head(stored: bytes) -> Head:
    """The head that ``stored`` holds. Raises ``msgspec.DecodeError`` on a damaged one."""
    return _head_decoder.decode(stored)


def ranges_of(head: Head) -> tuple[list[int], list[int]]:
    """The log items that ``head`` names, as starts and (inclusive) ends of ranges."""
    firsts: list[int] = []
    lasts: list[int] = []
    for ranges in head.lists.values():
        firsts += ranges[::2]
        lasts += ranges[1::2]
    firsts += head.items.values()
    lasts += head.items.values()
    return firsts, lasts
