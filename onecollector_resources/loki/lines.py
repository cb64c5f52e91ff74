"""Log lines as Arrow columns: what every way of reading them out of Loki hands over, in one order and each line once.

A line's identity is its stream's labels, its time, its text and its structured metadata together, and the order is by
time, then by those. So two ways of reading the same range give the same table, row for row, whatever order pages,
chunks and replicas came in.
"""

# pyarrow makes the functions of its compute module at import, where a type checker does not see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from onecollector_resources.loki.names import INNER_LABELS, SEVERITY_KEYS

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

SCHEMA_VERSION = 1


def label_text(labels: Mapping[str, str]) -> str:
    """A label set as JSON with sorted names, without Loki's inner ones: equal sets have equal texts."""
    kept = {name: value for name, value in labels.items() if name not in INNER_LABELS}
    return orjson.dumps(kept, option=orjson.OPT_SORT_KEYS).decode()


def schema() -> pa.Schema:
    """Columns of exported lines: time (ns, UTC), text, severity, labels (JSON), structured metadata."""
    import pyarrow as pa

    return pa.schema(
        [
            pa.field("timestamp", pa.timestamp("ns", "UTC"), nullable=False),
            pa.field("line", pa.string(), nullable=False),
            pa.field("severity", pa.dictionary(pa.int32(), pa.string())),
            pa.field("labels", pa.dictionary(pa.int32(), pa.string()), nullable=False),
            pa.field("metadata", pa.map_(pa.string(), pa.string()), nullable=False),
        ],
        metadata={b"onecollector.lines.schema": str(SCHEMA_VERSION).encode()},
    )


@dataclass(frozen=True, slots=True)
class LineBlock:
    """Lines of a closed span of time, in any order, each perhaps more than once. All columns have one length.

    ``stream`` indexes ``streams`` (label texts of ``label_text``, equal ones allowed); ``time_ns`` int64 and ``stream``
    int32 are numpy arrays, ``line`` is a string array, ``metadata`` a map array of strings whose keys are sorted within
    each row.
    """

    streams: Sequence[str]
    stream: np.ndarray[Any, Any]
    time_ns: np.ndarray[Any, Any]
    line: pa.StringArray
    metadata: pa.MapArray

    def __len__(self) -> int:
        return len(self.time_ns)


@dataclass(frozen=True, slots=True)
class OrderedLines:
    """A table of ``schema()`` in order, and how many rows were left out because they were there already."""

    table: pa.Table
    duplicates: int


def empty_metadata(rows: int) -> pa.MapArray:
    """Rows without structured metadata."""
    import numpy as np
    import pyarrow as pa

    none = pa.array([], pa.string())
    return pa.MapArray.from_arrays(pa.array(np.zeros(rows + 1, np.int32)), none, none)


def ordered(block: LineBlock) -> OrderedLines:
    """The block's lines in order, each once."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = sorted(set(block.streams))
    rank_of = {text: rank for rank, text in enumerate(texts)}
    rank = np.fromiter((rank_of[text] for text in block.streams), np.int32, len(block.streams))[block.stream]
    order, tied = _time_order(block.time_ns, rank)
    duplicates = 0
    if tied is not None:
        order, duplicates = _settle_ties(block, order, tied)
    time_ns, line, metadata = block.time_ns, block.line, block.metadata
    # Copying lines takes longer than finding their order: a block that came in order stays where it is.
    if len(order) < len(block) or (order[1:] < order[:-1]).any():
        index = pa.array(order)
        time_ns, rank = time_ns[order], rank[order]
        line, metadata = pc.take(line, index), pc.take(metadata, index)
    table = pa.Table.from_arrays(
        [
            pa.array(time_ns).view(pa.timestamp("ns", "UTC")),
            line,
            _severity(metadata, texts, rank),
            pa.DictionaryArray.from_arrays(pa.array(rank), pa.array(texts, pa.string())),
            metadata,
        ],
        schema=schema(),
    )
    return OrderedLines(table, duplicates)


def _time_order(time_ns: np.ndarray[Any, Any], rank: np.ndarray[Any, Any]) -> tuple[Any, Any]:
    """Rows by (time, stream), and which sorted rows are equal to their predecessor in both; None where none is."""
    import numpy as np

    if not len(time_ns):
        return np.zeros(0, np.int64), None
    streams = int(rank.max()) + 1
    first, last = int(time_ns.min()), int(time_ns.max())
    if (last - first + 1) * streams < 1 << 62:
        # One key for both: half the time of two sorts, and runs of lines that are in order already cost nearly nothing.
        key = (time_ns - first) * streams + rank
        order = np.argsort(key, kind="stable")
        sorted_key = key[order]
        tied = sorted_key[1:] == sorted_key[:-1]
    else:
        order = np.lexsort((rank, time_ns))
        tied = (time_ns[order][1:] == time_ns[order][:-1]) & (rank[order][1:] == rank[order][:-1])
    return order, (np.concatenate(([False], tied)) if tied.any() else None)


def _settle_ties(block: LineBlock, order: Any, tied: Any) -> tuple[Any, int]:
    """Rows of one stream and one nanosecond, ordered by text and metadata, the same line kept once."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    within = tied.copy()
    within[:-1] |= tied[1:]
    places = np.flatnonzero(within)
    rows = order[places]
    group = np.cumsum(~tied)[places]
    index = pa.array(rows)
    candidates = pa.table(
        {
            "group": pa.array(group),
            "line": pc.take(block.line, index),
            "metadata": metadata_text(pc.take(block.metadata, index)),
        }
    )
    settled = pc.sort_indices(candidates, [(name, "ascending") for name in candidates.column_names])
    candidates = candidates.take(settled).combine_chunks()
    same = np.ones(len(rows) - 1, bool)
    for name in candidates.column_names:
        column = candidates.column(name).combine_chunks()
        same &= pc.equal(column[1:], column[:-1]).to_numpy(zero_copy_only=False)
    fresh = np.concatenate(([True], ~same))
    order = order.copy()
    order[places] = rows[settled.to_numpy()]
    keep = np.ones(len(order), bool)
    keep[places] = fresh
    return order[keep], int((~fresh).sum())


def metadata_text(metadata: pa.MapArray) -> pa.StringArray:
    """Each row's pairs as one text; equal only for equal pairs."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    first, last = metadata.offsets[0].as_py(), metadata.offsets[-1].as_py()
    keys, values = metadata.keys[first:last], metadata.items[first:last]
    parts = pa.concat_arrays([keys, values])
    for plain, escaped in (("\\", "\\\\"), ("\x1f", "\\u")):
        parts = pc.replace_substring(parts, pattern=plain, replacement=escaped)
    pairs = last - first
    woven = np.arange(2 * pairs, dtype=np.int64).reshape(2, pairs).T.ravel()
    offsets = (metadata.offsets.to_numpy() - first) * 2
    lists = pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), parts.take(pa.array(woven)))
    return pc.binary_join(lists, "\x1f")


def metadata_values(metadata: pa.MapArray, name: str) -> pa.StringArray:
    """Each row's value of one key, null without."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    offsets = metadata.offsets.to_numpy()
    at = np.flatnonzero(pc.equal(metadata.keys, name).to_numpy(zero_copy_only=False))
    # The map's arrays are whole, whatever part of them the offsets mean.
    at = at[(at >= offsets[0]) & (at < offsets[-1])]
    if not len(at):
        return pa.nulls(len(metadata), pa.string())
    place = np.full(len(metadata), -1, np.int64)
    place[np.searchsorted(offsets, at, side="right") - 1] = at
    return metadata.items.take(pa.array(place, mask=place < 0))


def _severity(metadata: pa.MapArray, texts: Sequence[str], rank: np.ndarray[Any, Any]) -> pa.DictionaryArray:
    """The first of ``SEVERITY_KEYS`` in a row's metadata, else the stream's ``level``, in lower case; null without."""
    import pyarrow as pa
    import pyarrow.compute as pc

    found = pa.nulls(len(metadata), pa.string())
    for name in SEVERITY_KEYS:
        if not found.null_count:
            break
        values = metadata_values(metadata, name)
        found = values if found.null_count == len(found) else pc.coalesce(found, values)
    levels = [orjson.loads(text).get("level") for text in texts]
    if found.null_count and any(levels):
        found = pc.coalesce(found, pa.array(levels, pa.string()).take(pa.array(rank)))
    encoded = found.dictionary_encode()
    lowered = pc.utf8_lower(encoded.dictionary)
    if len(lowered.unique()) == len(lowered):
        return pa.DictionaryArray.from_arrays(encoded.indices, lowered)
    return pc.utf8_lower(found).dictionary_encode()
