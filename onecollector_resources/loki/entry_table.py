"""Lines that a query gave as the Arrow table in which lines are exported: the same columns, order and bytes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from onecollector_resources.loki.answers import Entry
from onecollector_resources.loki.lines import LineBlock, OrderedLines, label_text, ordered

if TYPE_CHECKING:
    import pyarrow as pa


def table_of(entries: Sequence[Entry]) -> OrderedLines:
    """Entries in order, each once. What stages of the query parsed stands with the metadata."""
    import numpy as np
    import pyarrow as pa

    texts: dict[str, int] = {}
    stream = [texts.setdefault(label_text(entry.labels), len(texts)) for entry in entries]
    pairs = [sorted({**entry.parsed, **entry.metadata}.items()) for entry in entries]
    return ordered(
        LineBlock(
            streams=list(texts),
            stream=np.array(stream, np.int32),
            time_ns=np.array([entry.time_ns for entry in entries], np.int64),
            line=pa.array([entry.line for entry in entries], pa.string()),
            metadata=_map_of(pairs),
        )
    )


def _map_of(pairs: Sequence[Sequence[tuple[str, str]]]) -> pa.MapArray:
    import numpy as np
    import pyarrow as pa

    flat = [pair for row in pairs for pair in row]
    offsets = np.zeros(len(pairs) + 1, np.int32)
    np.cumsum([len(row) for row in pairs], out=offsets[1:])
    keys, values = pa.array([k for k, _ in flat], pa.string()), pa.array([v for _, v in flat], pa.string())
    return pa.MapArray.from_arrays(pa.array(offsets), keys, values)


def write_parquet(path: Path, entries: Sequence[Entry]) -> int:
    """Write them to one file, which is replaced as a whole; answers rows. Raises OSError."""
    import pyarrow.parquet as pq

    table = table_of(entries).table
    beside = path.with_name(f".{path.name}.new")
    try:
        pq.write_table(table, beside, compression="zstd")
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    return table.num_rows
