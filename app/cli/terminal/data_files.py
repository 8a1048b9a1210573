"""Files that commands read and write: new private files, compressed ones, and ``-`` for pipes."""

import contextlib
import gzip
import io
import os
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from app.base.errors import StartError, UsageError

PIPE = "-"
GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
"""Magic numbers (RFC 1952, RFC 8878)."""
CHUNK_BYTES = 4096
"""Bytes of a zstd file that are decompressed at once, to at most 128 MiB."""


@contextlib.contextmanager
def new_file(name: str, what: str) -> Iterator[BinaryIO]:
    """Create a file that only its owner can read; removed if the block fails. ``what`` names the argument.

    Raises ``UsageError`` if the file exists.
    """
    if name == PIPE:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise UsageError(f"{what} {name} cannot be created ({error.strerror}): name a new file") from error
    try:
        with os.fdopen(descriptor, "wb", buffering=1 << 20) as out:
            yield out
    except BaseException:
        Path(name).unlink()
        raise


@contextlib.contextmanager
def compressed(out: BinaryIO, name: str) -> Iterator[BinaryIO]:
    """Compress ``out`` by the suffix of ``name``: ``.gz``, ``.zst``, or not at all."""
    if name.endswith(".gz"):
        with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=6, mtime=0) as packed:
            yield cast("BinaryIO", packed)
    elif name.endswith((".zst", ".zstd")):
        import zstandard

        with zstandard.ZstdCompressor(level=6).stream_writer(out, closefd=False) as packed:
            yield cast("BinaryIO", packed)
    else:
        yield out


class LineSource:
    """Read lines of a file, decompressing by its magic number. ``size`` of the file in bytes; 0 if unknown."""

    def __init__(self, raw: BinaryIO, size: int) -> None:
        self._raw = raw
        self.size = size
        self.line = 0

    @property
    def position(self) -> int:
        """Bytes of the file that have been read."""
        return self._raw.tell() if self.size else 0

    def lines(self, max_bytes: int) -> Iterator[tuple[int, bytes | None]]:
        """Yield each line with its number from 1; None for one over ``max_bytes``. Raises ``StartError``."""
        import zstandard

        try:
            text = _decompressed(self._raw)
            while raw := text.readline(max_bytes + 1):
                self.line += 1
                if len(raw) <= max_bytes:
                    yield self.line, raw
                    continue
                while raw and not raw.endswith(b"\n"):
                    raw = text.readline(max_bytes)
                yield self.line, None
        except EOFError as error:
            raise StartError(
                f"the file cannot be read after line {self.line}: it is truncated, its compressed data has no end; "
                "get the complete file"
            ) from error
        except (OSError, zlib.error, zstandard.ZstdError) as error:
            raise StartError(f"the file cannot be read after line {self.line}: {error}") from error


@contextlib.contextmanager
def source(name: str) -> Iterator[LineSource]:
    """Open the file ``name`` or standard input. Raises ``UsageError`` if it cannot be read."""
    if name == PIPE:
        yield LineSource(sys.stdin.buffer, 0)
        return
    try:
        raw = Path(name).open("rb", buffering=1 << 20)  # noqa: SIM115  closed below
    except OSError as error:
        raise UsageError(f"{name} cannot be read ({error.strerror})") from error
    with raw:
        status = os.fstat(raw.fileno())
        yield LineSource(raw, status.st_size if Path(name).is_file() else 0)


def _decompressed(raw: Any) -> Any:
    magic = raw.peek(4)[:4]
    if magic.startswith(GZIP):
        return gzip.GzipFile(fileobj=raw)
    return io.BufferedReader(_ZstdReader(raw), 1 << 20) if magic == ZSTD else raw


class _ZstdReader(io.RawIOBase):
    """Reads consecutive zstd frames; raises ``EOFError`` if the last one is truncated.

    zstandard's own reader silently returns the incomplete frame.
    """

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._frame: Any = None
        self._packed = b""
        self._text = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._text:
            if not (self._packed or self._read()):
                return 0
            self._decompress()
        count = min(len(buffer), len(self._text))
        buffer[:count] = self._text[:count]
        self._text = self._text[count:]
        return count

    def _read(self) -> bool:
        """Read the next piece; return whether there was one. Raises ``EOFError`` inside a frame."""
        self._packed = self._raw.read(CHUNK_BYTES)
        if not self._packed and self._frame is not None:
            raise EOFError
        return bool(self._packed)

    def _decompress(self) -> None:
        if self._frame is None:
            import zstandard

            self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._text = memoryview(self._frame.decompress(self._packed))
        self._packed = self._frame.unused_data if self._frame.eof else b""
        if self._frame.eof:
            self._frame = None
