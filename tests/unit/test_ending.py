"""A process whose parent never looks has ended all the same."""

from __future__ import annotations

import subprocess
import sys
import time

import psutil

from bench.stack import wait_until
from onecollector.local.ending import has_ended, wait_ended


def test_a_process_that_nobody_looks_at_is_not_waited_for() -> None:
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    process = psutil.Process(child.pid)
    try:
        wait_until("its end", lambda: process.status() == psutil.STATUS_ZOMBIE, 60)
        began = time.monotonic()
        assert wait_ended([process], 120) == []
        assert time.monotonic() - began < 60
    finally:
        child.wait()
    assert has_ended(process)


def test_one_that_runs_is_answered_at_the_deadline() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process = psutil.Process(child.pid)
    try:
        assert wait_ended([process], 0.1) == [process]
    finally:
        child.kill()
        child.wait()
    assert wait_ended([process], 60) == []
