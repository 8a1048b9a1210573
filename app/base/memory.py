"""Return freed memory to the operating system through glibc; a no-op with other C libraries."""

import contextlib
import ctypes

LARGE_BLOCK = 1024 * 1024
"""Blocks of at least this many bytes are unmapped as soon as they are freed."""

_M_MMAP_THRESHOLD = -3


def return_large_blocks() -> None:
    """Have blocks of at least ``LARGE_BLOCK`` bytes returned to the system when they are freed.

    By default glibc raises that threshold up to 32 MiB with the first large blocks freed; later blocks of that size
    then stay with the process and fragment its heap.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, LARGE_BLOCK)


def trim_memory() -> None:
    """Return free heap memory to the system."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
