"""Ordered lines into Parquet files whose bytes depend on the lines alone.

Row groups and files are cut by counting rows and bytes, wherever the blocks began that the lines came in, and each row
group has its dictionaries made anew: reading by pages or by chunks, with large windows or small ones, gives the same
files.
"""

# pyarrow makes the functions of its compute module at import, where a type checker does not see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onecollector_resources.exports.partitions import PartFile
from onecollector_resources.loki.lines import schema

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

GROUP_ROWS = 131_072
GROUP_BYTES = 32 << 20
"""A row group is cut at the first of both, so that a hundred thousand long lines are not held at once."""

FILE_ROWS = 32 * GROUP_ROWS
FILE_BYTES = 1 << 30
"""A file is cut at the first of both: some hundred MB of Parquet, which every tool reads well."""

COMPRESSION_LEVEL = 1
"""Lines of logs come out smaller by it than by levels 2 to 5, and in two thirds of the time."""

DICTIONARIES = ["severity", "labels", "metadata.key_value.key"]
"""Columns that repeat. Lines and metadata's values mostly do not, and trying costs time."""


@dataclass(slots=True)
class _OpenFile:
    path: Path
    writer: pq.ParquetWriter
    rows: int = 0
    bytes: int = 0
    first_ns: int | None = None
    last_ns: int | None = None


class PartitionWriter:
    """Writes one partition's files into ``folder``. Not safe for several threads.

    ``write`` takes tables of ``lines.schema()`` in time order; ``close`` returns the files, at least one, which may be
    empty. ``line_bytes`` counts the bytes of the lines.
    """

    def __init__(self, folder: Path, *, level: int = COMPRESSION_LEVEL) -> None:
        self._folder, self._level = folder, level
        self._waiting: list[pa.Table] = []
        self._waiting_rows = self._waiting_bytes = 0
        self._file: _OpenFile | None = None
        self._done: list[PartFile] = []
        self.rows = self.line_bytes = 0

    def write(self, table: pa.Table) -> None:
        """Take in the next rows. Raises OSError where the disk is full."""
        if not table.num_rows:
            return
        size = int(_row_bytes(table).sum())
        self._waiting.append(table)
        self._waiting_rows += table.num_rows
        self._waiting_bytes += size
        if self._waiting_rows >= GROUP_ROWS or self._waiting_bytes >= GROUP_BYTES:
            self._write_groups(rest=False)

    def close(self) -> tuple[PartFile, ...]:
        """Write what waits and answer all files. Raises OSError."""
        self._write_groups(rest=True)
        if self._file is None and not self._done:
            self._open()
        self._finish()
        return tuple(self._done)

    def abandon(self) -> None:
        """Close what is open; the folder is the caller's to remove."""
        if self._file is not None:
            self._file.writer.close()
            self._file = None

    def _write_groups(self, *, rest: bool) -> None:
        import numpy as np
        import pyarrow as pa

        if not self._waiting:
            return
        table = pa.concat_tables(self._waiting).unify_dictionaries()
        sizes = np.cumsum(_row_bytes(table))
        begin = 0
        while begin < table.num_rows:
            before = int(sizes[begin - 1]) if begin else 0
            by_bytes = int(np.searchsorted(sizes, before + GROUP_BYTES)) + 1
            end = min(begin + GROUP_ROWS, by_bytes)
            if end > table.num_rows or (end == table.num_rows and not self._full(begin, end, before, sizes)):
                if not rest:
                    break
                end = table.num_rows
            self._write_group(table.slice(begin, end - begin), int(sizes[end - 1]) - before)
            begin = end
        left = table.slice(begin)
        self._waiting = [left] if left.num_rows else []
        self._waiting_rows = left.num_rows
        self._waiting_bytes = int(sizes[-1] - (sizes[begin - 1] if begin else 0)) if left.num_rows else 0

    @staticmethod
    def _full(begin: int, end: int, before: int, sizes: Any) -> bool:
        return end - begin == GROUP_ROWS or int(sizes[end - 1]) - before >= GROUP_BYTES

    def _write_group(self, rows: pa.Table, size: int) -> None:
        import pyarrow.compute as pc

        if self._file is not None and (self._file.rows >= FILE_ROWS or self._file.bytes >= FILE_BYTES):
            self._finish()
        file = self._file or self._open()
        file.writer.write_table(_with_own_dictionaries(rows), row_group_size=rows.num_rows)
        times = rows.column("timestamp").cast("int64")
        first, last = times[0].as_py(), times[-1].as_py()
        file.first_ns = first if file.first_ns is None else file.first_ns
        file.last_ns = last
        file.rows += rows.num_rows
        file.bytes += size
        self.rows += rows.num_rows
        self.line_bytes += int(pc.sum(pc.binary_length(rows.column("line"))).as_py() or 0)

    def _open(self) -> _OpenFile:
        import pyarrow.parquet as pq

        path = self._folder / f"{len(self._done):05d}.parquet"
        writer = pq.ParquetWriter(
            path,
            schema(),
            compression="zstd",
            compression_level=self._level,
            use_dictionary=DICTIONARIES,  # pyright: ignore[reportArgumentType]
            column_encoding={"timestamp": "DELTA_BINARY_PACKED"},
            # Statistics of whole lines are large and of no use.
            write_statistics=["timestamp"],  # pyright: ignore[reportArgumentType]
            store_schema=True,
        )
        self._file = _OpenFile(path, writer)
        return self._file

    def _finish(self) -> None:
        file = self._file
        if file is None:
            return
        self._file = None
        file.writer.close()
        with file.path.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        name = f"part-{len(self._done):05d}-{digest[:12]}.parquet"
        size = file.path.stat().st_size
        file.path.rename(self._folder / name)
        self._done.append(PartFile(name, file.rows, size, digest, file.first_ns, file.last_ns))


def _row_bytes(table: pa.Table) -> Any:
    """Bytes of each row's line and metadata, as int64."""
    import numpy as np
    import pyarrow.compute as pc

    lengths = [pc.binary_length(chunk).to_numpy(zero_copy_only=False) for chunk in table.column("line").chunks]
    sizes = np.concatenate(lengths).astype(np.int64) if lengths else np.zeros(0, np.int64)
    begin = 0
    for chunk in table.column("metadata").chunks:
        offsets = chunk.offsets.to_numpy()
        for texts in (chunk.keys, chunk.items):
            ends = np.concatenate(
                ([0], np.cumsum(pc.binary_length(texts).to_numpy(zero_copy_only=False), dtype=np.int64))
            )
            sizes[begin : begin + len(chunk)] += ends[offsets[1:]] - ends[offsets[:-1]]
        begin += len(chunk)
    return sizes


def _with_own_dictionaries(rows: pa.Table) -> pa.Table:
    """The rows with dictionaries that hold what these rows use, sorted: they become part of the file's bytes."""
    import pyarrow as pa

    rows = rows.combine_chunks()
    columns: list[Any] = []
    for name in rows.column_names:
        column = rows.column(name)
        if pa.types.is_dictionary(column.type):
            columns.append(_own_dictionary(column.combine_chunks()))
        else:
            columns.append(column)
    return pa.Table.from_arrays(columns, schema=rows.schema)


def _own_dictionary(column: Any) -> Any:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    if isinstance(column, pa.ChunkedArray):
        column = column.chunk(0) if column.num_chunks else pa.array([], column.type)
    used = pc.unique(column.indices.drop_null())
    texts = column.dictionary.take(used)
    by_text = pc.sort_indices(texts)
    place = np.zeros(len(column.dictionary), np.int32)
    place[used.take(by_text).to_numpy()] = np.arange(len(used), dtype=np.int32)
    indices = pa.array(place).take(column.indices)
    return pa.DictionaryArray.from_arrays(indices, texts.take(by_text))
