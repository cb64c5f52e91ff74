"""Lines of a minute that no two of are alike, made as they are asked for: ten million of them fit nowhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from onecollector.scorer.reader import BATCH_ROWS, MINUTE_NS
from tests.unit.scorer_world import FakeLoki

PAGE = 10_000
MOST_WORDS = 24


def distinct(first: int, lines: int) -> pl.Series:
    """Lines ``first`` on: words that nobody knows, in one to twenty-three words, so that most of them can be no template."""
    chance = np.random.default_rng(first)
    words = chance.integers(97, 123, (MOST_WORDS, lines, 6), dtype=np.uint8)
    columns = [pl.Series(str(at), column.view("S6").ravel().astype(str)) for at, column in enumerate(words)]
    table = pl.DataFrame(columns).with_columns(words=pl.Series(chance.integers(1, MOST_WORDS, lines)))
    listed = table.select(pl.concat_list(pl.exclude("words")).list.head(pl.col("words")).list.join(" "))
    return listed.to_series()


@dataclass
class FloodedLoki(FakeLoki):
    """In ``minute`` a service writes ``flood`` different lines beside its usual ones. ``handed_out``: lines of it."""

    service: str = ""
    minute: int = 0
    flood: int = 0
    handed_out: int = 0
    page: int = BATCH_ROWS

    def counts(self, first: int, end: int) -> Mapping[tuple[str, int], int]:
        found = dict(super().counts(first, end))
        if first <= self.minute < end:
            found[self.service, self.minute] = found.get((self.service, self.minute), 0) + self.flood
        return found

    def lines(
        self, minute: int, only: Sequence[str] = (), without: Sequence[str] = (), most: int | None = None
    ) -> Iterator[pl.DataFrame]:
        yield from super().lines(minute, only, without, most)
        if minute != self.minute or (self.service not in only if only else self.service in without):
            return
        given = sum(len(self.held(service, minute)) for service in only)
        for first in range(0, self.flood, self.page):
            if most is not None and given >= most:
                return
            rows = min(self.page, self.flood - first)
            given += rows
            self.handed_out += rows
            yield pl.DataFrame(
                {
                    "timestamp": np.full(rows, minute * MINUTE_NS + first),
                    "line": pl.concat(
                        [distinct(at, min(PAGE, first + rows - at)) for at in range(first, first + rows, PAGE)]
                    ),
                    "service": [self.service] * rows,
                    "is_error": [False] * rows,
                }
            )
