"""How far the collector has read each link: the last position seen, because only some files are open at once.

A file that is shorter than it was, or that begins in another way, was truncated in place, and what it holds now is new.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from onecollector_resources.discovery.claims import Inode
from onecollector_resources.discovery.links.gaps import LinkGaps
from onecollector_resources.discovery.links.link import Link
from onecollector_resources.discovery.links.placed_heads import read_head

TRUNCATED = "its log was truncated in place; what was not read by then is lost"


def take_positions(links: Iterable[Link], positions: Mapping[Inode, int], gaps: LinkGaps) -> None:
    """Remember how far each link is read, in bytes. ``positions`` are of the files that are open now."""
    for link in links:
        try:
            stat = link.path.stat()
        except OSError:
            continue
        size, anew = stat.st_size, _begins_anew(link, stat.st_mtime_ns)
        if link.mode == "link" and (anew or size < max(link.read, link.largest)):
            gaps.of_link(link, "truncated", None, TRUNCATED)
            link.truncated, link.read, link.counted, link.records, link.joined = True, 0, 0, 0, 0
            link.left_out = link.largest = 0
        link.largest = max(link.largest, size)
        # A spool's own inode is the file's that it copies.
        inode = link.inode if link.mode == "link" else (stat.st_dev, stat.st_ino)
        position = positions.get(inode)
        if position is not None:
            link.read = max(link.read, min(position, size))


def _begins_anew(link: Link, changed: int) -> bool:
    """Whether a declared file that was written to begins in another way than it did: an engine's own never do."""
    if link.observed.kind != "file" or changed == link.changed:
        return False
    link.changed, before = changed, link.head
    try:
        now = read_head(link)
    except OSError:
        return False
    link.head = now
    return not now.startswith(before)
