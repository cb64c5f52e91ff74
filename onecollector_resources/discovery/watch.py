"""inotify on folders of log files: who created what, told within a millisecond. Only ever "look now"."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import inotify_simple
from inotify_simple import flags

MASK = flags.CREATE | flags.MOVED_TO


class FolderWatch:
    """Calls ``on_name(folder, name)`` in a thread of its own. An overflow calls ``on_lost()``: look everywhere."""

    def __init__(self, on_name: Callable[[Path, str], None], on_lost: Callable[[], None]) -> None:
        self._on_name, self._on_lost = on_name, on_lost
        self._inotify = inotify_simple.INotify()
        self._folders: dict[int, Path] = {}
        self._ids: dict[Path, int] = {}
        self._lock = threading.Lock()
        self._stop_r, self._stop_w = os.pipe()
        self._thread = threading.Thread(target=self._run, name="folder-watch", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def add(self, folder: Path) -> bool:
        """Watch a folder; False where it is gone. Raises OSError when the kernel's limit is reached."""
        with self._lock:
            if folder in self._ids:
                return True
            try:
                number = self._inotify.add_watch(folder, MASK)
            except (FileNotFoundError, NotADirectoryError):
                return False
            self._folders[number], self._ids[folder] = folder, number
            return True

    def remove(self, folder: Path) -> None:
        """Watch a folder no longer."""
        with self._lock:
            number = self._ids.pop(folder, None)
            if number is None:
                return
            self._folders.pop(number, None)
            try:
                self._inotify.rm_watch(number)
            except OSError:
                # The folder is gone and its watch with it.
                return

    def stop(self) -> None:
        """End the thread."""
        os.write(self._stop_w, b"x")
        if self._thread.is_alive():
            self._thread.join(5)
        self._inotify.close()
        os.close(self._stop_r)
        os.close(self._stop_w)

    def _run(self) -> None:
        import select

        poller = select.poll()
        poller.register(self._inotify.fileno(), select.POLLIN)
        poller.register(self._stop_r, select.POLLIN)
        while True:
            ready = dict(poller.poll())
            if self._stop_r in ready:
                return
            told: set[tuple[Path, str]] = set()
            for event in self._inotify.read(timeout=0):
                if event.mask & flags.Q_OVERFLOW:
                    self._on_lost()
                    continue
                with self._lock:
                    folder = self._folders.get(event.wd)
                    if event.mask & flags.IGNORED and folder is not None:
                        self._folders.pop(event.wd, None)
                        self._ids.pop(folder, None)
                        continue
                if folder is not None and event.name and (folder, event.name) not in told:
                    told.add((folder, event.name))
                    self._on_name(folder, event.name)
