"""From counts per template to one service's minutes: the matrices that every signal is computed on.

The table that comes in has a row per minute and template (``TALLY``); what goes out is dense, bounded to the busiest
templates plus one column for the rest, and knows for each minute which lines are *fresh*: of a template never seen before
or silent for a day. Freshness ends by itself (``drift.py``), so that a deploy is news for half an hour and not for ever.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ml.drift import FEW, MOST_STRANGERS, OVERFLOW, Named, Sightings, bounded, coded, freshness
from ml.quarters import Quarters

if TYPE_CHECKING:
    import polars as pl

LIVE_TEMPLATES = 300
"""Columns of a service at most; facts of all others are summed in ``OTHER``."""
TIMED_TEMPLATES = 20
"""Templates whose durations are followed."""
OTHER = "other"

TALLY: Mapping[str, str] = {
    "minute": "minutes since 1970 (int64)",
    "template": "template id",
    "lines": "lines in that minute",
    "errors": "of those, of error level",
    "bytes": "of those lines",
    "took_lines": "of those, with a duration in them",
    "took_median": "median of the durations, milliseconds; null without any",
    "took_p95": "95th percentile of the durations, milliseconds; null without any",
}
"""Columns of a tally, the input of ``frame_of``; all after ``errors`` may be missing."""

_UNIT = "ns|us|µs|ms|s|sec|secs|seconds|milliseconds"
DURATION = (
    rf"(?i)\b(\d+(?:\.\d+)?)\s?({_UNIT})\b"
    r"|(?:duration|elapsed|latency|took|time|rt)(?:_?(ms|s|us|ns))?[\"']?\s?[=:]\s?[\"']?"
    rf"(\d+(?:\.\d+)?)\s?({_UNIT})?(?:[^\w.]|$)"
)
"""A number with a unit, or after a word that says that it is a duration (milliseconds unless the word has a unit)."""
_MS = {"ns": 1e-6, "us": 1e-3, "µs": 1e-3, "s": 1e3, "sec": 1e3, "secs": 1e3, "seconds": 1e3}


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The columns of a service's matrices: templates by falling number of lines, those of error level, those with durations.

    ``rest`` are known too and share the last column, up to ``MOST_STRANGERS``; a template that is in neither is new to the
    model.
    """

    templates: tuple[str, ...]
    error_templates: frozenset[str]
    timed: tuple[str, ...]
    rest: frozenset[str] = frozenset()

    @property
    def known(self) -> list[str]:
        """Ids of all lines that are not of a template that the model has never seen."""
        return [*self.templates, *self.rest, OTHER, OVERFLOW]


@dataclass(frozen=True, slots=True)
class Frame:
    """Consecutive minutes of one service; row ``i`` is minute ``start + i``.

    ``counts[T, K]`` belong to ``templates`` with ``OTHER`` last; lines of templates that the model does not know are in
    ``unknown`` and not in ``counts``. ``errors``, ``fresh_errors`` and ``fresh_infos`` are lines;
    ``fresh_kinds`` distinct fresh templates. ``took_lines``, ``took_median`` and ``took_p95`` [T, D] belong to ``timed``, in
    milliseconds, NaN without any. ``observed`` is False where nobody knows what was written (a gap in collection).
    ``outside`` counts rows of the tally that lay outside the asked range: a clock that jumped. ``earlier`` is the day before
    ``start``, as far as it is known.
    """

    service: str
    start: int
    templates: tuple[str, ...]
    is_error: NDArray[np.bool_]
    timed: tuple[str, ...]
    counts: NDArray[np.float32]
    errors: NDArray[np.float32]
    bytes: NDArray[np.float32]
    unknown: NDArray[np.float32]
    fresh_errors: NDArray[np.float32]
    fresh_infos: NDArray[np.float32]
    fresh_kinds: NDArray[np.float32]
    distinct: NDArray[np.float32]
    overflow: NDArray[np.float32]
    took_lines: NDArray[np.float32]
    took_median: NDArray[np.float32]
    took_p95: NDArray[np.float32]
    observed: NDArray[np.bool_]
    outside: int = 0
    sightings: Sightings = field(default_factory=Sightings)
    earlier: Quarters = field(default_factory=Quarters)

    @property
    def minutes(self) -> NDArray[np.int64]:
        """Minutes since 1970."""
        return self.start + np.arange(len(self.counts), dtype=np.int64)

    def rows(self, first: int, end: int) -> Frame:
        """The minutes of the rows [first, end)."""
        tables = {name: getattr(self, name)[first:end] for name in _TABLES}
        earlier = self.quarters_before(self.start + first)
        return replace(self, start=self.start + first, earlier=earlier, **tables)

    def quarters_before(self, minute: int) -> Quarters:
        """The day before a minute, as far as it is known here."""
        part = slice(0, max(0, minute - self.start))
        lines = self.counts[part].sum(1) + self.unknown[part]
        return self.earlier.followed_by(self.start, lines, self.unknown[part], self.observed[part])


_TABLES = tuple(
    name
    for name in Frame.__dataclass_fields__
    if name not in ("service", "start", "templates", "is_error", "timed", "outside", "sightings", "earlier")
)


@dataclass(frozen=True, slots=True)
class Minute:
    """A tally as arrays [N], one entry per minute and template, in any order: see ``TALLY`` for what each is."""

    minute: NDArray[np.int64]
    templates: Sequence[str]
    lines: NDArray[np.int64]
    errors: NDArray[np.int64]
    bytes: NDArray[np.int64]
    took_lines: NDArray[np.int64]
    took_median: NDArray[np.float64]
    took_p95: NDArray[np.float64]

    @staticmethod
    def of_table(table: pl.DataFrame) -> Minute:
        """Out of a tally; missing columns are nought."""
        table = _whole(table)
        columns = {name: table[name].to_numpy() for name in TALLY if name != "template"}
        return Minute(columns.pop("minute").astype(np.int64), _named(table["template"]), **columns)


def tally(lines: pl.DataFrame) -> pl.DataFrame:
    """Per minute and template, from lines: ``timestamp`` (ns, int64 or datetime), ``line``, ``template``, ``is_error``.

    The order of the lines does not matter. Durations are looked for in each line: the first one counts.
    """
    return summed(measured(lines), "minute", "template")


def measured(lines: pl.DataFrame) -> pl.DataFrame:
    """Of each line what is summed: ``minute``, ``bytes``, ``took`` (ms); all columns but time and text stay."""
    import polars as pl

    stamp = (
        pl.col("timestamp").cast(pl.Datetime("ns")).cast(pl.Int64)
        if lines["timestamp"].dtype != pl.Int64
        else pl.col("timestamp")
    )
    found = pl.col("line").str.extract_groups(DURATION)
    unit = (
        pl.coalesce(found.struct[1], found.struct[4], found.struct[2])
        .str.to_lowercase()
        .replace_strict(_MS, default=1.0, return_dtype=pl.Float64)
    )
    took = pl.coalesce(found.struct[0], found.struct[3]).cast(pl.Float64, strict=False) * unit
    return (
        lines.lazy()
        .select(
            (stamp // 60_000_000_000).alias("minute"),
            pl.exclude("timestamp", "line"),
            pl.col("line").str.len_bytes().alias("bytes"),
            took.alias("took"),
        )
        .collect()
    )


def summed(lines: pl.DataFrame, *by: str) -> pl.DataFrame:
    """The sums of measured lines, sorted by the columns that they are summed by."""
    import polars as pl

    return (
        lines.lazy()
        .group_by(*by)
        .agg(
            pl.len().cast(pl.Int64).alias("lines"),
            pl.col("is_error").sum().cast(pl.Int64).alias("errors"),
            pl.col("bytes").sum().cast(pl.Int64),
            pl.col("took").count().cast(pl.Int64).alias("took_lines"),
            pl.col("took").median().alias("took_median"),
            pl.col("took").quantile(0.95, "linear").alias("took_p95"),
        )
        .sort(*by)
        .collect()
    )


def choose_vocabulary(table: pl.DataFrame, limit: int = LIVE_TEMPLATES) -> Vocabulary:
    """The busiest ``limit`` templates of a tally; errors come first where they are among the rare ones, for they matter most."""
    import polars as pl

    table = _whole(table)
    totals = (
        table.group_by("template")
        .agg(pl.col("lines").sum(), pl.col("errors").sum(), pl.col("took_lines").sum())
        .filter(~pl.col("template").is_in([OVERFLOW, OTHER]))
        .with_columns((pl.col("errors") * 2 >= pl.col("lines")).alias("is_error"))
        .sort(["lines", "template"], descending=[True, False])
    )
    kept, others = totals, totals.clear()
    if len(totals) > limit:
        half = limit // 2
        first = totals.head(limit - half)
        rest = totals.tail(len(totals) - len(first)).sort("is_error", descending=True, maintain_order=True)
        kept, others = pl.concat([first, rest.head(half)]), rest.slice(half, MOST_STRANGERS)
    timed = totals.filter(pl.col("took_lines") * 2 >= pl.col("lines")).head(TIMED_TEMPLATES)
    return Vocabulary(
        tuple(kept["template"]),
        frozenset(pl.concat([kept, others]).filter("is_error")["template"]),
        tuple(timed["template"]),
        frozenset(others["template"]),
    )


def frame_of(
    service: str,
    table: pl.DataFrame,
    vocabulary: Vocabulary,
    start: int,
    end: int,
    *,
    sightings: Sightings | None = None,
    unobserved: Sequence[tuple[int, int]] = (),
    earlier: Quarters | None = None,
) -> Frame:
    """The minutes [start, end) of a service out of a tally.

    Rows of one minute and template are added up (late lines, duplicate minutes), their order does not matter, rows outside
    the range are counted and left out. ``sightings`` is what was seen before ``start``; without it every template of the first
    day counts as known. ``unobserved`` are half-open ranges of minutes. ``earlier`` is the day before ``start``; without it
    nobody knows of that day.
    """
    table = _whole(table)
    inside = within(table, start, end)
    made = _frame(service, Minute.of_table(inside), vocabulary, start, end - start, sightings)
    observed = made.observed
    for first, last in unobserved:
        observed[max(0, first - start) : max(0, last - start)] = False
    return replace(made, outside=len(table) - len(inside), earlier=earlier or Quarters())


def within(table: pl.DataFrame, start: int, end: int) -> pl.DataFrame:
    """Rows of the minutes [start, end); the table itself where all are."""
    import polars as pl

    minutes = table["minute"].to_numpy()
    if len(minutes) == 0 or (minutes.min() >= start and minutes.max() < end):
        return table
    return table.filter(pl.col("minute").is_between(start, end, closed="left"))


def advanced(frame: Frame, minute: Minute, vocabulary: Vocabulary, *, keep: int | None = None) -> Frame:
    """The frame with the next minute at its end and as many rows as before (or ``keep``): what a resident scorer holds.

    ``minute`` holds the counts of that one minute; counts of any other minute raise ValueError.
    """
    row = frame.start + len(frame.counts)
    if (minute.minute != row).any():
        raise ValueError(f"{frame.service}: counts of minute {row} are expected, found {np.unique(minute.minute)}")
    new = _frame(frame.service, minute, vocabulary, row, 1, frame.sightings)
    first = max(0, len(frame.counts) + 1 - (keep or len(frame.counts)))
    tables = {name: np.concatenate([getattr(frame, name)[first:], getattr(new, name)]) for name in _TABLES}
    earlier = frame.quarters_before(frame.start + first)
    return replace(new, start=frame.start + first, earlier=earlier, **tables)


def _frame(
    service: str, tally: Minute, vocabulary: Vocabulary, start: int, rows: int, sightings: Sightings | None
) -> Frame:
    minute, names, lines = tally.minute - start, tally.templates, tally.lines.astype(np.float32)
    kinds, code = coded(names)
    column_of, other = _places(vocabulary.templates), len(vocabulary.templates)
    columns = np.array([column_of.get(kind, other) for kind in kinds], np.int64)
    strange = [columns[n] == other and kind not in vocabulary.rest for n, kind in enumerate(kinds)]
    nameless = np.array([kind in (OTHER, OVERFLOW) for kind in kinds], np.bool_)
    column, unknown = columns[code], (np.array(strange, np.bool_) & ~nameless)[code]
    counts = np.zeros((rows, other + 1), np.float32)
    np.add.at(counts.reshape(-1), (minute * (other + 1) + column)[~unknown], lines[~unknown])
    fresh, seen = freshness(tally.minute, names, start, sightings)
    seen = bounded(seen, start + rows - 1, vocabulary.templates, vocabulary.rest)
    is_error = tally.errors * 2 >= np.maximum(lines, 1)

    def total(weights: NDArray[Any]) -> NDArray[np.float32]:
        return np.bincount(minute, weights, rows).astype(np.float32)

    took = _durations(tally, kinds, code, vocabulary.timed, minute, rows)
    return Frame(
        service,
        start,
        (*vocabulary.templates, OTHER),
        _error_columns(vocabulary.templates, vocabulary.error_templates),
        vocabulary.timed,
        counts,
        total(tally.errors),
        total(tally.bytes),
        total(lines * unknown),
        total(lines * (fresh & is_error)),
        total(lines * (fresh & ~is_error)),
        total(fresh.astype(np.float32)),
        total(np.ones(len(names))),
        total(lines * np.array([kind == OVERFLOW for kind in kinds], np.bool_)[code]),
        *took,
        np.ones(rows, np.bool_),
        0,
        seen,
    )


def _durations(
    tally: Minute,
    kinds: Sequence[str],
    code: NDArray[np.int64],
    timed: tuple[str, ...],
    minute: NDArray[np.int64],
    rows: int,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Lines, medians and percentiles [T, D]; of several rows of one minute and template the last counts, lines are added."""
    place = _places(timed)
    column = np.array([place.get(kind, -1) for kind in kinds], np.int64)[code]
    here = (column >= 0) & (tally.took_lines > 0)
    at = (minute[here], column[here])
    lines = np.zeros((rows, len(timed)), np.float32)
    np.add.at(lines.reshape(-1), at[0] * len(timed) + at[1], tally.took_lines[here].astype(np.float32))
    median, high = np.full(lines.shape, np.nan, np.float32), np.full(lines.shape, np.nan, np.float32)
    median[at], high[at] = tally.took_median[here], tally.took_p95[here]
    return lines, median, high


def _named(names: pl.Series) -> Sequence[str]:
    """Names of a few rows as they are, of many as numbers: as text they would be most of the work."""
    import polars as pl

    if len(names) <= FEW:
        return names.to_list()
    encoded: Any = names.to_arrow()
    if names.dtype == pl.String:
        encoded = encoded.dictionary_encode()
    return Named(encoded.dictionary.to_pylist(), encoded.indices.to_numpy().astype(np.int64))


@lru_cache(4096)
def _places(templates: tuple[str, ...]) -> Mapping[str, int]:
    return {name: number for number, name in enumerate(templates)}


@lru_cache(4096)
def _error_columns(templates: tuple[str, ...], errors: frozenset[str]) -> NDArray[np.bool_]:
    return np.array([name in errors for name in templates] + [False])


def _whole(table: pl.DataFrame) -> pl.DataFrame:
    """With every column of a tally; those that are missing are nought or null."""
    import polars as pl

    gone = {"errors": 0, "bytes": 0, "took_lines": 0, "took_median": None, "took_p95": None}
    return table.with_columns(
        pl.lit(value, pl.Float64 if value is None else pl.Int64).alias(name)
        for name, value in gone.items()
        if name not in table.columns
    )
