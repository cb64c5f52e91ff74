"""The backfill's border at a link: what the collector drops of a file that began long before us is told when it is placed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from onecollector_resources.discovery.backfill import left_out
from onecollector_resources.discovery.links.gaps import LinkGaps
from onecollector_resources.discovery.links.link import Link


@dataclass(frozen=True, slots=True)
class Border:
    """``from_ns`` is the border, in ns since the epoch; 0 for none."""

    from_ns: int
    gaps: LinkGaps

    def leave_out(self, link: Link, path: Path) -> None:
        """Record the lines of ``path`` that are older as a gap; counting goes on behind them."""
        if link.counted or link.left_out:
            return
        try:
            records, size = left_out(path, link.observed.profile, self.from_ns)
        except OSError as error:
            link.reason = f"cannot be counted: {error.strerror}"
            return
        if not records:
            return
        link.left_out = link.records = records
        link.counted = size
        border = datetime.fromtimestamp(self.from_ns / 1e9, UTC)
        detail = f"written before {border:%Y-%m-%d %H:%M:%S} UTC, where agent.backfill_horizon_s begins"
        self.gaps.of_link(link, "backfill_horizon", size, detail, lines=records)
