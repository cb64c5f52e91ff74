"""An object as a file that can be read from any place: for readers that want parts of it, as Parquet's do.

Every read is a ``get_range``, so one column of a large file costs that column. The size is given by who knows it, and
the object is one that is never changed: its name says what it holds.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass, field
from typing import Any

from onecollector_resources.storage.objects import ObjectCorrupt, ObjectStore


@dataclass(eq=False)
class ObjectFile(io.RawIOBase):
    """The object ``key`` of ``size`` bytes, read only. Reads raise what ``get_range`` does, ObjectCorrupt when short."""

    store: ObjectStore
    key: str
    size: int
    _at: int = field(default=0, init=False)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place. Raises ValueError for one before the start."""
        at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}[whence]
        if at < 0:
            raise ValueError(f"{self.key}: expected a place at or behind the start, found {at}")
        self._at = at
        return at

    def read(self, size: int | None = -1) -> bytes:
        """Up to ``size`` bytes from here on, all that are left for None or less than 0; fewer only at the end."""
        left = max(0, self.size - self._at)
        wanted = left if size is None or size < 0 else min(size, left)
        if not wanted:
            return b""
        data = self.store.get_range(self.key, self._at, wanted)
        if len(data) != wanted:
            raise ObjectCorrupt(
                f"{self.store.url}/{self.key}: expected {self.size:,} bytes, found {self._at + len(data):,}"
            )
        self._at += wanted
        return data

    def readinto(self, buffer: Any) -> int:
        """As ``read``, into a buffer."""
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)
