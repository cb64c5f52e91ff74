"""A day's lines by queries to a scratch Loki: every stream once, whatever labels streams have.

A query needs a matcher that an empty value does not satisfy, and no label is on every stream. So the label names are
taken one after the other: streams that have the first, those that have the second and not the first, and so on; together
they are all streams, each once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

from onecollector_resources.archive.keys import day_ms
from onecollector_resources.archive.proof import DayUnreadable
from onecollector_resources.loki.access import LokiAccess
from onecollector_resources.loki.batch import BatchQueryExecutor
from onecollector_resources.loki.effort import ReadFailed
from onecollector_resources.loki.lines import ordered
from onecollector_resources.loki.pager import MS
from onecollector_resources.loki.querier import LokiQuerierClient

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx
    import pyarrow as pa


def selectors(labels: Sequence[str]) -> list[str]:
    """Selectors that match each stream with at least one of the labels exactly once."""
    out, without = [], ""
    for name in labels:
        out.append(f'{{{without}{name}=~".+"}}')
        without += f'{name}="", '
    return out


class QueriedDay:
    """Reads days from a Loki of ours. ``access``: how it is reached as a tenant; ``options``: the executor's.

    What Loki hides is not read: lines that were deleted, and late ones that are not flushed yet.
    """

    method = "query"
    reads_keys = False

    def __init__(
        self, access: Callable[[str], LokiAccess], *, transport: httpx.BaseTransport | None = None, **options: Any
    ) -> None:
        self._access, self._transport, self._options = access, transport, options

    def tables(self, tenant: str, day: date, keys: Sequence[str]) -> Iterator[pa.Table]:
        """Raises LokiError, DayUnreadable."""
        first, until = (ms * MS for ms in day_ms(day))
        access = self._access(tenant)
        with LokiQuerierClient(access, transport=self._transport) as client:
            # Loki's own labels are no part of a line's identity, and no stream has them alone.
            names = [name for name in sorted(client.labels(first, until)) if not name.startswith("__")]
        with BatchQueryExecutor(access, page_bytes=None, transport=self._transport, **self._options) as executor:
            for selector in selectors(names):
                try:
                    for block in executor.read(selector, first, until):
                        yield ordered(block).table
                except ReadFailed as error:
                    raise DayUnreadable(str(error)) from error
