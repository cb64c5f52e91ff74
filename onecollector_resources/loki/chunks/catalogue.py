"""Which chunks there are, kept between readings: listing a bucket takes minutes, asking this takes milliseconds.

Loki's keys have no date in them, so the chunks of an hour are found by listing all of a tenant's. The listing is
compared with what is known stream by stream, as it comes in, and only differences are written. A stream's labels are
read once, from the head of one of its chunks. What is kept can be thrown away: the next refresh makes it anew.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby, islice
from operator import attrgetter
from pathlib import Path
from typing import Any

import orjson

from onecollector_resources.loki.chunks.faults import ChunkDamaged
from onecollector_resources.loki.chunks.format import read_labels
from onecollector_resources.loki.chunks.keys import ChunkKey, parse_key
from onecollector_resources.loki.chunks.matching import Matching, matching
from onecollector_resources.storage.objects import ObjectMissing, ObjectStore

SCHEMA_VERSION = 1

SCHEMA = """
create table store (url text not null);
create table stream (
    id integer primary key,
    tenant text not null,
    fingerprint text not null,
    labels text,
    unique (tenant, fingerprint)
);
create table chunk (
    stream integer not null,
    from_ms integer not null,
    name text not null,
    through_ms integer not null,
    crc integer not null,
    size integer not null,
    first_seen real not null,
    primary key (stream, from_ms, name)
) without rowid;
create index chunk_span on chunk (through_ms - from_ms);
"""

HEAD_BYTES = 4096
"""The first read of an object for its labels; a header is some hundred bytes."""

TRIES = 3
"""Chunks of a stream to look at for its labels, if the first is gone or damaged."""

BATCH = 500
"""Streams whose labels are read before any is written down."""

MS = 1_000_000


@dataclass(frozen=True, slots=True)
class ChunkRef:
    """A chunk as its key and its stream's labels say. Times in ms, the last one inclusive; ``size`` of the object."""

    key: str
    stream: int
    labels: Mapping[str, str]
    from_ms: int
    through_ms: int
    crc: int
    size: int


@dataclass(frozen=True, slots=True)
class Refreshed:
    """What a listing showed. ``foreign`` objects are no chunks; ``unreadable`` streams have no head that can be read."""

    listed: int
    added: int
    gone: int
    foreign: int
    unreadable: int


@dataclass(frozen=True, slots=True)
class _Listed:
    key: ChunkKey
    size: int

    @property
    def fingerprint(self) -> str:
        return self.key.fingerprint


class ChunkCatalogue:
    """The chunks in ``store``, in the sqlite file ``path``. Safe to share between threads; several processes may.

    ``clock`` gives seconds since the epoch; ``threads`` read labels side by side.
    """

    def __init__(self, path: Path, store: ObjectStore, clock: Callable[[], float], *, threads: int = 16) -> None:
        self._store, self._clock, self._threads = store, clock, threads
        self._lock = threading.RLock()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, timeout=30, check_same_thread=False, isolation_level=None)
        self._db.execute("pragma journal_mode=wal")
        self._db.execute("pragma synchronous=normal")
        self._known: dict[str, tuple[object, list[int], list[dict[str, str]]]] = {}
        with self._writing():
            self._make()

    def close(self) -> None:
        """Give the file back."""
        self._db.close()

    def _make(self) -> None:
        version = self._db.execute("pragma user_version").fetchone()[0]
        if version == SCHEMA_VERSION and self._db.execute("select url from store").fetchall() == [(self._store.url,)]:
            return
        # Of another version or another store: what is in it can be listed again.
        for name in ("store", "stream", "chunk"):
            self._db.execute(f"drop table if exists {name}")
        for statement in filter(str.strip, SCHEMA.split(";")):
            self._db.execute(statement)
        self._db.execute("insert into store values (?)", (self._store.url,))
        self._db.execute(f"pragma user_version={SCHEMA_VERSION}")

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._lock:
            self._db.execute("begin immediate")
            try:
                yield
            except BaseException:
                self._db.execute("rollback")
                raise
            self._db.execute("commit")

    def refresh(self, tenant: str) -> Refreshed:
        """List the tenant's chunks and take in what is new and what is gone.

        Raises StoreError; what was listed before that is kept, and nothing counts as gone that was not looked for.
        """
        began = self._clock()
        foreign = listed = added = gone = 0

        def chunks() -> Iterator[_Listed]:
            nonlocal foreign
            for info in self._store.list(f"{tenant}/"):
                key = parse_key(info.key)
                if key is None:
                    foreign += 1
                else:
                    yield _Listed(key, info.size)

        seen = set[int]()
        for fingerprint, group in groupby(chunks(), attrgetter("fingerprint")):
            stream, of_stream, new, old = self._take_stream(tenant, fingerprint, group, began)
            seen.add(stream)
            listed, added, gone = listed + of_stream, added + new, gone + old
        for (stream,) in self._rows("select id from stream where tenant = ?", tenant):
            if stream not in seen:
                gone += self._drop(stream, began)
        return Refreshed(listed, added, gone, foreign, self._read_labels(tenant))

    def _take_stream(
        self, tenant: str, fingerprint: str, group: Iterable[_Listed], began: float
    ) -> tuple[int, int, int, int]:
        found = self._rows("select id from stream where tenant = ? and fingerprint = ?", tenant, fingerprint)
        if not found:
            with self._writing():
                self._db.execute(
                    "insert or ignore into stream (tenant, fingerprint) values (?, ?)", (tenant, fingerprint)
                )
            found = self._rows("select id from stream where tenant = ? and fingerprint = ?", tenant, fingerprint)
        stream = int(found[0][0])
        # What another process saw after this listing began is not gone because this listing has not shown it.
        known = dict(self._rows("select name, from_ms from chunk where stream = ?", stream))
        new, count = [], 0
        for one in group:
            count += 1
            if known.pop(one.key.name, None) is None:
                key = one.key
                new.append((stream, key.from_ms, key.name, key.through_ms, key.crc, one.size, began))
        if not new and not known:
            return stream, count, 0, 0
        with self._writing():
            self._db.executemany("insert or ignore into chunk values (?, ?, ?, ?, ?, ?, ?)", new)
            before = self._db.total_changes
            self._db.executemany(
                "delete from chunk where stream = ? and from_ms = ? and name = ? and first_seen < ?",
                [(stream, from_ms, name, began) for name, from_ms in known.items()],
            )
            return stream, count, len(new), self._db.total_changes - before

    def _drop(self, stream: int, began: float) -> int:
        with self._writing():
            dropped = self._db.execute(
                "delete from chunk where stream = ? and first_seen < ?", (stream, began)
            ).rowcount
            self._db.execute(
                "delete from stream where id = ? and not exists (select 1 from chunk where stream = stream.id)",
                (stream,),
            )
        return dropped

    def _read_labels(self, tenant: str) -> int:
        """Read the labels of streams that have none yet; answers how many stay without."""
        without = iter(self._rows("select id, fingerprint from stream where tenant = ? and labels is null", tenant))
        unreadable = 0
        with ThreadPoolExecutor(self._threads) as pool:
            while batch := list(islice(without, BATCH)):
                found = list(pool.map(lambda row: self._labels_of(tenant, *row), batch))
                with self._writing():
                    self._db.executemany(
                        "update stream set labels = ? where id = ?",
                        [(labels, row[0]) for labels, row in zip(found, batch, strict=True) if labels is not None],
                    )
                unreadable += found.count(None)
        return unreadable

    def _labels_of(self, tenant: str, stream: int, fingerprint: str) -> str | None:
        for (name,) in self._rows("select name from chunk where stream = ? limit ?", stream, TRIES):
            key = f"{tenant}/{fingerprint}/{name}"
            try:
                labels = read_labels(key, self._store.get_range(key, 0, HEAD_BYTES))
                if isinstance(labels, int):
                    labels = read_labels(key, self._store.get_range(key, 0, labels))
            except (ObjectMissing, ChunkDamaged):
                continue
            if not isinstance(labels, int):
                return orjson.dumps(labels).decode()
        return None

    def chunks(self, tenant: str, matchers: Sequence[Matching], start_ns: int, end_ns: int) -> list[ChunkRef]:
        """Chunks of matching streams that can hold lines of [start_ns, end_ns), by time. Raises MatcherError."""
        streams, labels = self._streams(tenant)
        wanted = {
            stream: one for stream, one, fits in zip(streams, labels, matching(labels, matchers), strict=True) if fits
        }
        return self._overlapping(tenant, wanted, start_ns, end_ns)

    def of_stream(self, tenant: str, ref: ChunkRef) -> list[ChunkRef]:
        """Chunks of the same stream that overlap this one in time, it among them if it is still there."""
        first, end = ref.from_ms * MS, (ref.through_ms + 1) * MS
        return self._overlapping(tenant, {ref.stream: ref.labels}, first, end)

    def unreadable(self, tenant: str, start_ns: int, end_ns: int) -> list[ChunkRef]:
        """Chunks that can hold lines of [start_ns, end_ns) of nobody knows which stream: no head could be read."""
        without = self._rows("select id from stream where tenant = ? and labels is null", tenant)
        return self._overlapping(tenant, {stream: {} for (stream,) in without}, start_ns, end_ns)

    def _streams(self, tenant: str) -> tuple[list[int], list[dict[str, str]]]:
        """All streams with their labels, read anew only when the file has changed."""
        with self._lock:
            version = (self._rows("pragma data_version")[0][0], self._db.total_changes)
            known = self._known.get(tenant)
            if known is None or known[0] != version:
                rows = self._rows("select id, labels from stream where tenant = ? and labels is not null", tenant)
                known = version, [stream for stream, _ in rows], [orjson.loads(labels) for _, labels in rows]
                self._known[tenant] = known
            return known[1], known[2]

    def _overlapping(
        self, tenant: str, wanted: Mapping[int, Mapping[str, str]], start_ns: int, end_ns: int
    ) -> list[ChunkRef]:
        if not wanted or end_ns <= start_ns:
            return []
        first, last = start_ns // MS, (end_ns - 1) // MS
        longest = self._rows("select max(through_ms - from_ms) from chunk")[0][0] or 0
        found = []
        for stream, labels in wanted.items():
            rows = self._rows(
                "select fingerprint, name, from_ms, through_ms, crc, size from chunk join stream on stream.id = stream"
                " where stream = ? and from_ms between ? and ? and through_ms >= ?",
                stream,
                first - longest,
                last,
                first,
            )
            found += [
                ChunkRef(f"{tenant}/{fingerprint}/{name}", stream, labels, from_ms, through_ms, crc, size)
                for fingerprint, name, from_ms, through_ms, crc, size in rows
            ]
        return sorted(found, key=lambda ref: (ref.from_ms, ref.key))

    def _rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._db.execute(statement, values).fetchall()
