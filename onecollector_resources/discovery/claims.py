"""Claims: what the linker left under ``.pending``, and the agent's memory of which files need no claim any more.

A file is known by its inode for as long as a link holds it. After that the kernel may give the number to another file,
so an inode whose link went counts as known only while the file still begins as it did.
"""

from __future__ import annotations

import hashlib
import os
import threading
from dataclasses import dataclass
from pathlib import Path

from onecollector_resources.discovery.heads import FINGERPRINT
from onecollector_resources.discovery.linker import CLAIM, PENDING, Inode, inode_of, link_new

__all__ = ["Claims", "Done", "Inode", "inode_of", "mark_of"]


@dataclass(frozen=True, slots=True)
class Done:
    """A delivered file whose link went: its segment, its size then, and the mark of how it begins."""

    segment: int
    size: int
    mark: str

    def is_at(self, path: Path | str) -> bool:
        """Whether the file at this path still is that one, grown or not. Raises OSError."""
        length = int(self.mark.partition(":")[0] or -1)
        return 0 <= length <= self.size <= os.stat(path).st_size and mark_of(path, length) == self.mark


def mark_of(path: Path | str, size: int = FINGERPRINT) -> str:
    """``<length>:<digest>`` of a file's first bytes; Docker's begin with a time of their own. Raises OSError."""
    with open(path, "rb") as file:
        head = file.read(min(size, FINGERPRINT))
    return f"{len(head)}:{hashlib.blake2b(head, digest_size=16).hexdigest()}"


class Claims:
    """Claims of all containers of one Docker root. Thread-safe."""

    def __init__(self, containers: Path, tree: Path) -> None:
        self.containers, self.pending = containers, tree / PENDING
        self._lock = threading.RLock()
        self._waiting: dict[str, dict[Inode, Path]] = {}
        self._known: dict[str, dict[Inode, str]] = {}
        """With the name of the claim that a link was made from: its event may come after it was taken."""
        self._done: dict[str, dict[Inode, Done]] = {}
        self._refused: dict[str, OSError] = {}
        self._ignored: set[str] = set()

    def arrived(self, name: str) -> str | None:
        """Take in a name under ``.pending``; the container of a claim that is news, else None."""
        match = CLAIM.fullmatch(name)
        if match is None:
            return None
        with self._lock:
            return match["id"] if self._take_in(match["id"], self.pending / name) else None

    def _take_in(self, container_id: str, claim: Path) -> bool:
        waiting = self._waiting.setdefault(container_id, {})
        try:
            inode = inode_of(claim)
            if waiting.get(inode) == claim or self._known.get(container_id, {}).get(inode) == claim.name:
                return False
            if container_id in self._ignored or inode in waiting or self._is_known(container_id, inode, claim):
                claim.unlink()
                return False
        except FileNotFoundError:
            return False
        waiting[inode] = claim
        return True

    def list_all(self) -> None:
        """Take in whatever lies under ``.pending``."""
        for name in sorted(os.listdir(self.pending)):
            self.arrived(name)

    def sweep(self, container_id: str) -> None:
        """Claim what the linker did not: files that were there before it, or events that it lost."""
        with self._lock:
            if container_id in self._ignored:
                return
            waiting = self._waiting.setdefault(container_id, {})

            def known(inode: Inode, _: int, path: str) -> bool:
                return inode in waiting or self._is_known(container_id, inode, path)

            try:
                made = link_new(self.containers / container_id, self.pending, known)
            except OSError as error:
                self._refused[container_id] = error
                return
            for claim, _ in made:
                self._take_in(container_id, claim)

    def _is_known(self, container_id: str, inode: Inode, path: Path | str) -> bool:
        if inode in self._known.get(container_id, ()):
            return True
        done = self._done.get(container_id, {}).get(inode)
        if done is None:
            return False
        try:
            if done.is_at(path):
                return True
        except OSError:
            # What cannot be read now may be anything: better twice than not at all.
            pass
        del self._done[container_id][inode]
        return False

    def take(self, container_id: str) -> list[tuple[Path, Inode]]:
        """The container's claims, in the order in which they were made; they are the caller's from here on."""
        with self._lock:
            known, claims = self._known.setdefault(container_id, {}), []
            for inode, path in self._waiting.pop(container_id, {}).items():
                # It may have become known since it arrived: as a link that an earlier agent had left.
                if inode in known:
                    path.unlink(missing_ok=True)
                else:
                    claims.append((path, inode))
            known.update({inode: path.name for path, inode in claims})
            return sorted(claims)

    def release(self, container_id: str) -> None:
        """Remove claims that nobody wants, and keep none of this container from now on."""
        with self._lock:
            self._ignored.add(container_id)
            for path in self._waiting.pop(container_id, {}).values():
                path.unlink(missing_ok=True)

    def accept(self, container_id: str) -> None:
        """Keep claims of this container again."""
        with self._lock:
            self._ignored.discard(container_id)

    def know(self, container_id: str, inode: Inode) -> None:
        """A link of ours holds this file."""
        with self._lock:
            self._known.setdefault(container_id, {}).setdefault(inode, "")

    def let_go(self, container_id: str, inode: Inode, done: Done | None) -> None:
        """Our link of this file goes; without ``done`` the file goes with it."""
        with self._lock:
            self._known.get(container_id, {}).pop(inode, None)
            if done is not None:
                self._done.setdefault(container_id, {})[inode] = done

    def reopen(self, container_id: str, inode: Inode) -> None:
        """The file grew: it is linked again."""
        with self._lock:
            self._done.get(container_id, {}).pop(inode, None)
            self._known.setdefault(container_id, {}).setdefault(inode, "")

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
            return {
                container_id: sorted((path, inode) for inode, path in claims.items())
                for container_id, claims in self._waiting.items()
                if claims
            }
