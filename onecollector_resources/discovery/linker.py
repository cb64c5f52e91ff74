"""The linker: a process of its own that hard-links every log file of every container the moment it appears.

A container at full speed rotates a file away within a tenth of a second, and one that lives that long takes its only
file with it. So this does nothing else, knows nothing of tenants or labels, shares no interpreter with a thread that
parses or counts, and goes on while the agent is dead. What it links it leaves under ``.pending`` as a *claim*; whose it
is, and whether anybody wants it, the agent finds out in peace. A claim too many costs the agent one unlink.

    python -m onecollector_resources.discovery.linker CONTAINERS TREE [FREE_BYTES]
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import inotify_simple
from inotify_simple import flags

Inode = tuple[int, int]

PENDING = ".pending"
CLAIM = re.compile(r"(?P<id>[0-9a-f]{64})\.claim\.(?P<n>\d+)")
CONTAINER = re.compile(r"[0-9a-f]{64}")
CONTAINER_LOG = re.compile(r"(?P<id>[0-9a-f]{64})-json\.log(?:\.(?P<n>\d+))?")

WATCHED = flags.CREATE | flags.MOVED_TO
AGAIN_S = 1.0
"""How often a folder that is not there yet (an engine that never ran) is looked for."""


def inode_of(path: Path | str) -> Inode:
    """(device, inode) of a name. Raises OSError."""
    stat = os.stat(path, follow_symlinks=False)
    return (stat.st_dev, stat.st_ino)


def link_new(folder: Path, pending: Path, known: Callable[[Inode, int, str], bool]) -> list[tuple[Path, Inode]]:
    """Link every log file of one container that is not ``known(inode, links, path)``, oldest first.

    Answers the claims and their inodes; nothing where the folder is gone. Raises OSError where a file cannot be linked
    (another file system, a full disk).
    """
    try:
        files = [(match, e.path) for e in os.scandir(folder) if (match := CONTAINER_LOG.fullmatch(e.name))]
    except OSError:
        return []
    # The highest number is the oldest file.
    files.sort(key=lambda file: -int(file[0]["n"] or 0))
    made = []
    for _, path in files:
        try:
            stat = os.stat(path, follow_symlinks=False)
            if known((stat.st_dev, stat.st_ino), stat.st_nlink, path):
                continue
            claim = pending / f"{folder.name}.claim.{time.time_ns():020d}"
            os.link(path, claim, follow_symlinks=False)
            # The name may have been given to another file between looking and linking.
            made.append((claim, inode_of(claim)))
        except FileNotFoundError:
            if not pending.is_dir():
                raise
    return made


class Linker:
    """Links what appears below ``containers`` into ``tree/.pending``, as long as ``floor`` bytes are free there."""

    def __init__(self, containers: Path, tree: Path, floor: int = 0) -> None:
        self.containers, self.pending, self.floor = containers, tree / PENDING, floor
        self._inotify = inotify_simple.INotify()
        self._folders: dict[int, Path] = {}
        self._seen: dict[str, set[Inode]] = {}
        self._told: set[str] = set()
        self._stop_r, self._stop_w = os.pipe()

    def stop(self) -> None:
        """Let ``run`` return."""
        os.write(self._stop_w, b"x")

    def run(self) -> None:
        """Link until ``stop``, or until the tree is gone."""
        poller = select.poll()
        poller.register(self._inotify.fileno(), select.POLLIN)
        poller.register(self._stop_r, select.POLLIN)
        rooted = False
        while self.pending.is_dir():
            rooted = rooted or self._begin()
            # Without a folder to watch, and to notice a tree that went, it looks by itself.
            ready = dict(poller.poll(AGAIN_S * 1000 if not rooted else 60_000))
            if self._stop_r in ready:
                return
            if self._inotify.fileno() in ready:
                rooted = self._take_events() and rooted

    def _begin(self) -> bool:
        if not self._watch(self.containers):
            return False
        self._sweep()
        return True

    def _watch(self, folder: Path) -> bool:
        try:
            self._folders[self._inotify.add_watch(folder, WATCHED)] = folder
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            self._tell(f"{folder} cannot be watched: {error}; raise fs.inotify.max_user_watches")
        return True

    def _sweep(self) -> None:
        with contextlib.suppress(OSError):
            for entry in os.scandir(self.containers):
                if CONTAINER.fullmatch(entry.name):
                    self._watch(self.containers / entry.name)
                    self._link(entry.name)

    def _take_events(self) -> bool:
        """False where the root folder itself went."""
        dirty: dict[str, None] = {}
        rooted = True
        for event in self._inotify.read(timeout=0):
            if event.mask & flags.Q_OVERFLOW:
                self._sweep()
                continue
            folder = self._folders.get(event.wd)
            if folder is None:
                continue
            if event.mask & flags.IGNORED:
                del self._folders[event.wd]
                self._seen.pop(folder.name, None)
                rooted = rooted and folder != self.containers
            elif folder == self.containers:
                if CONTAINER.fullmatch(event.name) and self._watch(folder / event.name):
                    dirty[event.name] = None
            elif event.name == f"{folder.name}-json.log":
                # A numbered name is a file that was renamed: it has its link since it was made.
                dirty[folder.name] = None
        for container_id in dirty:
            self._link(container_id)
        return rooted

    def _link(self, container_id: str) -> None:
        seen = self._seen.setdefault(container_id, set())

        def known(inode: Inode, links: int, _: str) -> bool:
            # With a second name it is linked, by us or by the linker before us; somebody else's link of a file that
            # we never saw is told from ours by the agent, which looks at every folder every few seconds.
            return links > 1 and (inode in seen or not seen)

        try:
            if self.floor and free_bytes(self.pending) < self.floor:
                self._tell(
                    f"less than {self.floor} bytes are free in {self.pending}: no file is linked until there are"
                )
                return
            made = link_new(self.containers / container_id, self.pending, known)
        except OSError as error:
            self._tell(f"{container_id[:12]} cannot be linked: {error}")
            return
        seen.update(inode for _, inode in made)

    def _tell(self, message: str) -> None:
        if message not in self._told:
            self._told.add(message)
            sys.stderr.write(message + "\n")


def free_bytes(folder: Path) -> int:
    """Bytes that root may still write there. Raises OSError."""
    stat = os.statvfs(folder)
    return stat.f_bfree * stat.f_frsize


def be_first() -> None:
    """Run before everybody else: a container may rotate a file away within 30 ms while all want the processor.

    A nice value weighs only within one group of processes, and containers are other groups; a real-time class comes
    before all groups. What it has to do takes less than a millisecond per file.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except OSError:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, -15)


def main() -> int:
    """Run until SIGTERM or SIGINT, or until the tree is gone."""
    containers, tree, floor = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 0
    (tree / PENDING).mkdir(parents=True, exist_ok=True, mode=0o700)
    linker = Linker(containers, tree, floor)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: linker.stop())
    be_first()
    with contextlib.suppress(OSError):
        # When memory runs out, whoever writes too much should go, not who keeps what was written.
        Path("/proc/self/oom_score_adj").write_text("-800", encoding="ascii")
    linker.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
