"""Days as lines: rendering the harness's own days, and putting faults and benign changes into lines of anybody's days.

Lines are a table with ``timestamp`` (ns since 1970, int64), ``line``, ``template`` and ``is_error``. Injected lines get no
template: mining has to give them one, as it would have to in life.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

import numpy as np

from ml.evaluation.days import ServiceDays
from ml.evaluation.faults import Fault, Targets, more_of, new_error
from ml.evaluation.services import template_id
from ml.features import DURATION

if TYPE_CHECKING:
    import polars as pl

MINUTE_NS = 60_000_000_000
SECOND_NS = 1_000_000_000
LEAST_PERIODIC_LINES = 500
Control = Literal["deploy", "busy", "restart", "batch"]
"""Benign: new info templates to stay; half as much traffic again for an hour; a silent minute and lines of starting; a job's
burst of one template of its own."""


def render(days: ServiceDays, chance: np.random.Generator) -> pl.DataFrame:
    """Every line of the days, in order of time."""
    import polars as pl

    parts = []
    for column, spec in enumerate(days.spec.templates):
        minute = np.repeat(np.arange(len(days.counts)), days.counts[:, column])
        if len(minute) == 0:
            continue
        stamps = (days.start_minute + minute) * MINUTE_NS + chance.integers(0, MINUTE_NS, len(minute))
        before, _, after = spec.text.partition("{n}")
        number = pl.Series(chance.integers(10, 10**6, len(minute))).cast(pl.String)
        if spec.log_ms is not None:
            middle, _, end = after.partition("{ms}")
            log_ms = spec.log_ms + days.log_ms[minute, column] + chance.normal(0, spec.sigma, len(minute))
            took = pl.Series(np.exp(log_ms).round(3)).cast(pl.String)
            line = pl.select(pl.concat_str(pl.lit(before), number, pl.lit(middle), took, pl.lit(end))).to_series()
        else:
            line = pl.select(pl.concat_str(pl.lit(before), number, pl.lit(after))).to_series()
        parts.append(
            pl.DataFrame(
                {"timestamp": stamps, "line": line, "template": [template_id(column)] * len(minute)}
            ).with_columns(pl.lit(spec.is_error).alias("is_error"))
        )
    return pl.concat(parts).sort("timestamp")


def targets_in(tally: pl.DataFrame) -> Targets:
    """What faults can hit in somebody's days, read off their tally.

    Periodic is what varies less than chance would (variance below half the mean) at 1 to 30 lines a minute; traffic is
    everything else that writes at least a line in ten minutes.
    """
    import polars as pl

    minutes = max(1, int(tally["minute"].max() or 0) - int(tally["minute"].min() or 0) + 1)  # pyright: ignore[reportArgumentType]
    stats = (
        tally.group_by("template")
        .agg(
            pl.col("lines").sum().alias("lines"),
            (pl.col("lines") ** 2).sum().alias("squares"),
            pl.col("errors").sum().alias("errors"),
            pl.col("took_lines").sum().alias("took"),
        )
        .with_columns((pl.col("lines") / minutes).alias("rate"))
        .with_columns(((pl.col("squares") / minutes - pl.col("rate") ** 2) / pl.col("rate")).alias("spread"))
        .sort("template")
    )
    error = pl.col("errors") * 2 >= pl.col("lines")
    steady = pl.col("rate").is_between(1, 30) & (pl.col("spread") < 0.5) & (pl.col("lines") >= LEAST_PERIODIC_LINES)

    def names(condition: pl.Expr) -> tuple[str, ...]:
        return tuple(stats.filter(condition)["template"])

    return Targets(
        names(error & (pl.col("rate") >= 0.01)),
        names(~error & steady),
        names(~error & ~steady & (pl.col("rate") >= 0.1)),
        names((pl.col("took") * 2 >= pl.col("lines")) & (pl.col("rate") >= 0.1)),
    )


def inject(lines: pl.DataFrame, fault: Fault, start_minute: int, chance: np.random.Generator) -> pl.DataFrame:
    """The lines with one fault in them, in order of time; ``start_minute`` is that of row 0."""
    import polars as pl

    low, high = ((start_minute + row) * MINUTE_NS for row in (fault.row, fault.end))
    within = pl.col("timestamp").is_between(low, high, closed="left")
    hit = within & pl.col("template").is_in(list(fault.templates))
    others, part = lines.filter(~hit), lines.filter(hit)
    if fault.kind == "new error":
        number = int(chance.poisson(fault.size, fault.minutes).sum())
        text = new_error(fault.size, chance).text
        added = [text.replace("{n}", str(n)) for n in chance.integers(10, 10**6, number)]
        part = _spread(added, None, True, low, high, chance)
    elif fault.kind == "error surge":
        source = lines.filter(pl.col("template").is_in(list(fault.templates)))
        span = max(1.0, _minutes(lines))
        number = int(chance.poisson((fault.size - 1) * len(source) / span * fault.minutes))
        part = pl.concat([part, _resampled(source, number, low, high, chance)])
    elif fault.kind == "periodic stops":
        part = part.clear()
    elif fault.kind == "traffic drop":
        part = part.filter(pl.Series(chance.random(len(part)) < fault.size))
    elif fault.kind == "traffic surge":
        times = more_of(np.ones(len(part), np.int64), fault.size - 1, chance)
        again = part[np.repeat(np.arange(len(part)), times)]
        stamps = again["timestamp"].to_numpy() + chance.integers(0, 2 * SECOND_NS, len(again))
        again = again.with_columns(pl.Series("timestamp", np.minimum(stamps, high - 1)))
        part = pl.concat([part, again])
    elif fault.kind == "mix shift":
        all_lines = len(lines.filter(within))
        leaves = chance.random(len(part)) < min(1.0, fault.size * all_lines / max(1, len(part)))
        stamps = part["timestamp"].to_numpy()[leaves]
        source = lines.filter(pl.col("template").is_in(list(fault.towards)))
        moved = _resampled(source, len(stamps), low, high, chance)
        part = pl.concat(
            [part.filter(pl.Series(~leaves)), moved.with_columns(pl.Series("timestamp", stamps[: len(moved)]))]
        )
    else:
        slower = [_slower(line, fault.size) for line in part["line"].to_list()]
        part = part.with_columns(pl.Series("line", slower, pl.String))
    return pl.concat([others, part.select(others.columns).cast(dict(others.schema))]).sort("timestamp")  # pyright: ignore[reportArgumentType]


def control(
    lines: pl.DataFrame, kind: Control, row: int, start_minute: int, chance: np.random.Generator
) -> pl.DataFrame:
    """The lines with something benign in them, from a row on: nothing that should be found."""
    import polars as pl

    low, end = (start_minute + row) * MINUTE_NS, int(lines["timestamp"].max() or 0) + 1  # pyright: ignore[reportArgumentType]
    if kind == "busy":
        fault = Fault("traffic surge", row, 60, 1.5, tuple(lines["template"].drop_nulls().unique()))
        return inject(lines, fault, start_minute, chance)
    if kind == "restart":
        lines = lines.filter(~pl.col("timestamp").is_between(low, low + MINUTE_NS, closed="left"))
        words = ("listening on port", "loaded settings from", "joined cluster as", "connected to database")
        added = [_spread([f"INFO {word} {{n}}"] * 2, None, False, low, low + MINUTE_NS, chance) for word in words]
    elif kind == "batch":
        text = [f"INFO nightly compaction of segment {n}" for n in chance.integers(10, 10**6, 120)]
        added = [_spread(text, None, False, low, low + 5 * MINUTE_NS, chance)]
    else:
        minutes = max(1, (end - low) // MINUTE_NS)
        added = []
        for _ in range(int(chance.integers(3, 9))):
            text = new_error(1, chance).text.replace("ERROR", "INFO").replace("panicked", "started")
            number = int(chance.poisson(0.02 * len(lines) / max(1, _minutes(lines)) * minutes)) + 3
            added.append(_spread([text] * number, None, False, low, end, chance))
    parts = [part.select(lines.columns).cast(dict(lines.schema)) for part in added]  # pyright: ignore[reportArgumentType]
    return pl.concat([lines, *parts]).sort("timestamp")


def _spread(
    text: list[str], template: str | None, is_error: bool, low: int, high: int, chance: np.random.Generator
) -> pl.DataFrame:
    """Lines at random times in [low, high)."""
    import polars as pl

    text = [line.replace("{n}", str(n)) for line, n in zip(text, chance.integers(10, 10**6, len(text)), strict=True)]
    stamps = np.sort(chance.integers(low, high, len(text)))
    return pl.DataFrame({"timestamp": stamps, "line": pl.Series(text, dtype=pl.String)}).with_columns(
        pl.lit(template, pl.String).alias("template"), pl.lit(is_error).alias("is_error")
    )


def _resampled(source: pl.DataFrame, number: int, low: int, high: int, chance: np.random.Generator) -> pl.DataFrame:
    """``number`` lines drawn out of a template's own, at random times in [low, high)."""
    import polars as pl

    if len(source) == 0:
        return source
    drawn = source[chance.integers(0, len(source), number)]
    return drawn.with_columns(pl.Series("timestamp", chance.integers(low, high, number), pl.Int64))


def _minutes(lines: pl.DataFrame) -> float:
    stamps = lines["timestamp"].to_numpy()
    return float(stamps.max() - stamps.min()) / MINUTE_NS if len(stamps) else 0.0


def _slower(line: str, factor: float) -> str:
    """The first duration in a line times ``factor``."""
    match = re.search(DURATION, line)
    if match is None:
        return line
    at = 1 if match.group(1) else 4
    number = float(match.group(at)) * factor
    return line[: match.start(at)] + f"{number:.3f}" + line[match.end(at) :]
