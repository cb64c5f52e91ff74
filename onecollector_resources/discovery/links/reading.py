"""How far the collector has read each link: the last position seen, because only some files are open at once.

A file that is shorter than what was read of it was truncated in place, and what it holds now is new.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from onecollector_resources.discovery.claims import Inode, inode_of
from onecollector_resources.discovery.links.gaps import LinkGaps
from onecollector_resources.discovery.links.link import Link, size_of


def take_positions(links: Iterable[Link], positions: Mapping[Inode, int], gaps: LinkGaps) -> None:
    """Remember how far each link is read, in bytes. ``positions`` are of the files that are open now."""
    for link in links:
        inode = link.inode
        if link.mode == "spool":
            # Its inode is the file's that it copies.
            try:
                inode = inode_of(link.path)
            except OSError:
                continue
        size = size_of(link.path)
        if link.mode == "link" and size < link.read:
            if size < link.counted or not link.truncated:
                gaps.of_link(
                    link, "truncated", None, "its log was truncated in place; what was not read by then is lost"
                )
            link.truncated, link.read, link.counted, link.records, link.joined = True, 0, 0, 0, 0
            link.left_out = 0
        position = positions.get(inode)
        if position is not None:
            link.read = max(link.read, min(position, size))
