"""A tenant's lines of a minute out of Loki, with few queries, and how many there are: what the scorer reads.

All services come by one selector, page by page, so neither the number of services nor the size of a minute shows in the
number of queries or in memory. Findings themselves are left out.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import orjson

from ml.logql import quoted
from ml.template_days import BAD
from onecollector_resources.findings.records import FINDINGS_SERVICE
from onecollector_resources.loki.access import LokiAccess
from onecollector_resources.loki.answers import Samples
from onecollector_resources.loki.batch import FOREIGN_PAGE_BYTES, BatchQueryExecutor
from onecollector_resources.loki.columns import joined
from onecollector_resources.loki.effort import ReadFailed
from onecollector_resources.loki.faults import LokiError
from onecollector_resources.loki.lines import LineBlock, ordered
from onecollector_resources.loki.querier import LokiQuerierClient

if TYPE_CHECKING:
    import polars as pl

MINUTE_NS = 60 * 10**9
BATCH_ROWS, BATCH_BYTES = 200_000, 32 << 20
"""Lines, or bytes of lines, that are handed over at a time: a line may have a megabyte."""
PATIENCE_S = 20.0
"""A read that fails for longer is given up: the loop tries again, and says so meanwhile."""
PARTS = ("[0-9A-Z]", "[a-c]", "[d-h]", "[i-o]", "[p-r]", "[s-z]", "[^0-9A-Za-z]")
"""How services' names begin: some Lokis give no more than 500 series at once."""
NAMED = 100
"""Services that a selector names at most."""


class ReadTrouble(RuntimeError):
    """Loki did not give all lines; nothing of the minute counts. ``away``: it may be over at the next try."""

    def __init__(self, message: str, *, away: bool = True) -> None:
        super().__init__(message)
        self.away = away


class LineReader(Protocol):
    """Every method raises ReadTrouble. Minutes are since 1970, ranges half open."""

    def counts(self, first: int, end: int) -> Mapping[tuple[str, int], int]:
        """Lines of each service and minute; a hint: what is there twice may count twice."""
        ...

    def lines(
        self, minute: int, only: Sequence[str] = (), without: Sequence[str] = (), most: int | None = None
    ) -> Iterator[pl.DataFrame]:
        """Every line of a minute, each once: ``timestamp`` (ns), ``line``, ``service``, ``is_error``.

        Of the services ``only``, or of all but ``without``; about the first ``most``.
        """
        ...

    def examples(self, query: str, first: int, end: int, most: int) -> list[str]:
        """The newest lines of a query."""
        ...


class LokiLines:
    """A LineReader on a tenant's Loki. ``ours``: one that may be asked for large pages."""

    def __init__(self, access: LokiAccess, *, ours: bool) -> None:
        self._executor = BatchQueryExecutor(
            access, page_bytes=None if ours else FOREIGN_PAGE_BYTES, patience_s=PATIENCE_S
        )
        self._querier = LokiQuerierClient(access)
        self._in_parts = False

    def close(self) -> None:
        """Close the connections."""
        self._executor.close()
        self._querier.close()

    def counts(self, first: int, end: int) -> Mapping[tuple[str, int], int]:
        if not self._in_parts:
            try:
                return self._counts(first, end, selector())
            except ReadTrouble as error:
                if error.away or "series" not in str(error):
                    raise
                self._in_parts = True
        out: dict[tuple[str, int], int] = {}
        for part in PARTS:
            out.update(self._counts(first, end, selector(beginning=part)))
        return out

    def _counts(self, first: int, end: int, chosen: str) -> dict[tuple[str, int], int]:
        query = f"sum by (service_name) (count_over_time({chosen}[1m]))"
        # A range at T covers (T - w, T]: a nanosecond before the whole minute it is the minute itself.
        start_ns, end_ns = (first + 1) * MINUTE_NS - 1, end * MINUTE_NS - 1
        try:
            answer = self._querier.query_range(query, start_ns, end_ns, step_s=60)
        except LokiError as error:
            raise ReadTrouble(str(error), away=error.away) from error
        assert isinstance(answer, Samples)
        out: dict[tuple[str, int], int] = {}
        for series in answer.series:
            service = series.labels.get("service_name", "")
            for at, lines in series.points:
                minute = round(at / 60) - 1
                if first <= minute < end:
                    out[service, minute] = out.get((service, minute), 0) + int(lines)
        return out

    def lines(
        self, minute: int, only: Sequence[str] = (), without: Sequence[str] = (), most: int | None = None
    ) -> Iterator[pl.DataFrame]:
        held: list[LineBlock] = []
        rows = size = read = 0
        try:
            for block in self._executor.read(selector(only, without), minute * MINUTE_NS, (minute + 1) * MINUTE_NS):
                held.append(block)
                rows += len(block)
                size += block.line.nbytes
                read += len(block)
                if rows >= BATCH_ROWS or size >= BATCH_BYTES:
                    yield table_of(joined(held))
                    held, rows, size = [], 0, 0
                if most is not None and read >= most:
                    break
            if held:
                yield table_of(joined(held))
        except ReadFailed as error:
            raise ReadTrouble(str(error)) from error

    def examples(self, query: str, first: int, end: int, most: int) -> list[str]:
        try:
            found = self._querier.entries(query, first * MINUTE_NS, end * MINUTE_NS, most, "backward")
        except LokiError as error:
            raise ReadTrouble(str(error), away=error.away) from error
        return [entry.line for entry in found]


def selector(only: Sequence[str] = (), without: Sequence[str] = (), beginning: str = "") -> str:
    """All services but findings (those ``beginning`` with a class of characters), or the named ones.

    Beyond a hundred names all are selected.
    """
    if only and len(only) <= NAMED:
        return "{service_name=~" + quoted("|".join(map(re.escape, only))) + "}"
    out = "|".join(map(re.escape, [FINDINGS_SERVICE, *without[:NAMED]]))
    return (
        "{service_name=~" + quoted(f"{beginning}.{'*' if beginning else '+'}") + ", service_name!~" + quoted(out) + "}"
    )


def table_of(block: LineBlock) -> pl.DataFrame:
    """A block's lines, each once, as the scorer counts them."""
    import polars as pl

    table = pl.DataFrame(pl.from_arrow(ordered(block).table.select(["timestamp", "line", "severity", "labels"])))
    service_of = {text: orjson.loads(text).get("service_name", "") for text in set(block.streams)}
    return table.select(
        pl.col("timestamp").cast(pl.Int64),
        pl.col("line"),
        pl.col("labels").cast(pl.String).replace_strict(service_of, return_dtype=pl.String).alias("service"),
        pl.col("severity").cast(pl.String).is_in(BAD).fill_null(False).alias("is_error"),
    )


def closed_minute(grace_s: float, now: float | None = None) -> int:
    """The newest minute whose end was ``grace_s`` ago or longer."""
    return int(((time.time() if now is None else now) - grace_s) // 60) - 1
