"""Loki's chunk objects as a source of exported lines: nothing is asked of Loki, everything is checked and counted."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from onecollector_resources.exports.api_source import query_of
from onecollector_resources.exports.sources import EngineName, Selection, digest
from onecollector_resources.loki.chunks.catalogue import ChunkCatalogue, ChunkRef
from onecollector_resources.loki.chunks.engine import ChunkEngine, ChunkReading
from onecollector_resources.loki.logql import Matcher, plain_matchers
from onecollector_resources.storage.objects import ObjectStore


def _matchers(selection: Selection) -> tuple[Matcher, ...]:
    found = plain_matchers(query_of(selection))
    if found is None:
        raise ValueError(f"expected a bare selector, found {selection.query}")
    return found


@dataclass(frozen=True, slots=True)
class ChunkSource:
    """One tenant's chunks in one store, as they were at the last ``refresh``. Close it."""

    tenant: str
    catalogue: ChunkCatalogue
    engine: ChunkEngine

    @classmethod
    def open(cls, store: ObjectStore, tenant: str, catalogues: Path) -> Self:
        """With the catalogue of an earlier time, if there is one."""
        name = hashlib.sha256(store.url.encode()).hexdigest()[:16]
        catalogue = ChunkCatalogue(catalogues / f"{name}.db", store, time.time)
        return cls(tenant, catalogue, ChunkEngine(store, catalogue, tenant))

    def refresh(self) -> None:
        """List the tenant's chunks. Raises StoreError."""
        self.catalogue.refresh(self.tenant)

    def close(self) -> None:
        """Close the catalogue."""
        self.catalogue.close()

    @property
    def name(self) -> EngineName:
        """``chunks``."""
        return "chunks"

    def chunks(self, selection: Selection) -> list[ChunkRef]:
        """Chunks that can hold the selection's lines, as listed."""
        return self.catalogue.chunks(self.tenant, _matchers(selection), selection.start_ns, selection.end_ns)

    def read(self, selection: Selection) -> ChunkReading:
        """Start a pass."""
        return self.engine.read(_matchers(selection), selection.start_ns, selection.end_ns)

    def fingerprint(self, selection: Selection) -> str:
        """The keys of the chunks, which name their content."""
        return "chunks:" + digest([ref.key for ref in self.chunks(selection)])
