"""Where in a file the lines begin that are collected: what a container wrote long before OneCollector came is left out.

The border is one instant for the whole life of a host's state, the first start less ``agent.backfill_horizon_s``. A
border that moved with the clock would one day drop lines that had waited in a queue. The collector drops by it, and
this counts what it drops, so that it is a recorded gap and no proof looks for it.
"""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

DOCKER_TIME = re.compile(rb'"time":"([^"]+)"\}?\s*$')
CRI_TIME = re.compile(rb"^(\S+) (?:stdout|stderr) ")
BLOCK = 1 << 20
LINES_WITHOUT_TIME = 1_000
"""So many lines in a row may be no frame at all before a place in a file counts as new."""


def time_of(line: bytes, profile: str) -> int | None:
    """The time that a framed line brings, in ns since the epoch; None for a line without one."""
    match = (CRI_TIME if profile == "cri" else DOCKER_TIME).search(line)
    if match is None:
        return None
    try:
        when = datetime.fromisoformat(match[1].decode("ascii"))
    except ValueError:
        return None
    return int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() * 1e6) * 1_000


def left_out(path: Path, profile: str, border_ns: int) -> tuple[int, int]:
    """(records, bytes) at a file's beginning that are older than ``border_ns``; times in a file ascend.

    Nothing of plain files, whose lines bring no time. Raises OSError.
    """
    if profile == "plain" or border_ns <= 0:
        return 0, 0
    with path.open("rb") as file:
        # A look at the first line settles nearly all files.
        low, high = 0, os.fstat(file.fileno()).st_size
        if not _is_old(file, 0, profile, border_ns):
            return 0, 0
        # A line that begins at ``low`` is old, none that begins at ``high`` or later is.
        while high - low > 1:
            middle = (low + high) // 2
            # On to the first line that begins at the middle or after it.
            file.seek(middle - 1)
            file.readline()
            start = file.tell()
            if start < high and _is_old(file, start, profile, border_ns):
                low = start
            else:
                high = middle
        file.seek(low)
        offset = low + len(file.readline())
        file.seek(0)
        return _newlines(file, offset), offset


def _is_old(file: BinaryIO, start: int, profile: str, border_ns: int) -> bool:
    file.seek(start)
    for _ in range(LINES_WITHOUT_TIME):
        line = file.readline()
        when = time_of(line, profile)
        if when is not None:
            return when < border_ns
        if not line.endswith(b"\n"):
            break
    return False


def _newlines(file: BinaryIO, size: int) -> int:
    found = 0
    while size > 0 and (block := file.read(min(BLOCK, size))):
        found += block.count(b"\n")
        size -= len(block)
    return found
