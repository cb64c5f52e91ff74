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
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from queue import Full, Queue
from typing import Any

from onecollector_resources.loki.chunks.blocks import Columns
from onecollector_resources.loki.chunks.catalogue import MS, ChunkRef
from onecollector_resources.loki.chunks.format import Block
from onecollector_resources.loki.chunks.kept_blocks import KeptBlocks
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
    objects. For later windows up to ``kept_bytes`` of objects are kept, and ``inflated_bytes`` of blocks.
    """

    block_bytes: int = 12 << 20
    kept_bytes: int = 24 << 20
    inflated_bytes: int = 24 << 20
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


class _Desk:
    """What the threads of a reading share: columns to fill, and the right to fill some.

    There are fewer rights than there could be blocks at once. One right goes with each block, from before it is begun
    until the consumer is done with it; a window that is ahead can hold two, so the first window always gets one.
    """

    def __init__(self, shelf: Shelf, report: ReadReport, limits: Limits) -> None:
        self.shelf, self.report, self.limits = shelf, report, limits
        self.kept = KeptBlocks(report, limits.inflated_bytes)
        self.stop = threading.Event()
        self._rights = threading.Semaphore(max(2, 2 * limits.decoders - 1))
        self._idle = deque[Columns]()

    def take(self) -> bool:
        """Wait for a right; False where nobody wants any more blocks."""
        while not self.stop.is_set():
            if self._rights.acquire(timeout=POLL_S):
                return True
        return False

    def give_back(self) -> None:
        """The block is gone."""
        self._rights.release()

    def forget(self, before_ns: int) -> None:
        """All windows that are not done begin at this time or later."""
        self.shelf.forget(before_ns)
        self.kept.forget(before_ns)

    @contextmanager
    def columns(self) -> Iterator[Columns]:
        """Columns to fill."""
        try:
            mine = self._idle.popleft()
        except IndexError:
            mine = Columns()
        yield mine
        self._idle.append(mine)


class _Task:
    """A window that is being decoded. Blocks come through ``queue``, None at the end."""

    def __init__(self, window: Window, desk: _Desk) -> None:
        self.window, self._desk = window, desk
        self.queue: Queue[LineBlock | None] = Queue(1)

    def run(self) -> None:
        """Decode. Raises what ``Shelf.read`` raises, ChunkError."""
        try:
            for block in self._blocks():
                self._hand_over(block)
        finally:
            self._hand_over(None)

    def _hand_over(self, block: LineBlock | None) -> None:
        while not self._desk.stop.is_set():
            try:
                self.queue.put(block, timeout=POLL_S)
            except Full:
                continue
            return

    def _blocks(self) -> Iterator[LineBlock]:
        desk, window, found = self._desk, self.window, list[Block]()
        for chunks in desk.shelf.read(window.chunks, window.start_ns):
            if desk.stop.is_set():
                return
            found += [block for chunk in chunks for block in chunk.blocks(window.start_ns, window.end_ns)]
        weights = [Weight(block.first_ns, block.last_ns, block.line_bytes) for block in found]
        for begin, end in cut(weights, window.start_ns, window.end_ns, desk.limits.block_bytes):
            if not desk.take():
                return
            block = self._block(begin, end, [one for one in found if one.touches(begin, end)])
            if block is None:
                desk.give_back()
            else:
                yield block

    def _block(self, begin: int, end: int, inside: Sequence[Block]) -> LineBlock | None:
        """The lines of [begin, end), None where there are none or nobody wants them."""
        desk = self._desk
        refs = [ref for ref in self.window.chunks if ref.from_ms * MS < end and (ref.through_ms + 1) * MS > begin]
        with desk.columns() as columns:
            columns.begin(begin, end, sum(one.entries for one in inside), sum(one.line_bytes for one in inside))
            for chunks in desk.shelf.read(refs, end):
                if desk.stop.is_set():
                    return None
                for chunk in chunks:
                    self._add(columns, chunk)
            desk.report.count(entries=len(columns))
            return columns.block() if len(columns) else None

    def _add(self, columns: Columns, chunk: Chunk) -> None:
        begin, end = columns.start_ns, columns.end_ns

        def raw_of(block: Block) -> Any:
            return self._desk.kept.inflated(chunk.layout, chunk.data, block, begin, end)

        for damage in columns.add(chunk.layout, chunk.symbols, chunk.blocks(begin, end), raw_of):
            self._desk.report.damage(damage.key, damage.reason)


def read_blocks(
    refs: Sequence[ChunkRef], start_ns: int, end_ns: int, shelf: Shelf, report: ReadReport, limits: Limits
) -> Iterator[LineBlock]:
    """Blocks in order of time, none overlapping another. Raises ChunkUnsupported, ChunkError, StoreError."""
    desk = _Desk(shelf, report, limits)
    coming = windows(refs, start_ns, end_ns, limits.block_bytes / INFLATED)
    running: deque[tuple[_Task, Future[None]]] = deque()
    with ThreadPoolExecutor(limits.decoders, "chunk-decode") as pool:
        try:
            while True:
                for window in islice(coming, limits.decoders - len(running)):
                    task = _Task(window, desk)
                    running.append((task, pool.submit(task.run)))
                if not running:
                    return
                task, future = running[0]
                while (block := task.queue.get()) is not None:
                    yield block
                    # It must not live on while the next is made.
                    del block
                    desk.give_back()
                running.popleft()
                future.result()
                desk.forget(task.window.end_ns)
        finally:
            desk.stop.set()
