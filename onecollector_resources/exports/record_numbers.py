"""Whether the record numbers of exported lines leave a hole: each line carries the number of its record in its file.

Kept as runs of consecutive numbers per file, so that an hour of any size costs little. A hole is only a hint here: the
next hour may have the line, a rule may have joined lines, the registry may know of a gap.
"""

# pyarrow makes the functions of its compute module at import, where a type checker does not see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from onecollector_resources.exports.partitions import Hole
from onecollector_resources.loki.lines import metadata_values

if TYPE_CHECKING:
    import pyarrow as pa

CONTAINER, SEGMENT, NUMBER = "container_id", "log_segment", "log_file_record_number"

JOINED_BYTES = 16_000
"""The engine cuts lines at 16 KiB and the collector joins the parts, whose numbers then have no line of their own."""

File = tuple[str, int]
"""(container or source id, segment)."""


class RecordNumbers:
    """Takes in tables of ``lines.schema()``, answers the holes between each file's lowest and highest number."""

    def __init__(self) -> None:
        self._runs: dict[File, list[tuple[int, int]]] = {}
        self._long: dict[File, dict[int, int]] = {}

    def add(self, table: pa.Table) -> None:
        """Take in more lines; those without a record number are passed by."""
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        for batch in table.to_batches():
            metadata = batch.column("metadata")
            number = metadata_values(metadata, NUMBER)
            if number.null_count == len(number):
                continue
            container = pc.fill_null(metadata_values(metadata, CONTAINER), "").dictionary_encode()
            segment = pc.fill_null(metadata_values(metadata, SEGMENT), "0").dictionary_encode()
            size = pc.binary_length(batch.column("line"))
            valid = np.flatnonzero(number.is_valid().to_numpy(zero_copy_only=False))
            index = pa.array(valid)
            numbers = pc.cast(number.take(index), pa.int64()).to_numpy()
            files = (
                container.indices.take(index).to_numpy().astype(np.int64) * len(segment.dictionary)
                + segment.indices.take(index).to_numpy()
            )
            order = np.lexsort((numbers, files))
            files, numbers = files[order], numbers[order]
            breaks = np.flatnonzero((files[1:] != files[:-1]) | (numbers[1:] > numbers[:-1] + 1)) + 1
            for begin, end in zip([0, *breaks], [*breaks, len(numbers)], strict=True):
                at = divmod(int(files[begin]), len(segment.dictionary))
                file = (container.dictionary[at[0]].as_py(), int(segment.dictionary[at[1]].as_py()))
                self._runs.setdefault(file, []).append((int(numbers[begin]), int(numbers[end - 1])))
            sizes = size.take(index).to_numpy()[order]
            for place in np.flatnonzero(sizes >= JOINED_BYTES):
                at = divmod(int(files[place]), len(segment.dictionary))
                file = (container.dictionary[at[0]].as_py(), int(segment.dictionary[at[1]].as_py()))
                self._long.setdefault(file, {})[int(numbers[place])] = int(sizes[place])

    def holes(self) -> tuple[Hole, ...]:
        """Numbers that no line has, ascending by file; parts of a line that was joined are not meant."""
        found: list[Hole] = []
        for file, runs in sorted(self._runs.items()):
            runs.sort()
            merged = [runs[0]]
            for first, last in runs[1:]:
                if first <= merged[-1][1] + 1:
                    merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
                else:
                    merged.append((first, last))
            self._runs[file] = merged
            long = self._long.get(file, {})
            for (_, before), (after, _) in pairwise(merged):
                missing = after - before - 1
                if max(long.get(before, 0), long.get(after, 0)) < missing * JOINED_BYTES:
                    found.append(Hole(file[0], file[1], before + 1, after - 1))
        return tuple(found)
