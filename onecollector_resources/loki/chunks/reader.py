"""One reading of a range of time: windows that fit in memory, decoded side by side, handed over in order.

The range is cut twice. First by the sizes of objects, which are known beforehand; each such window is the task of one
thread. That thread looks at the chunks' own lists of blocks and cuts again, exactly, so that memory holds however well
the lines were compressed. A thread that is ahead of the consumer waits with one block in hand.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from queue import Full, Queue

from onecollector_resources.loki.chunks.blocks import Columns
from onecollector_resources.loki.chunks.catalogue import MS, ChunkRef
from onecollector_resources.loki.chunks.format import Block
from onecollector_resources.loki.chunks.plan import Weight, cut
from onecollector_resources.loki.chunks.report import ReadReport
from onecollector_resources.loki.chunks.shelf import Chunk, Shelf
from onecollector_resources.loki.lines import LineBlock

INFLATED = 4
"""How many bytes of lines a byte of an object is taken for, before it is read: between snappy (3) and gzip (5 to 10)."""

POLL_S = 0.2
"""How long a thread that waits for the consumer goes without looking whether there still is one."""


@dataclass(frozen=True, slots=True)
class Limits:
    """``block_bytes`` of lines are in a block, about; ``decoders`` are at work on that many windows, ``fetchers`` read
    objects, of which up to ``kept_bytes`` are kept for the next window."""

    block_bytes: int = 24 << 20
    kept_bytes: int = 48 << 20
    decoders: int = 2
    fetchers: int = 8


@dataclass(frozen=True, slots=True)
class Window:
    """A part of the range, [start_ns, end_ns), and the chunks that can hold lines of it."""

    start_ns: int
    end_ns: int
    chunks: Sequence[ChunkRef]


def windows(refs: Sequence[ChunkRef], start_ns: int, end_ns: int, target: float) -> Iterator[Window]:
    """The range in parts of about ``target`` bytes of objects; parts without chunks are left out."""
    weights = [_weight(ref) for ref in refs]
    coming = deque(sorted(zip(weights, refs, strict=True), key=lambda pair: pair[0].first_ns))
    open_ones: list[tuple[Weight, ChunkRef]] = []
    for begin, end in cut(weights, start_ns, end_ns, target):
        open_ones = [pair for pair in open_ones if pair[0].last_ns >= begin]
        while coming and coming[0][0].first_ns < end:
            pair = coming.popleft()
            if pair[0].last_ns >= begin:
                open_ones.append(pair)
        if open_ones:
            yield Window(begin, end, [ref for _, ref in open_ones])


def _weight(ref: ChunkRef) -> Weight:
    return Weight(ref.from_ms * MS, (ref.through_ms + 1) * MS - 1, ref.size)


class _Task:
    """A window that is being decoded. Blocks come through ``queue``, None at the end."""

    def __init__(self, window: Window, shelf: Shelf, report: ReadReport, limits: Limits, stop: threading.Event) -> None:
        self._window, self._shelf, self._report, self._limits, self._stop = window, shelf, report, limits, stop
        self.queue: Queue[LineBlock | None] = Queue(1)

    def run(self) -> None:
        """Decode. Raises what ``Shelf.read`` raises, ChunkError."""
        try:
            for block in self._blocks():
                self._hand_over(block)
        finally:
            self._hand_over(None)

    def _hand_over(self, block: LineBlock | None) -> None:
        while not self._stop.is_set():
            try:
                self.queue.put(block, timeout=POLL_S)
            except Full:
                continue
            return

    def _blocks(self) -> Iterator[LineBlock]:
        window, found = self._window, list[Block]()
        # Whatever is asked for here is needed again, so nothing is finished yet.
        for _, chunks in self._shelf.read(window.chunks, window.start_ns):
            if self._stop.is_set():
                return
            found += [block for chunk in chunks for block in chunk.blocks(window.start_ns, window.end_ns)]
        weights = [Weight(block.first_ns, block.last_ns, block.line_bytes) for block in found]
        for begin, end in cut(weights, window.start_ns, window.end_ns, self._limits.block_bytes):
            inside = [block for block in found if block.touches(begin, end)]
            refs = [ref for ref in window.chunks if ref.from_ms * MS < end and (ref.through_ms + 1) * MS > begin]
            columns = Columns(
                begin, end, sum(block.entries for block in inside), sum(block.line_bytes for block in inside)
            )
            for _, chunks in self._shelf.read(refs, end):
                for chunk in chunks:
                    if self._stop.is_set():
                        return
                    self._add(columns, chunk)
            self._report.count(entries=len(columns), inflated_bytes=columns.inflated)
            if len(columns):
                yield columns.block()

    def _add(self, columns: Columns, chunk: Chunk) -> None:
        blocks = chunk.blocks(columns.start_ns, columns.end_ns)
        for damage in columns.add(chunk.layout, chunk.data, chunk.symbols, blocks):
            self._report.damage(damage.key, damage.reason)


def read_blocks(
    refs: Sequence[ChunkRef], start_ns: int, end_ns: int, shelf: Shelf, report: ReadReport, limits: Limits
) -> Iterator[LineBlock]:
    """Blocks in order of time, none overlapping another. Raises ChunkUnsupported, ChunkError, StoreError."""
    stop = threading.Event()
    coming = windows(refs, start_ns, end_ns, limits.block_bytes / INFLATED)
    running: deque[tuple[_Task, Future[None]]] = deque()
    with ThreadPoolExecutor(limits.decoders, "chunk-decode") as pool:
        try:
            while True:
                for window in islice(coming, limits.decoders - len(running)):
                    task = _Task(window, shelf, report, limits, stop)
                    running.append((task, pool.submit(task.run)))
                if not running:
                    return
                task, future = running[0]
                while (block := task.queue.get()) is not None:
                    yield block
                    # The consumer is done with it: it must not live on while the next is made.
                    block = None
                running.popleft()
                future.result()
        finally:
            stop.set()
