"""Lines as plain tuples, and blocks and tables made of them: what the tests of reading compare with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from onecollector_resources.loki.lines import LineBlock

Line = tuple[int, str, str, tuple[tuple[str, str], ...]]
"""Time, labels as text, line, metadata."""


def block_of(lines: Sequence[Line]) -> LineBlock:
    streams = [labels for _, labels, _, _ in lines]  # equal label sets several times: time shards of one stream
    return LineBlock(
        streams=streams,
        stream=np.arange(len(lines), dtype=np.int32),
        time_ns=np.array([time_ns for time_ns, *_ in lines], np.int64),
        line=pa.array([line for _, _, line, _ in lines], pa.string()),
        metadata=pa.array([list(pairs) for *_, pairs in lines], pa.map_(pa.string(), pa.string())),
    )


def rows_of(table: pa.Table) -> list[Line]:
    times = table.column("timestamp").cast(pa.int64()).to_pylist()
    return [
        (time_ns, row["labels"], row["line"], tuple(row["metadata"]))
        for time_ns, row in zip(times, table.drop_columns("timestamp").to_pylist(), strict=True)
    ]
