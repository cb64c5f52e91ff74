"""Room for numbers and bytes that goes back to the machine as soon as nobody holds it.

What one thread takes and another gives back much later leaves holes in the memory of every allocator that threads
share: a reading that needs 150 MB grew to 480 MB with the C library's, and to 600 MB with Arrow's. So what is large is
mapped by itself.
"""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

SMALL = 1 << 17
"""Below this the C library's own memory does better."""


def room(count: int, dtype: Any) -> np.ndarray[Any, Any]:
    """An array of ``count`` values that are not set. What is never written to takes no memory."""
    import numpy as np

    kind = np.dtype(dtype)
    size = count * kind.itemsize
    if size < SMALL:
        return np.empty(count, kind)
    return np.frombuffer(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), kind)


def moved(data: bytes | np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The same bytes in such room, not to be written to."""
    import numpy as np

    kept = room(len(data), np.uint8)
    kept[:] = np.frombuffer(data, np.uint8)
    kept.flags.writeable = False
    return kept
