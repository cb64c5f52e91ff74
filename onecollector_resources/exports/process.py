"""A process that only exports: memory that stays flat, and nothing loaded that is not used.

glibc gives every thread a heap of its own, and what one frees the others cannot use. pyarrow loads pandas, and numba
scipy, where they are installed, in case somebody needs them: half a second of an export that takes one or two.
"""

from __future__ import annotations

import ctypes
import importlib
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType

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


def start_lean(*, decoding: bool) -> None:
    """Let pyarrow, and numba where chunks are decoded, begin without what they would load beside them.

    For a process that does nothing else. pyarrow finds pandas later all the same, where it is asked for by name;
    numba's linear algebra stays away. Call it before any thread is started.
    """
    import pyarrow as pa

    absent = _Absent()
    sys.meta_path.insert(0, absent)
    try:
        pa.array([], pa.string())
        if decoding:
            importlib.import_module("numba.np.arraymath")
    finally:
        sys.meta_path.remove(absent)


class _Absent(MetaPathFinder):
    """Says of pandas and scipy that they are not installed."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        if fullname in ("pandas", "scipy"):
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)
