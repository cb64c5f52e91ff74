"""Processes that carry our mark: what `down` still has to end when the supervisor was killed before it could."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable

import psutil

from onecollector.local.ending import has_ended, wait_ended
from onecollector.local.supervisor import MARK
from onecollector_resources.layout import StateLayout


def marked_processes(layout: StateLayout, *, all_pids: Iterable[int] | None = None) -> list[psutil.Process]:
    """Processes whose environment says they belong to this state folder, but not we ourselves or our parents."""
    mark = f"{MARK}={layout.root}".encode()
    spared = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = []
    for pid in psutil.pids() if all_pids is None else all_pids:
        if pid in spared:
            continue
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                variables = file.read().split(b"\0")
            if mark in variables:
                found.append(psutil.Process(pid))
        except (OSError, psutil.NoSuchProcess):
            continue
    return found


ROUNDS = 5
"""A process that is ended may have started another one a moment before."""


def end_marked(layout: StateLayout, *, patience_s: float = 10) -> list[int]:
    """SIGTERM (the collector: SIGKILL), then SIGKILL, until none is left; answers the pids that were ended."""
    ended: list[int] = []
    for _ in range(ROUNDS):
        victims = [process for process in marked_processes(layout) if not has_ended(process)]
        if not victims:
            break
        _end(victims, patience_s)
        ended += [process.pid for process in victims]
    return ended


def _end(victims: list[psutil.Process], patience_s: float) -> None:
    for process in victims:
        with contextlib.suppress(psutil.NoSuchProcess):
            # Asking a collector to stop loses lines while Loki refuses them; see docs/architecture.md.
            if "--feature-gates=stanza.synchronousLogEmitter" in process.cmdline():
                process.kill()
            else:
                process.terminate()
    alive = wait_ended(victims, patience_s)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    wait_ended(alive, 5)
