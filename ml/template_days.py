"""A day's lines counted by template, and what is new or gone against another day.

Lines come service by service in time order, as exports have them. Ids are settled at the end of the day: a template
that others swallowed in the afternoon counts its morning for what it became.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ml.template_store import Seen, StoredTemplates
from ml.templates import OVERFLOW, Tally, TemplateMiner

if TYPE_CHECKING:
    import polars as pl

HOUR_NS = 3_600 * 10**9
MINUTE_NS = 60 * 10**9

COUNTED = 20_000
"""Templates of a service that a day counts each; the lines of more are overflow. Only a flood has so many."""

BATCH = 200_000
"""Lines that are mined at a time."""

EXAMPLES = 3
EXAMPLE_CHARS = 500

BAD = ("error", "fatal", "critical", "alert", "emergency", "panic")

COLUMNS: tuple[str, ...] = ("service", "id", "template", "lines", "errors", "first_ns", "last_ns", "hours", "examples")
"""Of a day's counts: ``errors`` are lines of an error's severity, ``hours`` lines by hour of the day (24, UTC)."""


@dataclass(slots=True)
class _Count:
    text: str = ""
    lines: int = 0
    errors: int = 0
    first_ns: int = 1 << 62
    last_ns: int = -(1 << 62)
    hours: list[int] = field(default_factory=lambda: [0] * 24)
    examples: list[str] = field(default_factory=list)

    def add(self, other: _Count) -> None:
        self.text = other.text or self.text
        self.lines += other.lines
        self.errors += other.errors
        self.first_ns, self.last_ns = min(self.first_ns, other.first_ns), max(self.last_ns, other.last_ns)
        self.hours = [a + b for a, b in zip(self.hours, other.hours, strict=True)]
        self.examples = [*dict.fromkeys([*self.examples, *other.examples])][:EXAMPLES]


@dataclass(slots=True)
class DayCounter:
    """Counts one day, from ``start_ns`` (midnight UTC) on. ``miner`` learns meanwhile."""

    miner: TemplateMiner
    start_ns: int
    tally: Tally = field(default_factory=Tally)
    _counts: dict[tuple[str, str], _Count] = field(default_factory=dict)
    _sizes: Counter[str] = field(default_factory=Counter)

    def add(self, service: str, lines: pl.DataFrame) -> None:
        """Lines of one service: columns ``timestamp`` (ns), ``line`` and ``severity``."""
        import polars as pl

        for begin in range(0, lines.height, BATCH):
            batch = lines.slice(begin, BATCH)
            times = batch["timestamp"].cast(pl.Int64)
            first, last = times.min(), times.max()
            minutes = (last - first) / MINUTE_NS if isinstance(first, int) and isinstance(last, int) else 0.0
            mined = self.miner.mine(batch["line"], service, minutes=minutes)
            self.tally += mined.tally
            counted = (
                pl.DataFrame(
                    {
                        "at": mined.index,
                        "time": times,
                        "hour": ((times - self.start_ns) // HOUR_NS).clip(0, 23),
                        "error": batch["severity"].cast(pl.String).str.to_lowercase().is_in(BAD).fill_null(False),
                        "line": batch["line"],
                    }
                )
                .group_by("at", "hour")
                .agg(
                    pl.len().alias("lines"),
                    pl.col("error").sum(),
                    pl.col("time").min().alias("first"),
                    pl.col("time").max().alias("last"),
                    pl.col("line").head(EXAMPLES).str.slice(0, EXAMPLE_CHARS).alias("lines_seen"),
                )
                .sort("at", "hour")
            )
            for at, hour, number, errors, begun, ended, seen in counted.iter_rows():
                hours = [number if h == hour else 0 for h in range(24)]
                template = mined.templates[at][1] if at >= 0 else None
                identity, text = (template.id, template.text) if template else (OVERFLOW, "")
                self._count(service, identity).add(_Count(text, number, errors, begun, ended, hours, seen))

    def _count(self, service: str, identity: str) -> _Count:
        key = (service, identity)
        if key not in self._counts:
            if self._sizes[service] >= COUNTED:
                key = (service, OVERFLOW)
            self._sizes[service] += key not in self._counts
        return self._counts.setdefault(key, _Count())

    def frame(self) -> pl.DataFrame:
        """The day so far, with ``COLUMNS``, by service and lines."""
        settled: dict[tuple[str, str], _Count] = {}
        for (service, identity), count in self._counts.items():
            settled.setdefault((service, self.miner.service(service).current(identity)), _Count()).add(count)
        texts = {
            (service, template.id): template.text
            for service, known in self.miner.services.items()
            for template in known.templates.values()
        }
        rows = [
            (
                *(*key, texts.get(key, count.text), count.lines, count.errors),
                *(count.first_ns, count.last_ns, count.hours, count.examples),
            )
            for key, count in settled.items()
        ]
        return counts_frame(rows).sort(["service", "lines", "id"], descending=[False, True, False])

    def note_seen(self, state: StoredTemplates) -> None:
        """Put into ``state`` when each template was seen. Counting a day twice changes nothing."""
        for service, identity, first, last in self.frame().select("service", "id", "first_ns", "last_ns").iter_rows():
            if identity != OVERFLOW:
                before = state.seen.get((service, identity))
                state.seen[service, identity] = before.with_lines(first, last) if before else Seen(first, last)


def counts_frame(rows: Iterable[Any] = ()) -> pl.DataFrame:
    """A day's counts from rows in the order of ``COLUMNS``."""
    import polars as pl

    kinds = (pl.String, pl.String, pl.String, pl.Int64, pl.Int64, pl.Int64, pl.Int64)
    schema = dict(zip(COLUMNS, (*kinds, pl.List(pl.Int64), pl.List(pl.String)), strict=True))
    return pl.DataFrame(list(rows), schema=schema, orient="row")


def difference(before: pl.DataFrame, after: pl.DataFrame, known: StoredTemplates | None = None) -> pl.DataFrame:
    """Templates of two days: columns service, id, template, before, after (lines), and ``what``: new, gone or both.

    ``known`` resolves ids of the earlier day that have become part of others since.
    """
    import polars as pl

    def side(frame: pl.DataFrame, name: str) -> pl.DataFrame:
        frame = frame.filter(pl.col("id") != OVERFLOW)
        if known is not None:
            pairs = zip(frame["service"].to_list(), frame["id"].to_list(), strict=True)
            frame = frame.with_columns(id=pl.Series([known.current(*pair) for pair in pairs], dtype=pl.String))
        return frame.group_by("service", "id").agg(
            pl.col("template").sort_by("lines").last(), pl.col("lines").sum().alias(name)
        )

    both = side(before, "before").join(side(after, "after"), on=["service", "id"], how="full", coalesce=True)
    return (
        both.with_columns(
            template=pl.coalesce("template_right", "template"),
            before=pl.col("before").fill_null(0),
            after=pl.col("after").fill_null(0),
        )
        .with_columns(
            what=pl.when(pl.col("before") == 0)
            .then(pl.lit("new"))
            .when(pl.col("after") == 0)
            .then(pl.lit("gone"))
            .otherwise(pl.lit("both"))
        )
        .select("service", "id", "template", "before", "after", "what")
        .sort("service", "what", "after", "before", "id", descending=[False, True, True, True, False])
    )
