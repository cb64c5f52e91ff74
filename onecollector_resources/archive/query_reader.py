"""A day's lines by queries to a Loki: every stream once, whatever labels streams have.

A query needs a matcher that an empty value does not satisfy, and no label is on every stream. So the label names are
taken one after the other: streams that have the first, those that have the second and not the first, and so on; together
they are all streams, each once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import date
from typing import TYPE_CHECKING

from onecollector_resources.archive.keys import day_ms
from onecollector_resources.loki.access import LokiAccess
from onecollector_resources.loki.batch import FOREIGN_PAGE_BYTES, BatchQueryExecutor
from onecollector_resources.loki.lines import ordered
from onecollector_resources.loki.querier import LokiQuerierClient

if TYPE_CHECKING:
    import pyarrow as pa


def selectors(labels: Sequence[str]) -> list[str]:
    """Selectors that match each stream with at least one of the labels exactly once."""
    out, without = [], ""
    for name in labels:
        out.append(f'{{{without}{name}=~".+"}}')
        without += f'{name}="", '
    return out


class QueriedDay:
    """Reads days from a Loki. ``access`` answers how it is reached as a tenant; ``page_bytes`` as BatchQueryExecutor has it.

    What Loki hides is not read: lines that were deleted, and late ones that are not flushed yet.
    """

    method = "query"
    reads_keys = False

    def __init__(self, access: Callable[[str], LokiAccess], *, page_bytes: int | None = FOREIGN_PAGE_BYTES) -> None:
        self._access, self._page_bytes = access, page_bytes

    def tables(self, tenant: str, day: date, keys: Sequence[str]) -> Iterator[pa.Table]:
        """Raises LokiError, ReadFailed."""
        first, until = (ms * 1_000_000 for ms in day_ms(day))
        access = self._access(tenant)
        with LokiQuerierClient(access) as client:
            # Loki's own labels are no part of a line's identity, and no stream has them alone.
            names = [name for name in sorted(client.labels(first, until - 1)) if not name.startswith("__")]
        with BatchQueryExecutor(access, page_bytes=self._page_bytes) as executor:
            for selector in selectors(names):
                for block in executor.read(selector, first, until):
                    yield ordered(block).table
