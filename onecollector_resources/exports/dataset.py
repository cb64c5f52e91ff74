"""Exported lines read back: which files hold a tenant's or a service's lines of a range, and these as tables.

What is read is what the manifests name, never what lies in a folder: a partition that is being replaced meanwhile is
seen as it was or as it is, never both and never half. Parts of it work on any store; columns that are not asked for are
not fetched.
"""

# pyarrow makes the functions of its compute module at import, where a type checker does not see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from onecollector_resources.exports.partitions import Manifest, PartFile, Partition, manifest_of, partition_of
from onecollector_resources.exports.verify import faults_of
from onecollector_resources.loki.lines import SCHEMA_VERSION, schema
from onecollector_resources.storage.file_store import FileStore
from onecollector_resources.storage.object_file import ObjectFile
from onecollector_resources.storage.objects import ObjectMissing, ObjectStore

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa

PARTITION_COLUMNS = ("tenant", "service", "date", "hour")
"""What the folders' names say, as columns behind those of the files."""

ATTEMPTS = 5
"""How often a partition is begun anew because it was replaced while it was read."""

READERS = 16
"""Manifests fetched at a time: each is small, and a bucket takes its time for each."""

EPOCH = datetime.fromtimestamp(0, UTC)

T = TypeVar("T")


class DatasetError(RuntimeError):
    """Exported lines cannot be read; the message says which, what was expected, what was found and what to do."""


@dataclass(frozen=True, slots=True)
class ExportDataset:
    """Partitions found by ``find``, in order. Rows outside [start_ns, end_ns) are left out; None: no border."""

    store: ObjectStore
    manifests: tuple[Manifest, ...]
    start_ns: int | None = None
    end_ns: int | None = None

    @classmethod
    def find(
        cls,
        store: ObjectStore,
        *,
        tenant: str | None = None,
        service: str | None = None,
        start_ns: int | None = None,
        end_ns: int | None = None,
    ) -> Self:
        """What is exported there of a tenant, a service ("" for lines without one) and a range; None means all.

        Raises StoreError; ManifestError for a manifest of another version, or one that is none.
        """

        def wanted(partition: Partition | None) -> bool:
            return (
                partition is not None
                and tenant in (None, partition.tenant)
                and service in (None, partition.service)
                and (start_ns is None or partition.end_ns > start_ns)
                and (end_ns is None or partition.start_ns < end_ns)
            )

        prefix = ""
        if tenant is not None:
            parts = Partition(tenant, service or "", EPOCH).prefix.split("/")
            prefix = "/".join(parts[: 1 if service is None else 2]) + "/"
        keys = [info.key for info in store.list(prefix) if wanted(_manifested(info.key))]
        with ThreadPoolExecutor(READERS, thread_name_prefix="manifests") as pool:
            found = [manifest for manifest in pool.map(lambda key: _manifest(store, key), keys) if manifest is not None]
        return cls(store, tuple(sorted(found, key=lambda m: m.partition)), start_ns, end_ns)

    @property
    def rows(self) -> int:
        """Rows of all partitions as their manifests have it, with those outside the range."""
        return sum(manifest.rows for manifest in self.manifests)

    @property
    def incomplete(self) -> tuple[Manifest, ...]:
        """Partitions that lack lines; each says why in its ``problems``."""
        return tuple(manifest for manifest in self.manifests if not manifest.complete)

    def files(self) -> tuple[str, ...]:
        """Every file that holds lines, for other readers: as a path, or ``s3://…`` in a bucket."""
        keys = [m.partition.prefix + file.name for m in self.manifests for file in m.files if file.rows]
        if isinstance(self.store, FileStore):
            return tuple(str(self.store.root / key) for key in keys)
        return tuple(f"{self.store.url}/{key}" for key in keys)

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[tuple[Manifest, pa.Table]]:
        """Partition by partition, so that more can be read than fits into memory: rows by time, ``columns`` or all.

        The manifest is the one that was read by: another than in ``manifests`` where the partition was replaced.
        Raises StoreError; DatasetError for an unknown column, another schema, files that are gone or damaged.
        """
        names = _checked(columns)

        def table(manifest: Manifest) -> tuple[Manifest, pa.Table]:
            return manifest, self._table(manifest, names)

        for manifest in self.manifests:
            yield self._as_one(manifest, table)

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows in one table, by tenant, service and time. Raises as ``tables``."""
        import pyarrow as pa

        found = [table for _, table in self.tables(columns)]
        return pa.concat_tables(found) if found else _schema().empty_table().select(_checked(columns))

    def to_polars(self, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """As ``table``, for polars."""
        import polars as pl

        return cast("pl.DataFrame", pl.from_arrow(self.table(columns)))

    def to_pandas(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """As ``table``, for pandas; a row's ``metadata`` is a dict."""
        return self.table(columns).to_pandas(date_as_object=False, maps_as_pydicts="strict")

    def verify(self) -> Iterator[str]:
        """Read every byte and tell what is not as the manifests say, a sentence each: none where all is well.

        Also told is a file that no manifest names, which readers of the bare folder would take in.
        """
        for manifest in self.manifests:
            faults = faults_of(self.store, manifest)
            if faults:
                now = _manifest(self.store, manifest.partition.manifest_key)
                if now is not None and now != manifest:
                    # Replaced since it was found.
                    faults = faults_of(self.store, now)
            yield from faults

    def _as_one(self, manifest: Manifest, read: Callable[[Manifest], T]) -> T:
        """``read`` for one state of the partition."""
        for _ in range(ATTEMPTS):
            try:
                return read(manifest)
            except ObjectMissing as error:
                now = _manifest(self.store, manifest.partition.manifest_key)
                if now is None or now == manifest:
                    raise DatasetError(
                        f"{manifest.partition}: expected the files that its manifest names, found that one is gone "
                        f"({error}); export the hour again with --force"
                    ) from error
                manifest = now
        raise DatasetError(
            f"{manifest.partition}: was replaced {ATTEMPTS} times while it was read; read it when its export is done"
        )

    def _table(self, manifest: Manifest, names: Sequence[str]) -> pa.Table:
        import pyarrow as pa

        parts = [self._rows(manifest, file, names) for file in manifest.files]
        table = pa.concat_tables(parts)
        for name, column in _partition_columns(manifest.partition, table.num_rows):
            if name in names:
                table = table.append_column(name, column)
        return table.select(names)

    def _rows(self, manifest: Manifest, file: PartFile, names: Sequence[str]) -> pa.Table:
        import pyarrow as pa

        key = manifest.partition.prefix + file.name
        try:
            return self._read(manifest, key, file.bytes, names)
        except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
            # What pyarrow makes of a file that is cut or has other bytes; it names none.
            why = str(error).strip().partition("\n")[0] or type(error).__name__
            raise DatasetError(
                f"{self.store.url}/{key}: expected a whole Parquet file of lines, found a damaged one ({why}); "
                "export the hour again with --force"
            ) from error

    def _read(self, manifest: Manifest, key: str, size: int, names: Sequence[str]) -> pa.Table:
        import pyarrow as pa
        import pyarrow.parquet as pq

        with ObjectFile(self.store, key, size) as opened, pa.PythonFile(opened, mode="r") as source:
            parquet = pq.ParquetFile(source)
            version = (parquet.schema_arrow.metadata or {}).get(b"onecollector.lines.schema", b"none").decode()
            if version != str(SCHEMA_VERSION):
                raise DatasetError(
                    f"{self.store.url}/{key}: expected lines of schema {SCHEMA_VERSION}, found {version}; "
                    "export the hour again with --force"
                )
            own = [name for name in names if name not in PARTITION_COLUMNS]
            clip = self._clip(manifest.partition)
            # Also where nobody asks for it: it is what rows are counted and clipped by.
            wanted = [*own, *(["timestamp"] if "timestamp" not in own else [])]
            table = parquet.read(columns=wanted).select(wanted)
            for name in wanted:
                if table.schema.field(name).type != schema().field(name).type:
                    raise TypeError(f"column {name} is {table.schema.field(name).type}")
            return table if clip is None else table.filter(clip)

    def _clip(self, partition: Partition) -> Any:
        """Which rows are in the range; None where all of the hour are."""
        import pyarrow as pa
        import pyarrow.compute as pc

        kind, at = pa.timestamp("ns", "UTC"), pc.field("timestamp")
        clip: Any = None
        if self.start_ns is not None and self.start_ns > partition.start_ns:
            clip = at >= pa.scalar(self.start_ns, kind)
        if self.end_ns is not None and self.end_ns < partition.end_ns:
            before = at < pa.scalar(self.end_ns, kind)
            clip = before if clip is None else clip & before
        return clip


def _manifested(key: str) -> Partition | None:
    """The partition whose manifest has this key."""
    partition = partition_of(key)
    return partition if partition is not None and key == partition.manifest_key else None


def _manifest(store: ObjectStore, key: str) -> Manifest | None:
    try:
        return manifest_of(store.get(key), f"{store.url}/{key}")
    except ObjectMissing:
        return None


def _schema() -> pa.Schema:
    import pyarrow as pa

    fields = [pa.field(name, column.type) for name, column in _partition_columns(Partition("", "", EPOCH), 0)]
    return pa.schema([*schema(), *fields], metadata=schema().metadata)


def _checked(columns: Sequence[str] | None) -> list[str]:
    known = _schema().names
    unknown = sorted(set(columns or ()) - set(known))
    if unknown:
        raise DatasetError(f"expected columns of {', '.join(known)}, found {', '.join(unknown)}")
    return list(known if columns is None else columns)


def _partition_columns(partition: Partition, rows: int) -> list[tuple[str, Any]]:
    import numpy as np
    import pyarrow as pa

    def repeated(text: str) -> pa.DictionaryArray:
        return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([text], pa.string()))

    return [
        ("tenant", repeated(partition.tenant)),
        ("service", repeated(partition.service)),
        ("date", pa.repeat(pa.scalar(partition.hour.date(), pa.date32()), rows)),
        ("hour", pa.repeat(pa.scalar(partition.hour.hour, pa.int32()), rows)),
    ]
