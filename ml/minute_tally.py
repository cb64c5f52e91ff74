"""One minute of all services counted by template: a batch of lines at a time, so that a minute of any size fits.

Lines are mined and measured exactly as the days that the model learned from were. Of a batch only numbers stay; the texts
go. A service that the model does not know is counted and not mined, and what was not read of a flood is counted as
overflow, so that totals are right whatever happens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ml.features import TALLY, measured, summed
from ml.templates import OVERFLOW, TemplateMiner

if TYPE_CHECKING:
    import polars as pl

MOST_ROWS = 2_000_000
"""Lines of a minute whose durations are kept, 40 bytes each; the rest of a flood are counted without."""


@dataclass(frozen=True, slots=True)
class MinuteTally:
    """A minute: ``table`` has the columns of a tally and ``service``, by service and template.

    ``lines`` are of every service that wrote any, also of those without rows in ``table``.
    """

    minute: int
    table: pl.DataFrame
    lines: Mapping[str, int]

    @property
    def overflow(self) -> int:
        """Lines without a template of their own."""
        import polars as pl

        return int(self.table.filter(pl.col("template") == OVERFLOW)["lines"].sum())

    def with_services(self, other: MinuteTally, services: Set[str]) -> MinuteTally:
        """These services as ``other`` has them, all others as they are."""
        import polars as pl

        mine = pl.col("service").is_in(sorted(services))
        table = pl.concat([self.table.filter(~mine), other.table.filter(mine)]).sort("service", "template")
        lines = {service: n for service, n in self.lines.items() if service not in services}
        return MinuteTally(
            self.minute, table, lines | {service: n for service, n in other.lines.items() if service in services}
        )


class MinuteCounter:
    """Counts ``minute``. ``services`` are those that the model knows; ``miner`` learns meanwhile."""

    def __init__(self, miner: TemplateMiner, services: Set[str], minute: int) -> None:
        self._miner, self._services, self._minute = miner, services, minute
        self._rows: list[pl.DataFrame] = []
        self._sums: list[pl.DataFrame] = []
        self._lines: Counter[str] = Counter()
        self._learned: Counter[str] = Counter()
        self._held = 0

    def add(self, lines: pl.DataFrame) -> None:
        """Lines: ``timestamp`` (ns), ``line``, ``service``, ``is_error``; those of another minute are left out."""
        import polars as pl

        lines = lines.filter(pl.col("timestamp") // 60_000_000_000 == self._minute)
        counted = lines.group_by("service").len()
        self._lines.update(dict(zip(counted["service"].to_list(), counted["len"].to_list(), strict=True)))
        lines = lines.filter(pl.col("service").is_in(sorted(self._services)))
        if lines.height == 0:
            return
        mined = self._miner.mine(lines["line"], lines["service"], learned=self._learned)
        names = pl.Series("template", [OVERFLOW, *(template.id for _, template in mined.templates)], pl.String)
        rows = measured(lines.with_columns(names.gather(mined.index + 1)))
        self._held += rows.height
        if self._held <= MOST_ROWS:
            self._rows.append(rows)
        else:
            self._sums.append(summed(rows.with_columns(pl.lit(None, pl.Float64).alias("took")), *_BY))

    def unread(self, service: str, lines: int) -> None:
        """So many lines of a service were not read."""
        import polars as pl

        if lines <= 0:
            return
        self._lines[service] += lines
        if service in self._services:
            row = {"service": service, "template": OVERFLOW, "minute": self._minute, "lines": lines}
            self._sums.append(
                pl.DataFrame([row], schema=schema()).with_columns(pl.exclude("took_median", "took_p95").fill_null(0))
            )

    def done(self) -> MinuteTally:
        """The minute as counted so far."""
        import polars as pl

        parts = [summed(pl.concat(self._rows), *_BY)] if self._rows else []
        parts += self._sums
        table = pl.concat([part.select(_columns()) for part in parts]) if parts else empty()
        if self._sums:
            sums = [pl.col(name).sum() for name in ("lines", "errors", "bytes", "took_lines")]
            kept = [pl.col(name).drop_nulls().first() for name in ("took_median", "took_p95")]
            table = table.group_by(*_BY).agg(*sums, *kept).select(_columns()).sort(*_BY)
        return MinuteTally(self._minute, table, dict(self._lines))


_BY = ("service", "template", "minute")


def schema() -> dict[str, pl.DataType]:
    """Columns of a minute's table."""
    import polars as pl

    kinds: dict[str, pl.DataType] = dict.fromkeys(TALLY, pl.Int64())
    kinds |= {"template": pl.String(), "took_median": pl.Float64(), "took_p95": pl.Float64()}
    return {"service": pl.String(), **kinds}


def empty() -> pl.DataFrame:
    """The table of a minute without lines."""
    import polars as pl

    return pl.DataFrame(schema=schema())


def _columns() -> list[pl.Expr]:
    import polars as pl

    return [pl.col(name).cast(kind) for name, kind in schema().items()]
