"""Claims: hard links made the moment a container's file appears, before anybody asks whose it is.

A container that rotates at full speed keeps a file for less than a tenth of a second, so this is all that the thread in
a hurry does, under a lock that nobody holds for long. Who the file belongs to is settled afterwards, in peace.

A file is known by its inode for as long as a link holds it. After that the kernel may give the number to another file,
so an inode whose link went counts as known only while the file still begins as it did.
"""

from __future__ import annotations

import os
import re
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from onecollector_resources.discovery.heads import FINGERPRINT
from onecollector_resources.discovery.links_model import PENDING

Inode = tuple[int, int]

CLAIM = re.compile(r"(?P<id>[0-9a-f]{64})\.claim\.(?P<n>\d+)")
CONTAINER_LOG = re.compile(r"(?P<id>[0-9a-f]{64})-json\.log(?:\.(?P<n>\d+))?")


@dataclass(frozen=True, slots=True)
class Done:
    """A delivered file whose link went: its segment, its size then, and how it begins (empty: not known)."""

    segment: int
    size: int
    head: bytes = b""


def inode_of(path: Path | str) -> Inode:
    """(device, inode) of a name. Raises OSError."""
    stat = os.stat(path, follow_symlinks=False)
    return (stat.st_dev, stat.st_ino)


def head_of(path: Path | str, size: int = FINGERPRINT) -> bytes:
    """The first bytes of a file; empty where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(min(size, FINGERPRINT))
    except OSError:
        return b""


class Claims:
    """Claims of all containers of one Docker root. Thread-safe."""

    def __init__(self, containers: Path, tree: Path) -> None:
        self.containers, self._pending = containers, tree / PENDING
        self._lock = threading.Lock()
        self._waiting: dict[str, list[tuple[Path, Inode]]] = {}
        self._known: dict[str, set[Inode]] = {}
        self._done: dict[str, dict[Inode, Done]] = {}
        self._refused: dict[str, OSError] = {}
        self._ignored: set[str] = set()
        for path in sorted(self._pending.iterdir()):
            match = CLAIM.fullmatch(path.name)
            if match is not None:
                inode = inode_of(path)
                self._waiting.setdefault(match["id"], []).append((path, inode))
                self._known.setdefault(match["id"], set()).add(inode)

    def claim(self, container_id: str) -> bool:
        """Link every file of a container that has no link yet, oldest first; True where there was one."""
        with self._lock:
            if container_id in self._ignored:
                return False
            try:
                entries = [
                    (match, e)
                    for e in os.scandir(self.containers / container_id)
                    if (match := CONTAINER_LOG.fullmatch(e.name))
                ]
            except OSError:
                return False
            # The highest number is the oldest file.
            entries.sort(key=lambda pair: -int(pair[0]["n"] or 0))
            known = self._known.setdefault(container_id, set())
            fresh = False
            for _, entry in entries:
                try:
                    inode = inode_of(entry.path)
                    if inode in known or self._is_done(container_id, inode, entry.path):
                        continue
                    target = self._pending / f"{container_id}.claim.{time.time_ns():020d}"
                    os.link(entry.path, target, follow_symlinks=False)
                    # The name may have been given to another file between looking and linking.
                    inode = inode_of(target)
                except FileNotFoundError:
                    continue
                except OSError as error:
                    self._refused[container_id] = error
                    return fresh
                if inode in known:
                    target.unlink()
                    continue
                known.add(inode)
                self._waiting.setdefault(container_id, []).append((target, inode))
                fresh = True
            return fresh

    def _is_done(self, container_id: str, inode: Inode, path: str) -> bool:
        done = self._done.get(container_id, {}).get(inode)
        if done is None:
            return False
        if os.stat(path).st_size >= done.size and (not done.head or head_of(path, len(done.head)) == done.head):
            return True
        del self._done[container_id][inode]
        return False

    def take(self, container_id: str) -> list[tuple[Path, Inode]]:
        """The container's claims, in the order in which they were made; they are the caller's from here on."""
        with self._lock:
            return sorted(self._waiting.pop(container_id, []))

    def release(self, container_id: str) -> None:
        """Remove claims that nobody wants, and make no more for this container."""
        with self._lock:
            self._ignored.add(container_id)
            for path, _ in self._waiting.pop(container_id, ()):
                path.unlink(missing_ok=True)

    def accept(self, container_id: str) -> None:
        """Make claims for this container again."""
        with self._lock:
            self._ignored.discard(container_id)

    def know(self, container_id: str, inode: Inode) -> None:
        """A link of ours holds this file."""
        with self._lock:
            self._known.setdefault(container_id, set()).add(inode)

    def let_go(self, container_id: str, inode: Inode, done: Done) -> None:
        """Our link of this file went."""
        with self._lock:
            self._known.get(container_id, set()).discard(inode)
            self._done.setdefault(container_id, {})[inode] = done

    def done(self, container_id: str, inode: Inode) -> Done | None:
        """What is remembered of a file whose link went."""
        with self._lock:
            return self._done.get(container_id, {}).get(inode)

    def reopen(self, container_id: str, inode: Inode) -> None:
        """The file grew: it is linked again."""
        with self._lock:
            self._done.get(container_id, {}).pop(inode, None)
            self._known.setdefault(container_id, set()).add(inode)

    def forget(self, container_id: str) -> None:
        """The container and all its files are gone."""
        with self._lock:
            for table in (self._waiting, self._known, self._done, self._refused):
                table.pop(container_id, None)
            self._ignored.discard(container_id)

    def refused(self, container_id: str) -> OSError | None:
        """Why this container's files cannot be linked."""
        with self._lock:
            return self._refused.get(container_id)

    def waiting(self) -> dict[str, list[tuple[Path, Inode]]]:
        """Claims by container."""
        with self._lock:
            return {container_id: list(claims) for container_id, claims in self._waiting.items()}
