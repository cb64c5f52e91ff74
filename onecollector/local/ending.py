"""Waiting for processes that are not our children to end.

In a container the first process is often one that never looks at what ended, so a process that has ended stays in the
table for ever: whoever waits for it to leave the table waits in vain.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

import psutil

LOOK_S = 0.05


def has_ended(process: psutil.Process) -> bool:
    """Whether it runs no more, looked at by its parent or not."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_ended(processes: Iterable[psutil.Process], timeout_s: float) -> list[psutil.Process]:
    """Wait until all have ended, at most ``timeout_s`` seconds; answers those that still run."""
    end, left = time.monotonic() + timeout_s, list(processes)
    while True:
        left = [process for process in left if not has_ended(process)]
        if not left or time.monotonic() > end:
            return left
        time.sleep(LOOK_S)
