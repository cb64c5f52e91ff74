"""The heads that are in the tree, so that a file that starts like one of them is not placed beside it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from onecollector_resources.discovery.heads import FINGERPRINT, Judgement, judge_plain, judge_timed
from onecollector_resources.discovery.links.link import Link
from onecollector_resources.discovery.links.table import LinkTable

MOST_LONG_HEADS = 10_000
"""Up to here the heads of links that went are remembered, too: 10 MB."""


@dataclass(slots=True)
class PlacedHeads:
    """Heads of placed links. Those of plain files are compared with all; of others only long first lines can tie."""

    table: LinkTable
    _long: dict[bytes, tuple[str, int]] = field(default_factory=dict)
    """With the link that has it: a file that is linked again does not tie with itself."""

    def judge(self, link: Link, profile: str) -> Judgement:
        """Whether a file can be placed, by ``link.head``."""
        if profile == "plain":
            return judge_plain(link.head, self._plain())
        others = () if self._long.get(link.head) == link.key else self._long
        return judge_timed(link.head, others, finished=link.finished)

    def remember(self, link: Link) -> None:
        """A link was placed."""
        if not link.head:
            try:
                link.head = read_head(link)
            except OSError:
                return
        if _is_long(link.head):
            self._long.setdefault(link.head, link.key)

    def let_go(self, link: Link) -> None:
        """A link goes."""
        if len(self._long) > MOST_LONG_HEADS and _is_long(link.head):
            self._long.pop(link.head, None)

    def _plain(self) -> Iterator[bytes]:
        for source in self.table.sources.values():
            if source.observed.profile != "plain":
                continue
            for link in source.links.values():
                if not link.placed or link.mode != "link":
                    continue
                if len(link.head) < FINGERPRINT:
                    # It may have grown.
                    try:
                        link.head = read_head(link)
                    except OSError:
                        continue
                yield link.head


def read_head(link: Link) -> bytes:
    """What the collector knows a file by. Raises OSError."""
    with link.path.open("rb") as file:
        return file.read(FINGERPRINT)


def _is_long(head: bytes) -> bool:
    return len(head) >= FINGERPRINT and b"\n" not in head
