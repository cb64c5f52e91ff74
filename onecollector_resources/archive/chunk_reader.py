"""A day's lines from the archived chunks themselves: what is proved is what lies in the archive, and no Loki is asked.

The chunks of a manifest are shown to the chunk engine as a store of their own, so that it reads those and no others.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from onecollector_resources.archive.keys import day_ms
from onecollector_resources.archive.manifest import object_key
from onecollector_resources.archive.proof import DayUnreadable
from onecollector_resources.loki.chunks.catalogue import ChunkCatalogue
from onecollector_resources.loki.chunks.engine import ChunkEngine
from onecollector_resources.loki.chunks.faults import ChunkError
from onecollector_resources.loki.lines import ordered
from onecollector_resources.storage.objects import ObjectInfo, ObjectMissing, ObjectStore, StoreDenied

if TYPE_CHECKING:
    import pyarrow as pa


class ChunkedDay:
    """Reads days that are copied into ``archive``."""

    method = "chunks"
    reads_keys = True

    def __init__(self, archive: ObjectStore) -> None:
        self._archive = archive

    def tables(self, tenant: str, day: date, keys: Sequence[str]) -> Iterator[pa.Table]:
        """Raises DayUnreadable for damaged chunks and for kinds that only Loki reads, StoreError."""
        first, until = (ms * 1_000_000 for ms in day_ms(day))
        with tempfile.TemporaryDirectory(prefix="oc-archive-") as folder:
            store = ArchivedChunks(self._archive, tenant, day, keys)
            catalogue = ChunkCatalogue(Path(folder, "catalogue.db"), store, time.time)
            try:
                catalogue.refresh(tenant)
                reading = ChunkEngine(store, catalogue, tenant).read((), first, until)
                for block in reading.blocks():
                    yield ordered(block).table
                if problems := reading.problems():
                    raise DayUnreadable(f"{day} of {tenant}: {'; '.join(problems[:3])} ({len(problems)} in all)")
            except ChunkError as error:
                raise DayUnreadable(f"{day} of {tenant}: {error}") from error
            finally:
                catalogue.close()


class ArchivedChunks:
    """The chunks of one archived day as a store for reading: their keys are those of Loki's store."""

    def __init__(self, archive: ObjectStore, tenant: str, day: date, keys: Sequence[str]) -> None:
        self._archive, self._before, self._keys = archive, object_key(tenant, day, ""), frozenset(keys)

    @property
    def url(self) -> str:
        return f"{self._archive.url}/{self._before}"

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Chunks whose key begins with ``prefix``, by key."""
        for info in self._archive.list(self._before + prefix):
            key = info.key.removeprefix(self._before)
            if key in self._keys:
                yield ObjectInfo(key, info.size, info.modified, info.etag)

    def head(self, key: str) -> ObjectInfo:
        """Raises ObjectMissing."""
        info = self._archive.head(self._at(key))
        return ObjectInfo(key, info.size, info.modified, info.etag)

    def get(self, key: str) -> bytes:
        """Raises ObjectMissing, ObjectCorrupt."""
        return self._archive.get(self._at(key))

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Raises ObjectMissing."""
        return self._archive.get_range(self._at(key), start, length)

    def get_file(self, key: str, path: Path) -> None:
        """Raises ObjectMissing, ObjectCorrupt, OSError."""
        self._archive.get_file(self._at(key), path)

    def put(self, key: str, data: bytes, *, only_if_absent: bool = False, only_if_match: str | None = None) -> str:
        """Raises StoreDenied."""
        self._refuse(key)

    def put_file(self, key: str, path: Path) -> str:
        """Raises StoreDenied."""
        self._refuse(key)

    def delete(self, key: str) -> None:
        """Raises StoreDenied."""
        self._refuse(key)

    def sweep(self, before: object) -> int:
        """Nothing is here to sweep."""
        return 0

    def _at(self, key: str) -> str:
        if key not in self._keys:
            raise ObjectMissing(f"{self.url}: expected a chunk of the day, found {key}")
        return self._before + key

    def _refuse(self, key: str) -> NoReturn:
        raise StoreDenied(f"{self.url}: {key} is not written or deleted: an archived day is only read")
