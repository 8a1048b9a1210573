"""How this process gives memory back to the system: by the C library, where it is glibc; elsewhere nothing happens."""

import contextlib
import ctypes

LARGE_BLOCK = 1024 * 1024
"""Bytes from which on a block of memory is the system's own again as soon as it is freed."""

_M_MMAP_THRESHOLD = -3


def return_large_blocks() -> None:
    """Have every block of ``LARGE_BLOCK`` bytes or more go back to the system when it is freed.

    Left to itself, glibc raises that bound up to 32 MiB with the first large blocks that are freed; later ones of their
    size then stay with the process, and leave holes among what it keeps.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, LARGE_BLOCK)


def trim_memory() -> None:
    """Give free memory back to the system."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
