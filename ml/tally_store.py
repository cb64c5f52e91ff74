"""Minute tallies of days on an object store, so that a day's lines are mined once and learned from for two weeks.

A day has a Parquet file for each bucket of services, a row group for each service: who learns from fifty services reads
a few files of each day and no more. Which bucket a service is in depends on its name alone and is the same every day. The
JSON that names the files is replaced by a conditional put, and knows which minutes of the day nobody can tell about.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml.masking import MASKS_VERSION
from onecollector_resources.storage.objects import ObjectMissing, ObjectStore, key_part
from onecollector_resources.storage.sealed import Unsealed, seal, unseal

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

FORMAT = 1
BUCKETS = 64
ATTEMPTS = 5
"""To read a day that others count anew meanwhile."""
DAY_MINUTES = 1440
Ranges = tuple[tuple[int, int], ...]
"""Half-open ranges of minutes since 1970."""


class TallyRefused(RuntimeError):
    """A day's tallies that are not used; says which file, what was expected, what was found and what to do."""


@dataclass(frozen=True, slots=True)
class TallyFile:
    """One bucket's file; ``services`` in the order of its row groups, ``lines`` of each."""

    name: str
    bucket: int
    bytes: int
    sha256: str
    services: tuple[str, ...]
    lines: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Coverage:
    """What is known of a day: nothing of the minutes ``unknown``, but for services that ``known`` names with minutes.

    ``gaps`` are minutes in which lines of a service are missing.
    """

    unknown: Ranges = ()
    gaps: Mapping[str, Ranges] = field(default_factory=dict)
    known: Mapping[str, Ranges] = field(default_factory=dict)

    def unobserved(self, service: str) -> Ranges:
        """Minutes of which nobody knows what the service wrote."""
        return joined([*without(self.unknown, self.known.get(service, ())), *self.gaps.get(service, ())])

    def known_until(self, day_start: int) -> int:
        """The end of the last minute of the day that anything is known of; its start where nothing is."""
        whole = without(((day_start, day_start + DAY_MINUTES),), self.unknown)
        ends = [end for ranges in (whole, *self.known.values()) for _, end in ranges]
        return max(ends, default=day_start)


@dataclass(frozen=True, slots=True)
class TalliedDay:
    """A day of a tenant. ``source`` identifies the lines that were counted, ``snapshot`` the outcome."""

    day: date
    source: str
    files: tuple[TallyFile, ...]
    coverage: Coverage
    snapshot: str = ""

    @property
    def services(self) -> tuple[str, ...]:
        """All that wrote a line that day."""
        return tuple(service for file in self.files for service in file.services)


def bucket_of(service: str) -> int:
    """The same on every day and every machine."""
    return int.from_bytes(hashlib.sha256(service.encode()).digest()[:4], "big") % BUCKETS


def day_start_minute(day: date) -> int:
    """Midnight UTC, in minutes since 1970."""
    return (day - date(1970, 1, 1)).days * DAY_MINUTES


class DayWriter:
    """Takes a day's services one by one, into files of a scratch folder; then they go into the store together."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._open: dict[int, tuple[Path, Any, list[tuple[str, int]]]] = {}

    def add(self, service: str, table: pl.DataFrame) -> None:
        """A service's whole day, as ``ml.features.tally`` makes it; each service once."""
        import pyarrow.parquet as pq

        if table.height == 0:
            return
        bucket = bucket_of(service)
        if bucket not in self._open:
            path = self._scratch / f"{bucket:02}.parquet"
            self._open[bucket] = (path, pq.ParquetWriter(path, _schema(), compression="zstd"), [])
        _, writer, rows = self._open[bucket]
        writer.write_table(table.to_arrow().cast(_schema()), row_group_size=table.height)
        rows.append((service, int(table["lines"].sum())))

    def files(self) -> Iterable[tuple[TallyFile, Path]]:
        """What was written; nothing can be added after."""
        for bucket, (path, writer, rows) in sorted(self._open.items()):
            writer.close()
            with path.open("rb") as opened:
                digest = hashlib.file_digest(opened, "sha256").hexdigest()
            services, lines = zip(*rows, strict=True)
            name = f"{bucket:02}-{digest[:12]}.parquet"
            yield TallyFile(name, bucket, path.stat().st_size, digest, services, lines), path


@dataclass(frozen=True, slots=True)
class OpenedBucket:
    """A bucket's file in memory, packed as it is; a service's tally is unpacked when it is asked for."""

    services: tuple[str, ...]
    parquet: Any

    def packed(self, service: str) -> pa.Table | None:
        """As it is kept, each template's id once; None where the service wrote nothing that day."""
        if service not in self.services:
            return None
        return self.parquet.read_row_group(self.services.index(service), use_threads=False).cast(_schema(packed=True))

    def tally(self, service: str) -> pl.DataFrame | None:
        """None where the service wrote nothing that day."""
        table = self.packed(service)
        return None if table is None else with_ids(tally_of([table]))


def tally_of(days: Sequence[pa.Table]) -> pl.DataFrame:
    """Days of one service, one after the other, as ``ml.features.tally`` made them but for categories as templates."""
    import polars as pl
    import pyarrow as pa

    table = pl.DataFrame(pl.from_arrow(pa.concat_tables(days).unify_dictionaries()))
    return table.with_columns(pl.col(name).cast(kind) for name, kind in _kinds().items())


def with_ids(table: pl.DataFrame) -> pl.DataFrame:
    """A tally whose templates are text."""
    import polars as pl

    return table.with_columns(pl.col("template").cast(pl.String))


@dataclass(frozen=True, slots=True)
class TallyStore:
    """One tenant's. Every method may raise StoreError; reading raises TallyRefused for what is damaged."""

    store: ObjectStore
    tenant: str

    def key(self, day: date, name: str = "") -> str:
        """Of a day's JSON, or of a file of it."""
        prefix = f"tallies/{key_part(self.tenant)}/{day}"
        return f"{prefix}/{name}" if name else f"{prefix}.json"

    def days(self) -> list[date]:
        """Days that are kept, in order."""
        folder = f"tallies/{key_part(self.tenant)}/"
        names = [info.key.removeprefix(folder) for info in self.store.list(folder)]
        return sorted(date.fromisoformat(n.removesuffix(".json")) for n in names if n.endswith(".json"))

    def save(self, day: date, source: str, written: DayWriter, coverage: Coverage) -> TalliedDay:
        """Keep a day over what was there. Raises PutConflict where another kept it meanwhile."""
        before = self._read(day, refuse=False)
        files = []
        for file, path in written.files():
            self.store.put_file(self.key(day, file.name), path)
            files.append(file)
        made = TalliedDay(day, source, tuple(files), coverage)
        body = {"format": FORMAT, "masks": MASKS_VERSION, **asdict(made), "day": day.isoformat()}
        data, key = seal(body), self.key(day)
        if before is None:
            self.store.put(key, data, only_if_absent=True)
        else:
            self.store.put(key, data, only_if_match=before[0])
            kept = {file.name for file in files}
            for name in {file.name for file in before[1].files} - kept if before[1] else ():
                self.store.delete(self.key(day, name))
        return _day(unseal(data), hashlib.sha256(data).hexdigest())

    def load(self, day: date) -> TalliedDay | None:
        """None where the day was not tallied, or by masks of another version. Raises TallyRefused."""
        found = self._read(day, refuse=True)
        return found[1] if found else None

    def bucket(self, day: TalliedDay, number: int) -> OpenedBucket | None:
        """A bucket's file of a day, read and checked; None where the day has none. Raises TallyRefused.

        Where the day was counted anew since it was loaded, it is the new one's.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        found = self._newest_file(day, number)
        if found is None:
            return None
        file, data = found
        try:
            return OpenedBucket(file.services, pq.ParquetFile(io.BytesIO(data), read_dictionary=["template"]))
        except (pa.ArrowException, ValueError) as error:
            key = self.key(day.day, file.name)
            raise self._refused(key, "a table of tallies", f"another ({error})") from None

    def tally(self, day: TalliedDay, service: str) -> pl.DataFrame | None:
        """One service's tally of a day; None where it wrote nothing. Raises TallyRefused."""
        opened = self.bucket(day, bucket_of(service))
        return opened.tally(service) if opened else None

    def _newest_file(self, day: TalliedDay, number: int) -> tuple[TallyFile, bytes] | None:
        for _ in range(ATTEMPTS):
            file = next((file for file in day.files if file.bucket == number), None)
            if file is None:
                return None
            key = self.key(day.day, file.name)
            try:
                data = self.store.get(key)
            except ObjectMissing:
                now = self.load(day.day)
                if now is None or now.snapshot == day.snapshot:
                    raise self._refused(key, f"a file of {file.bytes:,} bytes", "none") from None
                day = now
                continue
            digest = hashlib.sha256(data).hexdigest()
            if digest != file.sha256:
                raise self._refused(
                    key, f"{file.bytes:,} bytes of sha256 {file.sha256[:12]}…", f"{len(data):,} of {digest[:12]}…"
                )
            return file, data
        raise TallyRefused(
            f"{self.store.url}/{self.key(day.day)}: expected one state of the day, found that it was counted anew "
            f"{ATTEMPTS} times while it was read; try again when nobody counts it"
        )

    def _read(self, day: date, *, refuse: bool) -> tuple[str, TalliedDay | None] | None:
        key = self.key(day)
        try:
            etag, data = self.store.head(key).etag, self.store.get(key)
        except ObjectMissing:
            return None
        try:
            body = unseal(data)
            if body.pop("format") != FORMAT:
                raise Unsealed(f"expected format {FORMAT}")
            if body.pop("masks") != MASKS_VERSION:
                return etag, None
            return etag, _day(body, hashlib.sha256(data).hexdigest())
        except (Unsealed, KeyError, TypeError, ValueError) as error:
            if not refuse:
                return etag, None
            raise self._refused(key, "a day's tallies", str(error)) from None

    def _refused(self, key: str, expected: str, found: str) -> TallyRefused:
        return TallyRefused(
            f"{self.store.url}/{key}: expected {expected}, found {found}; "
            "remove the day's JSON, and it is counted again from exported lines"
        )


def _day(body: Mapping[str, Any], snapshot: str) -> TalliedDay:
    files = tuple(
        TallyFile(**{**row, "services": tuple(row["services"]), "lines": tuple(row["lines"])}) for row in body["files"]
    )
    covered = body["coverage"]
    gaps, known = ({s: _ranges(rows) for s, rows in covered[name].items()} for name in ("gaps", "known"))
    coverage = Coverage(_ranges(covered["unknown"]), gaps, known)
    return TalliedDay(date.fromisoformat(body["day"]), body["source"], files, coverage, snapshot)


def joined(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Ranges in order, those that touch as one; empty ones are left out."""
    out: list[tuple[int, int]] = []
    for first, end in sorted(ranges):
        if end <= first:
            continue
        if out and first <= out[-1][1]:
            out[-1] = (out[-1][0], max(end, out[-1][1]))
        else:
            out.append((first, end))
    return tuple(out)


def without(ranges: Ranges, less: Ranges) -> Ranges:
    """What of ``ranges`` (joined) lies outside of ``less`` (joined)."""
    out = []
    for first, end in ranges:
        at = first
        for low, high in less:
            if high <= at or low >= end:
                continue
            out.append((at, low))
            at = high
        out.append((at, end))
    return joined(out)


def _ranges(rows: Iterable[Sequence[int]]) -> Ranges:
    return tuple((int(first), int(end)) for first, end in rows)


def _schema(*, packed: bool = False) -> pa.Schema:
    import pyarrow as pa

    kinds = {
        "minute": pa.int32(),
        "template": pa.dictionary(pa.int32(), pa.string()) if packed else pa.string(),
        "lines": pa.int32(),
        "errors": pa.int32(),
        "bytes": pa.int64(),
        "took_lines": pa.int32(),
        "took_median": pa.float32(),
        "took_p95": pa.float32(),
    }
    return pa.schema(list(kinds.items()))


def _kinds() -> dict[str, Any]:
    import polars as pl

    took = dict.fromkeys(("took_median", "took_p95"), pl.Float64)
    return {**dict.fromkeys(("minute", "lines", "errors", "bytes", "took_lines"), pl.Int64), **took}
