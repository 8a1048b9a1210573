"""Compressed files of items: complete ones are read, truncated ones refused."""

import gzip
import json
import zlib

import pytest
import zstandard

from tests.cli.commands import only_line
from tests.cli.items import Command, lines


def cut(ending: str, *pieces: bytes) -> bytes:
    """Compress ``pieces``; the last one is truncated after its text, before its end mark."""
    *whole, last = pieces
    if ending == "gz":
        packer = zlib.compressobj(wbits=31)
        return b"".join(map(gzip.compress, whole)) + packer.compress(last) + packer.flush(zlib.Z_SYNC_FLUSH)
    frame = zstandard.ZstdCompressor().compressobj()
    flushed = frame.compress(last) + frame.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    return b"".join(map(zstandard.compress, whole)) + flushed


@pytest.mark.parametrize("ending", ["gz", "zst"])
def test_a_compressed_file_truncated_after_a_line_is_refused(store: Command, ending: str) -> None:
    text = "".join(json.dumps(line) + "\n" for line in lines(1500)).encode()
    name, small = f"in.jsonl.{ending}", text[: text.index(b"\n") + 1]
    (store.folder / name).write_bytes(cut(ending, small, small))
    for more in ([], ["--skip-bad"], ["--check"]):
        stopped = store("import", name, *more)
        assert stopped.returncode == 1
        assert only_line(stopped).startswith("the file cannot be read after line 2: it is truncated")
        assert only_line(stopped).endswith(
            "get the complete file" + ("" if more == ["--check"] else "; nothing was stored")
        )
    assert store.items() == []
    (store.folder / name).write_bytes(cut(ending, small, text))
    assert only_line(store("import", name)).endswith(
        "1,001 items stored, of the lines up to 1,001 and none after it: continue with --from-line 1002"
    )
    assert len(store.items()) == 1000


def test_consecutive_frames_and_members_are_one_file(store: Command) -> None:
    text = [(json.dumps(line) + "\n").encode() for line in lines(3)]
    skipped = b"\x50\x2a\x4d\x18\x02\x00\x00\x00hi"  # as pzstd puts between frames
    for name, content in (
        ("in.zst", skipped.join(zstandard.compress(piece) for piece in (text[0], b"", text[1] + text[2]))),
        ("in.gz", b"".join(map(gzip.compress, text))),
    ):
        (store.folder / name).write_bytes(content)
        assert "3 items can be stored" in store.run("import", name, "--check")
