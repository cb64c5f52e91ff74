"""Links that are spools: files of our own, where a name for the source's file would not do.

Three reasons lead here: a file starts like another one, it lies on another file system, or there is no file at all and
the container's log API is followed. A spool is placed at once, under the Docker pipeline, whose frame it has.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal

from onecollector_resources.discovery.api_spool import resume_point
from onecollector_resources.discovery.claims import Inode, inode_of
from onecollector_resources.discovery.linker import PENDING
from onecollector_resources.discovery.links.border import Border
from onecollector_resources.discovery.links.link import Link, Source
from onecollector_resources.discovery.links.table import FOLLOWED, LinkTable
from onecollector_resources.discovery.links_model import link_name
from onecollector_resources.discovery.spool import FileSpool
from onecollector_resources.records import ObservedSource, pipeline_name

Framing = Literal["docker", "plain"]


@dataclass(slots=True)
class Spools:
    """Begins, resumes and ends spools."""

    table: LinkTable
    border: Border
    _copying: dict[tuple[str, int], Link] = field(default_factory=dict)

    def copying(self) -> list[Link]:
        """The links that copy a file: ten times a second somebody asks, and mostly there is none."""
        return list(self._copying.values())

    def spool_tie(self, source: Source, link: Link) -> None:
        """Copy a pending file that starts like another one."""
        # The source of the copy is the pending link: it keeps the file whatever becomes of its name. The spool takes its
        # place once it is there.
        self.spool_file(source, link.segment, link.path, link.inode, _framing(source.observed))

    def spool_file(self, source: Source, segment: int, origin: Path, inode: Inode, framing: Framing) -> None:
        """Copy ``origin`` from now on. Raises OSError."""
        path = self._path(source, segment)
        spool = FileSpool(origin, path, framing)
        path.touch(mode=0o600)
        link = self.table.add(source, segment, path, inode)
        link.mode, link.placed, link.source = "spool", True, origin
        link.reason = (
            "spooled: starts like another file" if not source.spool_reason else f"spooled: {source.spool_reason}"
        )
        self._begin(link, spool)
        if framing == "docker":
            self.border.leave_out(link, origin)
        self.table.save(link)

    def resume(self, source: Source, segment: int, path: Path, inode: Inode) -> None:
        """Go on with a spool of an earlier process, where the file that it copied is still that one. Raises OSError."""
        origin = self._origin(source, segment)
        link = self.table.add(source, segment, path, inode)
        link.mode, link.placed, link.source, link.reason = "spool", True, origin, "spooled"
        if origin is not None and inode_of(origin) == inode:
            self._begin(link, FileSpool(origin, path, _framing(source.observed)))
        self.table.save(link)

    def api_file(self, source: Source, segment: int | None) -> Path:
        """The file that a container's log API is followed into; a new segment closes the one before."""
        source.spool_reason = source.spool_reason or f"log driver {source.observed.driver} keeps no file"
        newest = source.links[max(source.links)] if source.links else None
        # One that grows no more may be delivered and go at any moment.
        if segment is None and newest is not None and not newest.finished:
            return newest.path
        number = source.next_segment if segment is None else segment
        if newest is not None:
            self.remember_followed(newest)
        for link in source.links.values():
            self.table.set_finished(link)
        path = self._path(source, number)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600)
        link = self.table.add(source, number, path, inode_of(path))
        link.mode, link.placed, link.reason = "spool", True, f"spooled: {source.spool_reason}"
        self.table.save(link)
        return path

    def wants_api(self, source: Source) -> bool:
        """Whether this is a container whose log API has to be followed."""
        observed = source.observed
        if observed.kind != "container" or observed.excluded or observed.uncollectable or observed.held:
            return False
        no_file = (
            observed.driver not in ("json-file", "") or self.table.docker_links is None or bool(source.spool_reason)
        )
        grows = any(not link.finished for link in source.links.values())
        return no_file and (observed.running or not source.links or grows)

    def remember_followed(self, link: Link) -> None:
        """Write down how far a container's log API was followed, before its file ends or goes."""
        if link.mode != "spool" or link.source is not None or link.observed.kind != "container":
            return
        key = FOLLOWED + link.observed.source_id
        known = json.loads(self.table.journal.load_value(key) or '[-1, "", 0]')
        last, count = resume_point(link.path)
        if last and link.segment >= known[0]:
            self.table.journal.save_value(key, json.dumps([link.segment, last, count]))

    def followed(self, source_id: str) -> tuple[str, int]:
        """(time of the last record, how many of the last records have it); ("", 0) for none."""
        text = self.table.journal.load_value(FOLLOWED + source_id)
        _, last, count = json.loads(text) if text else (-1, "", 0)
        return last, count

    def close(self, link: Link) -> None:
        """Let go of the file that a link copies, if it does."""
        if link.spool is not None:
            link.spool.close()
            self._copying.pop(link.key, None)

    def _begin(self, link: Link, spool: FileSpool) -> None:
        link.spool = spool
        self._copying[link.key] = link

    def _path(self, source: Source, segment: int) -> Path:
        observed = source.observed
        tree = self.table.file_links
        folder = tree / observed.tenant / pipeline_name("docker", observed.multiline) / observed.service
        return folder / link_name(observed.safe_name, observed.source_id, segment)

    def _origin(self, source: Source, segment: int) -> Path | None:
        name = link_name(source.observed.safe_name, source.observed.source_id, segment)
        options = [tree / PENDING / name for tree in self.table.trees]
        if source.observed.kind == "file":
            options.append(Path(source.observed.log_path))
        return next((path for path in options if path.exists()), None)


def pump(links: Iterable[Link], now: datetime) -> int:
    """Copy what is new in these links' files; answers the number of records."""
    copied = 0
    for link in links:
        if link.spool is None:
            continue
        try:
            copied += link.spool.pump(now, final=link.finished)
        except OSError as error:
            link.reason = f"spool: {error.strerror}"
    return copied


def uncopied(link: Link) -> int:
    """Bytes of the file that a spool copies which are not in the spool yet."""
    if link.spool is None:
        return 0
    try:
        return link.spool.behind()
    except (OSError, ValueError):
        return 0


def _framing(observed: ObservedSource) -> Framing:
    return "docker" if observed.profile == "docker" else "plain"
