"""Counting the records of a link's file: the truth that Loki is compared with.

A file is read once in its life for this: each count goes on where the last one ended, at the end of a whole line.
"""

from __future__ import annotations

from datetime import UTC, datetime

from onecollector_resources.discovery.links.link import Link, size_of
from onecollector_resources.discovery.links_model import LinkRow
from onecollector_resources.records import ObservedSource, SegmentRecords

COUNT_BLOCK = 1 << 20

COMPLETE = rb'\n","stream"'
"""Ends the text of a whole line in Docker's JSON; a part of a long line has no ``\n`` there."""


def count_new(link: Link) -> None:
    """Count the records that were added since the last count."""
    framed = link.mode == "spool" or link.observed.profile == "docker"
    try:
        with link.path.open("rb") as file:
            file.seek(link.counted)
            while block := file.read(COUNT_BLOCK):
                end = block.rfind(b"\n") + 1
                if end == 0:
                    if len(block) < COUNT_BLOCK:
                        break
                    block += file.readline()
                    end = len(block) if block.endswith(b"\n") else 0
                    if end == 0:
                        break
                whole = block[:end]
                lines = whole.count(b"\n")
                link.records += lines
                if framed:
                    link.joined += lines - whole.count(COMPLETE)
                link.counted += end
                file.seek(link.counted)
    except OSError as error:
        link.reason = f"cannot be counted: {error.strerror}"


def records_of_link(link: Link) -> SegmentRecords:
    """What was written to a file whose records were counted just now."""
    observed = link.observed
    joined = -1 if observed.multiline or link.truncated or observed.profile == "cri" else link.joined
    return SegmentRecords(
        observed.source_id,
        link.segment,
        link.records,
        size_of(link.path),
        link.read,
        link.finished,
        observed.tenant,
        observed.service,
        datetime.fromtimestamp(link.created, UTC),
        joined,
        link.left_out,
    )


def records_of_row(row: LinkRow, observed: ObservedSource) -> SegmentRecords:
    """What was written to a delivered file whose link went."""
    return SegmentRecords(
        row.source_id,
        row.segment,
        row.records,
        row.counted,
        row.counted,
        True,
        observed.tenant,
        observed.service,
        datetime.fromtimestamp(row.created, UTC),
        -1 if row.truncated else row.joined,
        row.left_out,
    )
