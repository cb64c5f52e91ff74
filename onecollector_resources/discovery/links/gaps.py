"""Gaps of links: what was lost of a file, said in the names under which the file was collected."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from onecollector_resources.discovery.links.link import Link
from onecollector_resources.records import Gap, GapCause


@dataclass(frozen=True, slots=True)
class LinkGaps:
    """``clock`` gives epoch seconds."""

    host: str
    report: Callable[[Gap], None]
    clock: Callable[[], float]

    def of_link(self, link: Link, cause: GapCause, size: int | None, detail: str, *, lines: int | None = None) -> None:
        """Lines of one file, written at any time since it was linked. ``size`` in bytes."""
        now, seen = datetime.fromtimestamp(self.clock(), UTC), link.observed
        key = self._key(seen.source_id, link.segment, cause, now)
        began = datetime.fromtimestamp(link.created, UTC)
        self.report(
            Gap(self.host, seen.source_id, seen.service, seen.tenant, cause, began, now, size, lines, detail, key)
        )

    def of_unknown(self, source_id: str, size: int, detail: str) -> None:
        """Files of a container that nobody described."""
        now, cause = datetime.fromtimestamp(self.clock(), UTC), "unknown_containers"
        key = self._key(source_id, 0, cause, now)
        self.report(Gap(self.host, source_id, "", "", cause, now, now, size, None, detail, key))

    def _key(self, source_id: str, segment: int, cause: GapCause, now: datetime) -> str:
        return f"{self.host}/{source_id}/{segment}/{cause}/{int(now.timestamp())}"
