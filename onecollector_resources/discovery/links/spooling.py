"""Links that are spools: files of our own, where a name for the source's file would not do.

Three reasons lead here: a file starts like another one, it lies on another file system, or there is no file at all and
the container's log API is followed. A spool is placed at once, under the Docker pipeline, whose frame it has.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal

from onecollector_resources.discovery.claims import Inode, inode_of
from onecollector_resources.discovery.linker import PENDING
from onecollector_resources.discovery.links.border import Border
from onecollector_resources.discovery.links.link import Link, Source
from onecollector_resources.discovery.links.table import LinkTable
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
        # The source of the copy is the pending link: it keeps the file whatever becomes of its name.
        del source.links[link.segment]
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
        if segment is None and source.links:
            return source.links[max(source.links)].path
        number = source.next_segment if segment is None else segment
        for link in source.links.values():
            link.finished = True
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
        return no_file and (not source.links or not all(link.finished for link in source.links.values()))

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


def _framing(observed: ObservedSource) -> Framing:
    return "docker" if observed.profile == "docker" else "plain"
