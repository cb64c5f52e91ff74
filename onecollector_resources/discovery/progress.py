"""How far the collector has read each file, without asking it: ``pos`` in ``/proc/<pid>/fdinfo``.

Only some hundred files are open at once, and ``pos`` is what was read, not what was delivered: the keeper remembers the
last one seen per link, and the proof of collection decides what may go.
"""

from __future__ import annotations

import os
from pathlib import Path


def read_positions(pid: int, proc: Path = Path("/proc")) -> dict[tuple[int, int], int]:
    """(device, inode) to byte position of every regular file that the process has open; empty where it is gone."""
    folder = proc / str(pid)
    positions: dict[tuple[int, int], int] = {}
    try:
        numbers = os.listdir(folder / "fd")
    except OSError:
        return positions
    for number in numbers:
        try:
            stat = os.stat(folder / "fd" / number)
            if stat.st_mode & 0o170000 != 0o100000:
                continue
            with open(folder / "fdinfo" / number, "rb") as file:
                first = file.readline()
        except OSError:
            # Closed between listing and looking.
            continue
        key = (stat.st_dev, stat.st_ino)
        positions[key] = max(positions.get(key, 0), int(first.split()[1]))
    return positions
