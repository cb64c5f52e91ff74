"""Inflated blocks that reach over the end of a window, kept for the next one.

A block holds 256 kB of one stream. With twenty streams few blocks lie across the end of a window; with hundreds most
do, and each would be inflated for every window that it touches.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from onecollector_resources.loki.chunks.blocks import inflated
from onecollector_resources.loki.chunks.format import Block, Layout
from onecollector_resources.loki.chunks.memory import moved
from onecollector_resources.loki.chunks.report import ReadReport

if TYPE_CHECKING:
    import numpy as np


class KeptBlocks:
    """Inflates blocks; keeps up to ``room`` bytes of them. Safe to share between threads."""

    def __init__(self, report: ReadReport, room: int) -> None:
        self._report, self._room = report, room
        self._lock = threading.Lock()
        self._kept: dict[tuple[str, int], tuple[int, np.ndarray[Any, Any]]] = {}
        self._held = 0

    def inflated(
        self, layout: Layout, data: memoryview, block: Block, start_ns: int, end_ns: int
    ) -> np.ndarray[Any, Any]:
        """The block's bytes, for the window [start_ns, end_ns). Raises ChunkDamaged."""
        place = layout.key, block.offset
        with self._lock:
            found = self._kept.get(place)
        if found is not None:
            return found[1]
        raw = inflated(layout, data, block)
        self._report.count(inflated_bytes=len(raw))
        if block.first_ns >= start_ns and block.last_ns < end_ns:
            return raw
        with self._lock:
            if place in self._kept or self._held + len(raw) > self._room:
                return raw
            self._held += len(raw)
            raw = moved(raw)
            self._kept[place] = block.last_ns, raw
        return raw

    def forget(self, before_ns: int) -> None:
        """No window needs lines before this time any more."""
        with self._lock:
            for place in [place for place, (last_ns, _) in self._kept.items() if last_ns < before_ns]:
                self._held -= len(self._kept.pop(place)[1])
