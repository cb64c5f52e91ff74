"""Keeping memory flat: glibc gives every thread a heap of its own, and what one frees the others cannot use."""

from __future__ import annotations

import ctypes
import sys

M_ARENA_MAX = -8
ARENAS = 2


def share_heaps() -> None:
    """Few heaps for all threads of this process, from now on. Without glibc nothing happens.

    Reading a million lines took 640 MB with a heap for each thread and 510 MB with two, and no longer.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, ARENAS)
    except (OSError, AttributeError):
        return
