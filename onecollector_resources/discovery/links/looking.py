"""Looking for new files of a source: a container's folder where it changed, a declared file where its inode did.

An idle host looks at a thousand folders in every turn and finds nothing, so a look costs a stat, and none at all where a
container ended a while ago.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from onecollector_resources.discovery.claims import Claims
from onecollector_resources.discovery.linker import PENDING
from onecollector_resources.discovery.links.adopting import Adoption
from onecollector_resources.discovery.links.link import Source
from onecollector_resources.discovery.links.spooling import Spools
from onecollector_resources.discovery.links.table import LinkTable
from onecollector_resources.discovery.links_model import link_name

log = structlog.get_logger()

REST_S = 30.0
"""A container that has ended is looked at this seldom: it changes only with an event, or with one that was missed."""


@dataclass(slots=True)
class Looking:
    """``containers`` is the engine's folder, None without one of our own; ``watch`` is told of every file's folder."""

    table: LinkTable
    adoption: Adoption
    spools: Spools
    containers: Path | None
    watch: Callable[[Path], object]

    def look(self, source: Source, *, force: bool = False) -> None:
        """Link what is new of a source, and note which of its files grow no more."""
        observed, claims = source.observed, self.table.claims
        if observed.excluded or observed.uncollectable or not observed.log_path:
            return
        if observed.kind == "file":
            self._look_at_file(source)
        elif (
            self.containers is not None
            and claims is not None
            and not source.spool_reason
            and (force or not self._rests(source))
        ):
            self._look_at_folder(source, claims, self.containers / observed.source_id, force=force)
        newest = max(source.links, default=-1)
        for segment, link in source.links.items():
            self.table.set_finished(link, segment < newest or not observed.running)

    def _rests(self, source: Source) -> bool:
        """Whether a container ended before the last look, which is not long ago: its folder stays as it is."""
        observed, now = source.observed, self.table.clock()
        if (
            not observed.running
            and source.rested == observed.ended is not None
            and 0 <= source.look_again - now <= REST_S
        ):
            return True
        source.rested, source.look_again = (None if observed.running else observed.ended), now + REST_S
        return False

    def _look_at_folder(self, source: Source, claims: Claims, folder: Path, *, force: bool) -> None:
        source_id = source.observed.source_id
        try:
            mtime = folder.stat().st_mtime_ns
        except OSError:
            mtime = -1
        if force or mtime != source.folder_mtime:
            source.folder_mtime = mtime
            claims.sweep(source_id)
            self.adoption.adopt_claims(source)
            refused = claims.refused(source_id)
            if refused is not None:
                _cannot_link(source, refused)
        if source.done:
            self._reopen_grown(source, claims)

    def _reopen_grown(self, source: Source, claims: Claims) -> None:
        """A container that was started again goes on in a file whose link had gone."""
        path = Path(source.observed.log_path)
        try:
            stat = path.stat()
        except OSError:
            return
        inode = (stat.st_dev, stat.st_ino)
        was = source.done.get(inode)
        if was is None or stat.st_size <= was.size or self.table.docker_links is None:
            return
        if not was.is_at(path):
            # Another file under the number of one that is gone: a claim's business.
            del source.done[inode]
            return
        del source.done[inode]
        claims.reopen(source.observed.source_id, inode)
        target = _pending(self.table.docker_links, source, was.segment)
        try:
            target.unlink(missing_ok=True)
            os.link(path, target, follow_symlinks=False)
        except OSError as error:
            _cannot_link(source, error)
            return
        self.table.add(source, was.segment, target, inode)

    def _look_at_file(self, source: Source) -> None:
        path = Path(source.observed.log_path)
        self.watch(path.parent)
        try:
            stat = path.stat()
        except OSError:
            return
        inode = (stat.st_dev, stat.st_ino)
        if any(link.inode == inode for link in source.links.values()):
            return
        done = source.done.pop(inode, None)
        same = done is not None and done.is_at(path)
        if done is not None and same and stat.st_size == done.size:
            source.done[inode] = done
            return
        segment = done.segment if done is not None and same else source.next_segment
        target = _pending(self.table.file_links, source, segment)
        try:
            target.unlink(missing_ok=True)
            os.link(path, target, follow_symlinks=True)
        except OSError as error:
            source.spool_reason = f"cannot be linked ({error.strerror}); it is copied"
            self.spools.spool_file(source, segment, path, inode, "plain")
            return
        self.table.add(source, segment, target, inode)


def _pending(tree: Path, source: Source, segment: int) -> Path:
    return tree / PENDING / link_name(source.observed.safe_name, source.observed.source_id, segment)


def _cannot_link(source: Source, error: OSError) -> None:
    if not source.spool_reason:
        source.spool_reason = f"cannot be linked ({error.strerror}); its log is followed"
        log.warning("link.impossible", source=source.observed.source_id[:12], error=str(error))
