"""A full disk is a time in which lines may have been lost, whoever wrote them: it is noticed here and becomes a gap.

The engine drops what it cannot write to a container's log and tells only its own log file; the collector's queue and the
registry wait and go on. So the row says from when to when there was no room, on which disk, and for whom that matters.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from onecollector_resources.records import Gap

FULL_BYTES = 1 << 20
"""Under this much room the next page of a database or block of a log does not fit any more."""


def free_bytes(folder: Path) -> int | None:
    """Room that a process without privileges has; None where the folder cannot be asked."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize


def one_of_each_disk(folders: Mapping[Path, str]) -> dict[Path, str]:
    """The first folder on each file system; what is not there is left out."""
    found: dict[int, tuple[Path, str]] = {}
    for folder, meaning in folders.items():
        with contextlib.suppress(OSError):
            found.setdefault(folder.stat().st_dev, (folder, meaning))
    return dict(found.values())


@dataclass
class DiskWatch:
    """``folders`` with what a full disk there means. ``look`` often; ``report`` gets one gap when there is room again."""

    host: str
    folders: Mapping[Path, str]
    report: Callable[[Gap], None]
    free: Callable[[Path], int | None] = free_bytes
    _since: dict[Path, datetime] = field(default_factory=dict, init=False)

    def look(self, now: datetime) -> None:
        """Note which folders are full now, and tell of those that no longer are."""
        for folder, meaning in self.folders.items():
            free = self.free(folder)
            if free is None:
                continue
            if free < FULL_BYTES:
                self._since.setdefault(folder, now)
            elif folder in self._since:
                self.report(self._gap(folder, meaning, self._since.pop(folder), now))

    def full(self) -> dict[Path, datetime]:
        """What is full now, and since when."""
        return dict(self._since)

    def _gap(self, folder: Path, meaning: str, began: datetime, ended: datetime) -> Gap:
        return Gap(
            host=self.host,
            source_id="",
            service="",
            tenant="",
            cause="disk_full",
            started=began,
            ended=ended,
            bytes=None,
            lines=None,
            detail=f"no room in {folder}: {meaning}",
            key=f"{self.host}/disk/{folder}/{int(began.timestamp())}",
        )
