"""A Loki's store and an archive as folders, with chunks whose names have the right checksums; and stores that fail."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from crc32c import crc32c

from onecollector_resources.archive.copy import Archiver
from onecollector_resources.archive.keys import ChunkKey, day_ms
from onecollector_resources.archive.proof import DayProof, StreamProof
from onecollector_resources.storage.file_store import FileStore
from onecollector_resources.storage.objects import ObjectInfo, StoreGone

DAY = date(2026, 11, 2)
NOW = datetime(2026, 11, 4, 12, tzinfo=UTC)
SCHEMA = {
    "configs": [
        {
            "from": "2024-01-01",
            "store": "tsdb",
            "object_store": "s3",
            "schema": "v13",
            "index": {"prefix": "index_", "period": "24h"},
        }
    ]
}
HOUR_MS = 3_600_000


def chunk_of(data: bytes, day: date = DAY, *, tenant: str = "default", hours: tuple[int, int] = (1, 2)) -> ChunkKey:
    """Of the hours of a day; hours from 24 on are of the next."""
    first = day_ms(day)[0]
    return ChunkKey(tenant, "ab12", first + hours[0] * HOUR_MS, first + hours[1] * HOUR_MS, crc32c(data))


@dataclass
class World:
    """``source`` is Loki's store, ``archive`` the archive."""

    folder: Path
    source: FileStore = field(init=False)
    archive: FileStore = field(init=False)

    def __post_init__(self) -> None:
        self.source = FileStore(self.folder / "loki", create=True)
        self.archive = FileStore(self.folder / "archive", create=True)

    def chunk(self, data: bytes, day: date = DAY, *, on_disk: bool = False, **more: object) -> ChunkKey:
        made = chunk_of(data, day, **more)  # pyright: ignore[reportArgumentType]
        self.source.put(made.file_key if on_disk else made.key, data)
        return made

    def index(self, name: str, data: bytes = b"index", day: date = DAY) -> str:
        key = f"index/index_{day_ms(day)[0] // 86_400_000}/{name}"
        self.source.put(key, data)
        return key

    def archiver(self, **more: object) -> Archiver:
        settings = {
            "schema_config": SCHEMA,
            "loki_version": "3.7.8",
            "settled": timedelta(0),
            "now": later,
            "workers": 1,
        }
        return Archiver(self.source, self.archive, **{**settings, **more})  # pyright: ignore[reportArgumentType]

    def manifests(self) -> dict[str, bytes]:
        return {info.key: self.archive.get(info.key) for info in self.archive.list("manifests/")}


def later() -> datetime:
    """After everything that was just written; days of November's first are closed."""
    return max(NOW, datetime.now(UTC) + timedelta(hours=1))


class Tripwire(FileStore):
    """Fails for good at the call of this number, as a process does that is killed; ``calls`` counts all of them."""

    def __init__(self, root: Path, fails_at: int) -> None:
        super().__init__(root)
        self._left = itertools.count(-fails_at)
        self.calls = 0

    def _trip(self) -> None:
        self.calls += 1
        if next(self._left) >= 0:
            raise StoreGone("tripped")

    def put(self, key: str, data: bytes, *, only_if_absent: bool = False, only_if_match: str | None = None) -> str:
        self._trip()
        return super().put(key, data, only_if_absent=only_if_absent, only_if_match=only_if_match)

    def get(self, key: str) -> bytes:
        self._trip()
        return super().get(key)

    def head(self, key: str) -> ObjectInfo:
        self._trip()
        return super().head(key)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        self._trip()
        return super().list(prefix)


def proof(*streams: tuple[str, int, str]) -> DayProof:
    """A proof of these streams."""
    made = tuple(StreamProof(*one) for one in streams)
    return DayProof("test", sum(one.lines for one in made), "0" * 64, made)
