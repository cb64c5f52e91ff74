"""Several services' minutes side by side, so that one pass of array arithmetic scores all of them.

Columns of all services stand one after the other; ``starts`` says where each service begins, ``owner`` whose a column is.
After a service's templates comes one more column, the sum of its error lines: many errors that are each too rare to be
noticed show there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml.features import Frame
from ml.quarters import QUARTER, side_by_side
from ml.zones import UTC, on_the_wall

Floats = NDArray[np.floating[Any]]
"""Single precision where it is kept, half or double on the way there."""
INFO, ERROR, ERROR_SUM = 0, 1, 2
"""Kinds of a column."""


@dataclass(frozen=True, slots=True)
class Panel:
    """Minutes [T] of services [S]: ``counts`` [T, K], ``took_lines`` and ``took_log`` (natural logarithm of ms) [T, D].

    Of each timed template there are two columns, median and 95th percentile; after them one of all durations together.
    ``unknown``, ``fresh`` (error lines of fresh templates) and ``observed`` are [T, S]. ``earlier``
    [3, REMEMBERED, S] is the day before as in ``quarters.py``; its last quarter hour is that of the first minute.
    ``zone`` is whose clocks the seasons go by, ``on_the_wall`` the minutes [T] by these.
    """

    minutes: NDArray[np.int64]
    counts: Floats
    kind: NDArray[np.int8]
    starts: NDArray[np.intp]
    owner: NDArray[np.intp]
    took_lines: Floats
    took_log: Floats
    took_starts: NDArray[np.intp]
    took_owner: NDArray[np.intp]
    unknown: Floats
    fresh: Floats
    observed: NDArray[np.bool_]
    earlier: Floats
    zone: str
    on_the_wall: NDArray[np.int64]

    @property
    def services(self) -> int:
        """How many services."""
        return len(self.starts)


def panel_of(frames: Sequence[Frame], zone: str = UTC) -> Panel:
    """Frames of the same minutes side by side; raises ValueError where their minutes differ."""
    first = frames[0]
    for frame in frames:
        if frame.start != first.start or len(frame.counts) != len(first.counts):
            raise ValueError(
                f"frames of one panel cover the same minutes: {frame.service} has {len(frame.counts)} from minute "
                f"{frame.start}, {first.service} has {len(first.counts)} from {first.start}"
            )
    counts, kinds, logs, took = [], [], [], []
    for frame in frames:
        seen = frame.observed[:, None]
        counts += [frame.counts * seen, frame.errors[:, None] * seen]
        kinds.append(np.r_[np.where(frame.is_error, ERROR, INFO), ERROR_SUM].astype(np.int8))
        columns = _durations(frame)
        took.append(columns[0])
        logs.append(columns[1])
    sizes = np.array([len(kind) for kind in kinds])
    took_sizes = np.array([part.shape[1] for part in took])
    numbers = np.arange(len(frames))
    return Panel(
        first.minutes,
        np.concatenate(counts, axis=1),
        np.concatenate(kinds),
        (np.cumsum(sizes) - sizes).astype(np.intp),
        np.repeat(numbers, sizes),
        np.concatenate(took, axis=1),
        np.concatenate(logs, axis=1),
        (np.cumsum(took_sizes) - took_sizes).astype(np.intp),
        np.repeat(numbers, took_sizes),
        np.stack([frame.unknown * frame.observed for frame in frames], axis=1),
        np.stack([frame.fresh_errors for frame in frames], axis=1),
        np.stack([frame.observed for frame in frames], axis=1),
        side_by_side([frame.earlier for frame in frames], first.start // QUARTER),
        zone,
        on_the_wall(first.minutes, zone),
    )


def _durations(frame: Frame) -> tuple[Floats, Floats]:
    """Lines and logarithms [T, 2 D + 1]; without any durations one column of nought."""
    lines = frame.took_lines * frame.observed[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = [np.log(np.maximum(part, 1e-6)) for part in (frame.took_median, frame.took_p95)]
    logs = [np.where((lines > 0) & np.isfinite(part), part, 0) for part in logs]
    together = lines.sum(1, keepdims=True)
    mean = (lines * logs[0]).sum(1, keepdims=True) / np.maximum(together, 1)
    return (
        np.concatenate([lines, lines, together], axis=1).astype(np.float32),
        np.concatenate([*logs, mean], axis=1).astype(np.float32),
    )
