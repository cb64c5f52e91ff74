"""Declared plain files: what the globs of the settings match now, and who tells when that changes.

A source is a *path*. What a path held before a rotation is a segment of the same source, and LinkKeeper follows it by its
inode; so a rotated sibling (``app.log.1`` beside ``app.log``) is no source of its own even where the glob matches it, and
of several names of one inode one is a source. The glob decides about everything else; of two globs the first one wins.
Compressed files are never sources.
"""

from __future__ import annotations

import errno
import fnmatch
import os
import re
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

import structlog

from onecollector_resources.discovery.identity import identify_file
from onecollector_resources.discovery.watch import FolderWatch
from onecollector_resources.records import ObservedSource
from onecollector_resources.settings import FileSource, Settings

log = structlog.get_logger()

BURST_S = 0.2
"""After a first new file the listing waits this long: many files at once are one batch."""

MAGIC = re.compile(r"[*?\[]")
COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".zip", ".lz4")
ROTATION = re.compile(r"(?:\.\d{1,4}|[.-]\d{4}-?\d\d-?\d\d(?:[-_.T]?\d{2,10})?|[.-]\d{10}|\.old|~)$")
"""Ends that logrotate and its like put behind a whole file name: a number, a date, a date with a time, epoch seconds."""


def rotated_from(path: str) -> str:
    """The path that a rotated sibling had before; the path itself where it does not look like one."""
    folder, _, name = path.rpartition("/")
    base = ROTATION.sub("", name)
    return f"{folder}/{base}" if base and base != name else path


@dataclass(frozen=True, slots=True)
class FileListing:
    """Files by source id; ``complete`` is false where a folder could not be read and holds what it held before."""

    sources: Mapping[str, ObservedSource]
    complete: bool


class _Unreadable(Exception):
    """A folder could not be listed."""


class DeclaredFiles:
    """The files that ``settings.files`` declare. ``on_change`` is called, in a thread, when it is time to list again.

    ``list_now`` is for one thread at a time.
    """

    def __init__(self, settings: Settings, on_change: Callable[[], None]) -> None:
        self._settings, self._on_change = settings, on_change
        self._watch = FolderWatch(self._on_name, on_change) if settings.files else None
        self._ends = [re.compile(fnmatch.translate(PurePosixPath(file.glob).name)) for file in settings.files]
        self._known: dict[str, tuple[FileSource, ObservedSource]] = {}
        """By path as it is on disk; kept while the file is there, so that its facts do not change."""
        self._owners: dict[tuple[int, int], str] = {}
        self._unwatched = False
        self._timer: threading.Timer | None = None

    def start(self) -> None:
        """Watch the folders that listings come by."""
        if self._watch is not None:
            self._watch.start()

    def stop(self) -> None:
        """Watch no longer."""
        timer = self._timer
        if timer is not None:
            timer.cancel()
        if self._watch is not None:
            self._watch.stop()

    def list_now(self) -> FileListing:
        """List everything that is declared."""
        matched: dict[str, tuple[FileSource, os.stat_result]] = {}
        complete, unread = True, set[FileSource]()
        for declared in self._settings.files:
            try:
                for path, facts in self._matches(declared.glob):
                    matched.setdefault(path, (declared, facts))
            except _Unreadable as problem:
                log.warning("files.unreadable", glob=declared.glob, problem=str(problem))
                complete = False
                unread.add(declared)
        known: dict[str, tuple[FileSource, ObservedSource]] = {}
        owners: dict[tuple[int, int], str] = {}
        for path, (declared, facts) in sorted(matched.items(), key=lambda item: self._rank(item[0], item[1][1])):
            inode = (facts.st_dev, facts.st_ino)
            if inode in owners or self._is_rotated(path, matched):
                continue
            before = self._known.get(path)
            if before is not None and before[0] is declared:
                known[path] = before
            else:
                observed = identify_file(
                    path, declared, self._settings, created=datetime.fromtimestamp(facts.st_ctime, UTC)
                )
                if observed is None:
                    continue
                known[path] = (declared, observed)
            owners[inode] = path
        for path, before in self._known.items():
            if before[0] in unread:
                known.setdefault(path, before)
        self._known, self._owners = known, owners
        return FileListing({observed.source_id: observed for _, observed in known.values()}, complete)

    def _rank(self, path: str, facts: os.stat_result) -> tuple[bool, str]:
        # The name that an inode was known by comes first and keeps it.
        return (self._owners.get((facts.st_dev, facts.st_ino)) != path, path)

    def _is_rotated(self, path: str, matched: Mapping[str, object]) -> bool:
        """Whether it was once another source's file. At the moment of a rotation that one's new file is not there yet."""
        if path.endswith(COMPRESSED):
            return True
        base = rotated_from(path)
        return base != path and (base in matched or base in self._known)

    # -- walking

    def _matches(self, pattern: str) -> Iterator[tuple[str, os.stat_result]]:
        parts = list(PurePosixPath(pattern).parts[1:]) or ["*"]
        yield from self._walk("/", [*parts, "*"] if parts[-1] == "**" else parts)

    def _walk(self, folder: str, parts: list[str]) -> Iterator[tuple[str, os.stat_result]]:
        while len(parts) > 1 and not MAGIC.search(parts[0]):
            folder, parts = os.path.join(folder, parts[0]), parts[1:]
        head, rest = parts[0], parts[1:]
        # Watched before it is listed: what is created in between is told twice, never missed.
        self._watch_folder(folder)
        if head == "**":
            yield from self._walk(folder, rest)
            for entry in _entries(folder):
                # A link to a folder above would never end.
                if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
                    yield from self._walk(entry.path, parts)
            return
        wanted = re.compile(fnmatch.translate(head))
        hidden = head.startswith(".")
        for entry in _entries(folder):
            if not wanted.match(entry.name) or (entry.name.startswith(".") and not hidden):
                continue
            if rest:
                if entry.is_dir():
                    yield from self._walk(entry.path, rest)
                continue
            try:
                facts = entry.stat()
            except OSError:
                # Gone since it was listed, or a link to nowhere.
                continue
            if stat.S_ISREG(facts.st_mode):
                yield entry.path, facts

    def _watch_folder(self, folder: str) -> None:
        if self._watch is None or self._unwatched:
            return
        try:
            self._watch.add(Path(folder))
        except PermissionError:
            return
        except OSError as error:
            # Listings go on and find everything a few seconds later.
            self._unwatched = True
            log.warning("files.unwatched", folder=folder, error=str(error), fix="raise fs.inotify.max_user_watches")

    def _on_name(self, folder: Path, name: str) -> None:
        if any(end.match(name) for end in self._ends) or os.path.isdir(folder / name):
            self._tell_soon()

    def _tell_soon(self) -> None:
        # Called by one thread only, the watch's.
        if self._timer is None:
            self._timer = threading.Timer(BURST_S, self._tell)
            self._timer.daemon = True
            self._timer.start()

    def _tell(self) -> None:
        self._timer = None
        self._on_change()


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return []
        raise _Unreadable(f"{folder}: {error.strerror}") from error
