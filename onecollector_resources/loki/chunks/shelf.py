"""Chunks on their way from the store to those who decode them: asked for ahead, kept for the next window if there is room.

A chunk reaches over several windows of time and windows are decoded side by side, so a chunk is asked for by several.
One read serves all who wait for it; after that it stays only while later windows need it and the shelf is not full.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import crc32c

from onecollector_resources.loki.chunks.blocks import Symbols, decode_symbols
from onecollector_resources.loki.chunks.catalogue import MS, ChunkRef
from onecollector_resources.loki.chunks.faults import ChunkDamaged, ChunkUnsupported
from onecollector_resources.loki.chunks.format import Block, Layout, check, parse
from onecollector_resources.loki.chunks.memory import moved
from onecollector_resources.loki.chunks.report import ReadReport
from onecollector_resources.storage.objects import ObjectMissing, ObjectStore

AHEAD = 8
"""Chunks that one who decodes asks for ahead."""

Replacements = Callable[[ChunkRef], Sequence[ChunkRef] | None]
"""For a chunk that is not there: those in its place by a new listing; None: the listing shows it, after all."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """An object that was read: where everything is, its bytes, its symbols."""

    layout: Layout
    data: memoryview
    symbols: Symbols

    def blocks(self, start_ns: int, end_ns: int) -> list[Block]:
        """Its blocks that can hold lines of [start_ns, end_ns)."""
        return [block for block in self.layout.blocks if block.touches(start_ns, end_ns)]


class Shelf:
    """Reads chunks with ``threads``; keeps up to ``room`` bytes of objects for later windows.

    ``wanted`` is asked of chunks whose labels are not those of the catalogue.
    """

    def __init__(
        self,
        store: ObjectStore,
        report: ReadReport,
        replacements: Replacements,
        wanted: Callable[[Chunk], bool],
        *,
        threads: int,
        room: int,
    ) -> None:
        self._store, self._report, self._replacements, self._wanted = store, report, replacements, wanted
        self._room = room
        self._pool = ThreadPoolExecutor(threads, "chunk-fetch")
        self._lock = threading.Lock()
        self._waiting: dict[str, tuple[ChunkRef, Future[list[Chunk]]]] = {}
        self._held = 0
        self._seen = set[str]()

    def close(self) -> None:
        """Ask for nothing more, and wait for what is on its way."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def read(self, refs: Sequence[ChunkRef], until_ns: int) -> Iterator[list[Chunk]]:
        """The chunks one after the other: mostly one each, none for a damaged one, several where others took its place.

        ``until_ns`` is where the reader goes on. Raises ChunkUnsupported, StoreError.
        """
        ahead = iter(refs)
        asked = [(ref, self._ask(ref)) for ref in islice(ahead, AHEAD)]
        while asked:
            ref, future = asked.pop(0)
            yield future.result()
            self._put_back(ref, until_ns)
            asked += [(more, self._ask(more)) for more in islice(ahead, 1)]

    def _ask(self, ref: ChunkRef) -> Future[list[Chunk]]:
        with self._lock:
            found = self._waiting.get(ref.key)
            if found is None:
                found = self._waiting[ref.key] = ref, self._pool.submit(self._load, ref)
                self._held += ref.size
            return found[1]

    def _put_back(self, ref: ChunkRef, until_ns: int) -> None:
        # One that ends here is wanted by no window to come, only perhaps by one that is behind: it goes earlier.
        over = (ref.through_ms + 1) * MS <= until_ns
        with self._lock:
            if self._held > (self._room // 2 if over else self._room):
                self._drop(ref.key)

    def forget(self, before_ns: int) -> None:
        """No window needs lines before this time any more."""
        with self._lock:
            for key in [key for key, (ref, _) in self._waiting.items() if (ref.through_ms + 1) * MS <= before_ns]:
                self._drop(key)

    def _drop(self, key: str) -> None:
        found = self._waiting.pop(key, None)
        if found is not None:
            self._held -= found[0].size

    def _load(self, ref: ChunkRef) -> list[Chunk]:
        try:
            return self._parsed(ref, self._store.get(ref.key))
        except ObjectMissing:
            others = self._replacements(ref)
        try:
            if others is None:
                return self._parsed(ref, self._store.get(ref.key))
            found = [chunk for other in others for chunk in self._parsed(other, self._store.get(other.key))]
        except ObjectMissing:
            found = []
        self._report.missing(ref.key, replaced=bool(found))
        return found

    def _parsed(self, ref: ChunkRef, data: bytes) -> list[Chunk]:
        with self._lock:
            fresh = ref.key not in self._seen
            self._seen.add(ref.key)
        self._report.count(objects=1, object_bytes=len(data), chunks=int(fresh))
        try:
            kept = moved(data).data
            layout = _checked(ref, kept)
            chunk = Chunk(layout, kept, decode_symbols(layout, kept))
        except ChunkDamaged as error:
            self._report.damage(error.key, error.reason)
            return []
        # Two label sets with one fingerprint: as good as never, but then lines of a stranger.
        return [chunk] if layout.labels == ref.labels or self._wanted(chunk) else []


def _checked(ref: ChunkRef, data: memoryview) -> Layout:
    """The object's layout. Raises ChunkDamaged, ChunkUnsupported.

    A damaged block is let pass: it is left out when its turn comes, and the others are read.
    """
    found = crc32c.crc32c(data)
    if found == ref.crc:
        return parse(ref.key, data)
    whole = f"expected an object of crc32c {ref.crc:08x}, found {found:08x}"
    try:
        layout = parse(ref.key, data)
    except ChunkUnsupported as error:
        raise ChunkDamaged(ref.key, f"{whole}; {error}") from None
    try:
        for block in layout.blocks:
            check(ref.key, data, layout.start, block, "")
    except ChunkDamaged:
        return layout
    # The header has no other checksum, and whose lines these are is in it.
    raise ChunkDamaged(ref.key, f"{whole}, and all blocks as they should be: its header or footer is not")
