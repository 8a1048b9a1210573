"""Files that commands read and write: new ones that nobody else can read, compressed ones, and ``-``."""

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
"""How such files begin (RFC 1952, RFC 8878)."""
PIECE = 4096
"""Bytes of a zstd file that are unpacked at once: to 128 MiB at the very most."""


@contextlib.contextmanager
def new_file(name: str, what: str) -> Iterator[BinaryIO]:
    """A file for its owner alone, gone again if it is not finished; ``what`` names the argument.

    Raises ``UsageError`` if it is there.
    """
    if name == PIPE:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise UsageError(f"{what} {name} cannot be made ({error.strerror}): name a new file") from error
    try:
        with os.fdopen(descriptor, "wb", buffering=1 << 20) as out:
            yield out
    except BaseException:
        Path(name).unlink()
        raise


@contextlib.contextmanager
def compressed(out: BinaryIO, name: str) -> Iterator[BinaryIO]:
    """``out``, compressed as the end of ``name`` says: ``.gz``, ``.zst``, or not at all."""
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
    """A file of lines, compressed or not: its first bytes tell. ``size`` is that of the file, 0 where nobody knows."""

    def __init__(self, raw: BinaryIO, size: int) -> None:
        self._raw = raw
        self.size = size
        self.line = 0

    @property
    def position(self) -> int:
        """How much of the file has been read."""
        return self._raw.tell() if self.size else 0

    def lines(self, longest: int) -> Iterator[tuple[int, bytes | None]]:
        """Each line with its number, from 1; None for one of more than ``longest`` bytes. Raises ``StartError``."""
        import zstandard

        try:
            text = _unpacked(self._raw)
            while raw := text.readline(longest + 1):
                self.line += 1
                if len(raw) <= longest:
                    yield self.line, raw
                    continue
                while raw and not raw.endswith(b"\n"):
                    raw = text.readline(longest)
                yield self.line, None
        except EOFError as error:
            raise StartError(
                f"the file cannot be read on after line {self.line}: it was cut off, its compressed data has no end; "
                "get the whole file"
            ) from error
        except (OSError, zlib.error, zstandard.ZstdError) as error:
            raise StartError(f"the file cannot be read on after line {self.line}: {error}") from error


@contextlib.contextmanager
def source(name: str) -> Iterator[LineSource]:
    """The file ``name``, or the standard input. Raises ``UsageError`` for a file that cannot be read."""
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


def _unpacked(raw: Any) -> Any:
    begins = raw.peek(4)[:4]
    if begins.startswith(GZIP):
        return gzip.GzipFile(fileobj=raw)
    return io.BufferedReader(_ZstdReader(raw), 1 << 20) if begins == ZSTD else raw


class _ZstdReader(io.RawIOBase):
    """What zstd frames hold, one after the other. Reading raises ``EOFError`` where the last one has no end.

    The reader that zstandard has gives what is there of such a frame and says nothing.
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
            self._unpack()
        count = min(len(buffer), len(self._text))
        buffer[:count] = self._text[:count]
        self._text = self._text[count:]
        return count

    def _read(self) -> bool:
        """Whether there was more; a frame that has begun needs it."""
        self._packed = self._raw.read(PIECE)
        if not self._packed and self._frame is not None:
            raise EOFError
        return bool(self._packed)

    def _unpack(self) -> None:
        if self._frame is None:
            import zstandard

            self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._text = memoryview(self._frame.decompress(self._packed))
        self._packed = self._frame.unused_data if self._frame.eof else b""
        if self._frame.eof:
            self._frame = None
