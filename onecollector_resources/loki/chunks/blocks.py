"""Lines out of chunks' blocks into Arrow columns: what a window of time holds, whatever chunks it lies in.

Lines are appended chunk by chunk, only those of the window, then put in order of time in one pass, so that who orders
them for good finds nothing to do. What Loki's API would say of a line is said here, too: structured metadata with
names of stream labels gets ``_extracted``, of equal names the last counts, sorted by name within each line.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onecollector_resources.loki.chunks.faults import ChunkDamaged, ChunkError
from onecollector_resources.loki.chunks.format import Block, Layout, block_name, check, read_symbols
from onecollector_resources.loki.chunks.inflate import inflate
from onecollector_resources.loki.chunks.memory import room
from onecollector_resources.loki.chunks.texts import strings
from onecollector_resources.loki.lines import LineBlock, empty_metadata, label_text

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    Numbers = np.ndarray[Any, Any]

PARSED = ("__error__", "__error_details__")
"""Names that Loki takes for results of the query and not for the line's metadata, even where they are stored."""

LARGEST = (1 << 31) - 1
"""Arrow counts the bytes of a column's texts in 31 bits."""


@dataclass(frozen=True, slots=True)
class Symbols:
    """A chunk's table of names and values of structured metadata."""

    texts: pa.StringArray

    @property
    def bytes(self) -> int:
        """What it takes in memory."""
        return self.texts.nbytes


def decode_symbols(layout: Layout, data: memoryview) -> Symbols:
    """The chunk's symbols. Raises ChunkDamaged."""
    import numpy as np

    from onecollector_resources.loki.chunks.kernels import split_symbols

    count, packed = read_symbols(layout, data)
    raw = inflate(layout.key, "symbols", layout.encoding, packed, 4 * len(packed))
    if count > len(raw):
        raise ChunkDamaged(layout.key, f"symbols: expected {count}, found {len(raw)} bytes of them")
    ends, texts = room(count + 1, np.int32), room(len(raw), np.uint8)
    read = split_symbols(raw, ends, texts)
    if read != len(raw):
        raise ChunkDamaged(layout.key, f"symbols: expected {count} in {len(raw)} bytes, found them in {read}")
    return Symbols(strings(ends, texts[: ends[-1]]))


def inflated(layout: Layout, data: memoryview, block: Block) -> Numbers:
    """The bytes of a chunk's block. Raises ChunkDamaged."""
    name = block_name(layout, block)
    packed = check(layout.key, data, layout.start, block, name)
    raw = inflate(layout.key, name, layout.encoding, packed, block.line_bytes + 16 * block.entries)
    if block.entries > len(raw):
        raise ChunkDamaged(layout.key, f"{name}: found {len(raw)} bytes for them")
    return raw


class Columns:
    """Lines of a window as they are found. Not safe for several threads.

    What it is made of stays between windows: taking memory anew for each costs as much time as filling it.
    """

    def __init__(self) -> None:
        import numpy as np

        self._at = np.zeros(3, np.int64)
        self._times = np.empty(0, np.int64)
        self._stream = np.empty(0, np.int32)
        self._line_ends, self._pair_ends = np.zeros(1, np.int32), np.zeros(1, np.int32)
        self._data = np.empty(0, np.uint8)
        self._names, self._values = np.empty(0, np.int32), np.empty(0, np.int32)
        self.begin(0, 0, 0, 0)

    def begin(self, start_ns: int, end_ns: int, rows: int, line_bytes: int) -> None:
        """Begin with the lines of [start_ns, end_ns). ``rows`` and ``line_bytes`` are about how many will come."""
        self.start_ns, self.end_ns = start_ns, end_ns
        self._at[:] = 0
        self._chunks: list[tuple[Layout, Symbols, Numbers]] = []
        self._first_symbol = 0
        self._make_room(rows, line_bytes)

    def __len__(self) -> int:
        return int(self._at[0])

    @property
    def line_bytes(self) -> int:
        """Bytes of the lines so far."""
        return int(self._at[1])

    def add(
        self, layout: Layout, symbols: Symbols, blocks: Sequence[Block], raw_of: Callable[[Block], Numbers]
    ) -> list[ChunkDamaged]:
        """Take the lines of these blocks of a chunk; answers what was wrong with blocks that had to be left out.

        ``raw_of`` inflates a block or raises ChunkDamaged.
        """
        import numpy as np

        from onecollector_resources.loki.chunks.kernels import walk

        used = np.zeros(len(symbols.texts), np.uint8)
        first_row, damage = len(self), list[ChunkDamaged]()
        for block in blocks:
            try:
                raw = raw_of(block)
                self._make_room(block.entries, len(raw))
                read = walk(
                    raw,
                    block.entries,
                    self.start_ns,
                    self.end_ns,
                    self._first_symbol,
                    self._times,
                    self._line_ends,
                    self._data,
                    self._pair_ends,
                    self._names,
                    self._values,
                    used,
                    self._at,
                )
                if read != len(raw):
                    name = block_name(layout, block)
                    raise ChunkDamaged(layout.key, f"{name}: expected them in {len(raw)} bytes, found them in {read}")
            except ChunkDamaged as error:
                damage.append(error)
        if len(self) > first_row:
            self._stream[first_row : len(self)] = len(self._chunks)
            self._chunks.append((layout, symbols, used))
            self._first_symbol += len(used)
        return damage

    def _make_room(self, rows: int, size: int) -> None:
        have, held, pairs = (int(number) for number in self._at)
        # A pair takes two bytes at least.
        most = (have + rows + 1, held + size, pairs + size // 2)
        if max(most) > LARGEST:
            raise ChunkError(
                f"expected at most 2 GB of lines in one window, found more from {self.start_ns} to {self.end_ns} ns; "
                "ask for fewer streams at once"
            )
        self._times = _grown(self._times, have, most[0])
        self._stream = _grown(self._stream, have, most[0])
        self._line_ends = _grown(self._line_ends, have + 1, most[0])
        self._pair_ends = _grown(self._pair_ends, have + 1, most[0])
        self._data = _grown(self._data, held, most[1])
        self._names, self._values = _grown(self._names, pairs, most[2]), _grown(self._values, pairs, most[2])

    def block(self) -> LineBlock:
        """All lines, in order of time and stream."""
        import numpy as np

        from onecollector_resources.loki.chunks.kernels import gather

        rows, size, pairs = (int(number) for number in self._at)
        streams = [label_text(layout.labels) for layout, _, _ in self._chunks]
        texts = sorted(set(streams))
        rank = {text: number for number, text in enumerate(texts)}
        times = self._times[:rows]
        stream = _ranks(streams, rank)[self._stream[:rows]] if rows else np.zeros(0, np.int32)
        names, rank_of = self._ranked_names()
        out_times, out_stream = room(rows, np.int64), room(rows, np.int32)
        line_ends, pair_ends = room(rows + 1, np.int32), room(rows + 1, np.int32)
        out_names, out_values = room(pairs, np.int32), room(pairs, np.int32)
        data = room(size, np.uint8)
        left = gather(
            _order(times, stream, len(texts)),
            times,
            self._line_ends,
            self._data,
            stream,
            self._pair_ends,
            self._names,
            self._values,
            rank_of,
            out_times,
            line_ends,
            data,
            out_stream,
            pair_ends,
            out_names,
            out_values,
        )
        metadata = self._metadata(names, pair_ends, out_names[:left], out_values[:left])
        return LineBlock(texts, out_stream, out_times, strings(line_ends, data), metadata)

    def _ranked_names(self) -> tuple[list[str], Numbers]:
        """Names of metadata in order, and for each symbol which of them it is, -1 for what is none or is left out."""
        import numpy as np

        found = []
        for layout, symbols, used in self._chunks:
            places = np.flatnonzero(used)
            found.append((places, [_shown(name, layout) for name in symbols.texts.take(places).to_pylist()]))
        names = sorted({name for _, some in found for name in some} - {*PARSED})
        rank = {**{name: number for number, name in enumerate(names)}, **dict.fromkeys(PARSED, -1)}
        rank_of = np.full(self._first_symbol, -1, np.int32)
        first = 0
        for (places, some), (_, _, used) in zip(found, self._chunks, strict=True):
            rank_of[first + places] = _ranks(some, rank)
            first += len(used)
        return names, rank_of

    def _metadata(self, names: list[str], pair_ends: Numbers, out_names: Numbers, out_values: Numbers) -> pa.MapArray:
        import pyarrow as pa

        if not len(out_names):
            return empty_metadata(len(pair_ends) - 1)
        symbols = pa.concat_arrays([symbols.texts for _, symbols, _ in self._chunks])
        return pa.MapArray.from_arrays(
            pa.array(pair_ends),
            pa.array(names, pa.string()).take(pa.array(out_names)),
            symbols.take(pa.array(out_values)),
        )


def _shown(name: str, layout: Layout) -> str:
    return f"{name}_extracted" if name in layout.labels else name


def _ranks(names: Sequence[str], rank: dict[str, int]) -> Numbers:
    import numpy as np

    return np.fromiter((rank[name] for name in names), np.int32, len(names))


def _grown(array: Numbers, used: int, needed: int) -> Numbers:
    """The array, or a larger one with its used part."""
    if len(array) >= needed:
        return array
    larger = room(needed + needed // 4, array.dtype)
    larger[:used] = array[:used]
    return larger


def _order(times: Numbers, stream: Numbers, streams: int) -> Numbers:
    """Rows by time, then stream."""
    import numpy as np

    if not len(times):
        return np.zeros(0, np.int64)
    first, last = int(times.min()), int(times.max())
    if (last - first + 1) * streams >= 1 << 62:
        return np.lexsort((stream, times))
    key = times - first
    if streams > 1:
        key *= streams
        key += stream
    if (key[1:] >= key[:-1]).all():
        return np.arange(len(key))
    return np.argsort(key, kind="stable")
