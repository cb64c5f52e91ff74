"""Counts and hashes of a day's lines, stream by stream: what a restored day is held against.

The hash runs over columns (times, texts, metadata) in the order of ``loki.lines``, so it is the same by whatever way the
lines were read and wherever the tables were cut, and takes a fraction of a microsecond a line.
"""

# pyarrow makes the functions of its compute module at import, where a type checker does not see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class StreamProof:
    """Lines of one stream in a day. ``labels`` is ``lines.label_text``."""

    labels: str
    lines: int
    sha256: str


@dataclass(frozen=True, slots=True)
class DayProof:
    """All streams by labels; ``sha256`` is over theirs. ``method`` says how the lines were read."""

    method: str
    lines: int
    sha256: str
    streams: tuple[StreamProof, ...]


class DayUnreadable(RuntimeError):
    """Not every line of a day could be read, so there is no proof of it."""


class DayReader(Protocol):
    """A way to read all lines of a day."""

    @property
    def method(self) -> str:
        """Its name, for the manifest."""
        ...

    @property
    def reads_keys(self) -> bool:
        """Whether it reads the chunks that are named and no others; else it may see lines of newer ones."""
        ...

    def tables(self, tenant: str, day: date, keys: Sequence[str]) -> Iterator[pa.Table]:
        """Lines of the day as ``lines.schema()``, each once; those of one stream in order over all tables.

        ``keys`` are the chunks that hold them, in the bucket form; a reader that asks Loki has no need of them.
        Raises DayUnreadable where it cannot have all of them.
        """
        ...


def prove(reader: DayReader, tenant: str, day: date, keys: Sequence[str]) -> DayProof:
    """Read the day and hash it. Raises what the reader raises."""
    return proof_of(reader.method, reader.tables(tenant, day, keys))


def proof_of(method: str, tables: Iterable[pa.Table]) -> DayProof:
    """The proof of lines; those of each stream come in order."""
    columns: dict[str, _Columns] = {}
    for table in tables:
        for labels, rows in _by_stream(table):
            columns.setdefault(labels, _Columns()).take(rows)
    streams = tuple(StreamProof(labels, one.lines, one.hexdigest()) for labels, one in sorted(columns.items()))
    return DayProof(method, sum(stream.lines for stream in streams), _over(streams), streams)


def differences(expected: DayProof, found: DayProof) -> list[str]:
    """What a person needs to see of two proofs that should be one; empty where they are."""
    wanted = {stream.labels: stream for stream in expected.streams}
    there = {stream.labels: stream for stream in found.streams}
    out = []
    for labels in sorted(wanted.keys() | there.keys()):
        a, b = wanted.get(labels), there.get(labels)
        if a is None or b is None:
            have = (
                f"expected {a.lines:,} lines, found none"
                if a
                else f"expected none, found {b.lines if b else 0:,} lines"
            )
            out.append(f"{labels}: {have}")
        elif a.lines != b.lines:
            out.append(f"{labels}: expected {a.lines:,} lines, found {b.lines:,}")
        elif a.sha256 != b.sha256:
            out.append(
                f"{labels}: {a.lines:,} lines as expected, but not the same: sha256 {a.sha256} against {b.sha256}"
            )
    return out


class _Columns:
    """Running hashes of one stream's columns."""

    def __init__(self) -> None:
        self.lines = 0
        self._hashes = [hashlib.sha256() for _ in range(5)]

    def take(self, rows: pa.Table) -> None:
        import numpy as np

        self.lines += rows.num_rows
        texts, metadata = rows.column("line").combine_chunks(), _metadata(rows)
        for at, data in enumerate(
            (
                np.ascontiguousarray(rows.column("timestamp").cast("int64").to_numpy(), "<i8").data,
                *_text_bytes(texts),
                *_text_bytes(metadata),
            )
        ):
            self._hashes[at].update(data)

    def hexdigest(self) -> str:
        return hashlib.sha256(b"".join(one.digest() for one in self._hashes)).hexdigest()


def _over(streams: Sequence[StreamProof]) -> str:
    digest = hashlib.sha256()
    for stream in streams:
        digest.update(f"{len(stream.labels.encode())} {stream.labels} {stream.lines} {stream.sha256}\n".encode())
    return digest.hexdigest()


def _by_stream(table: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """Each stream's rows, in their order."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    if not table.num_rows:
        return
    labels = table.column("labels").combine_chunks()
    if isinstance(labels, pa.ChunkedArray):
        labels = labels.unify_dictionaries().combine_chunks()
    number = labels.indices.to_numpy()
    order = np.argsort(number, kind="stable")
    ends = np.flatnonzero(np.diff(number[order])) + 1
    sorted_table = pc.take(table.select(["timestamp", "line", "metadata"]), pa.array(order))
    begin = 0
    for end in (*ends.tolist(), table.num_rows):
        yield labels.dictionary[int(number[order[begin]])].as_py(), sorted_table.slice(begin, end - begin)
        begin = end


def _metadata(rows: pa.Table) -> Any:
    """One text for each row's metadata, sorted by name and escaped, so that equal texts are equal metadata."""
    import pyarrow as pa

    from onecollector_resources.loki.lines import metadata_text

    column = rows.column("metadata").combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks)
    return metadata_text(column)


def _text_bytes(texts: Any) -> tuple[Any, Any]:
    """Lengths as int64 and all bytes: they say where each text ends, wherever the column was cut."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    if isinstance(texts, pa.ChunkedArray):
        texts = pa.concat_arrays(texts.chunks)
    lengths = np.ascontiguousarray(pc.binary_length(texts).to_numpy(zero_copy_only=False), "<i8").data
    offsets = np.frombuffer(texts.buffers()[1], np.int32)[texts.offset : texts.offset + len(texts) + 1]
    data = texts.buffers()[2]
    return lengths, b"" if data is None else memoryview(data)[int(offsets[0]) : int(offsets[-1])]
