"""Lines straight from the objects that Loki keeps, without asking Loki: ten times as fast, and no load on it.

It sees what is in the store and nothing else: not what an ingester still holds, not that a delete request or the
retention hides lines. Whoever uses it asks the API for those.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

from onecollector_resources.loki.chunks.catalogue import ChunkCatalogue, ChunkRef
from onecollector_resources.loki.chunks.format import parse
from onecollector_resources.loki.chunks.matching import Matching, matching
from onecollector_resources.loki.chunks.reader import Limits, read_blocks
from onecollector_resources.loki.chunks.report import ReadReport
from onecollector_resources.loki.chunks.shelf import Chunk, Shelf
from onecollector_resources.loki.lines import LineBlock
from onecollector_resources.storage.objects import ObjectStore


class ChunkEngine:
    """Reads one tenant's lines from ``store``. ``catalogue`` says which objects; whoever uses this refreshes it."""

    def __init__(
        self, store: ObjectStore, catalogue: ChunkCatalogue, tenant: str, limits: Limits | None = None
    ) -> None:
        self.store, self.catalogue, self.tenant, self.limits = store, catalogue, tenant, limits or Limits()

    def read(self, matchers: Sequence[Matching], start_ns: int, end_ns: int) -> ChunkReading:
        """Lines of [start_ns, end_ns) of streams that fit. Raises MatcherError; nothing is read yet."""
        return ChunkReading(self, matchers, start_ns, end_ns)

    def entries_of(self, ref: ChunkRef) -> int:
        """How many lines a chunk holds, by its own list of blocks. Raises ChunkDamaged, ChunkUnsupported, StoreError."""
        return parse(ref.key, self.store.get(ref.key)).entries


class ChunkReading:
    """One pass. ``chunks`` are what the catalogue knew at its beginning, ``report`` is final when it is exhausted."""

    def __init__(self, engine: ChunkEngine, matchers: Sequence[Matching], start_ns: int, end_ns: int) -> None:
        self._engine, self._matchers, self._span = engine, tuple(matchers), (start_ns, end_ns)
        self.chunks: Sequence[ChunkRef] = engine.catalogue.chunks(engine.tenant, self._matchers, start_ns, end_ns)
        self.report = ReadReport()
        self._listed = threading.Lock()
        self._listed_anew = False

    def blocks(self) -> Iterator[LineBlock]:
        """Blocks in order of time, none overlapping another; once only.

        Raises ChunkUnsupported for a chunk that Loki's API must read, ChunkError, StoreError.
        """
        engine = self._engine
        for ref in engine.catalogue.unreadable(engine.tenant, *self._span):
            self.report.damage(ref.key, "no header of its stream could be read, so nobody knows whose lines it holds")
        shelf = Shelf(
            engine.store,
            self.report,
            self._in_place_of,
            self._wanted,
            threads=engine.limits.fetchers,
            room=engine.limits.kept_bytes,
        )
        try:
            yield from read_blocks(self.chunks, *self._span, shelf, self.report, engine.limits)
        finally:
            shelf.close()

    __iter__ = blocks

    def problems(self) -> tuple[str, ...]:
        """Why lines may be missing; none: all of them were read."""
        return self.report.problems()

    def _in_place_of(self, ref: ChunkRef) -> Sequence[ChunkRef] | None:
        engine = self._engine
        with self._listed:
            if not self._listed_anew:
                engine.catalogue.refresh(engine.tenant)
                self._listed_anew = True
        found = engine.catalogue.of_stream(engine.tenant, ref)
        if any(other.key == ref.key for other in found):
            return None
        known = {other.key for other in self.chunks}
        return [other for other in found if other.key not in known]

    def _wanted(self, chunk: Chunk) -> bool:
        """Whether a chunk of other labels than its stream's first chunk fits, too."""
        return bool(matching([chunk.layout.labels], self._matchers)[0])
