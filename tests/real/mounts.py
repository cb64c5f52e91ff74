"""File systems of a test's own: small, full, or elsewhere. Needs root; unmounted at the end, also on failure."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest


@contextmanager
def mounted(point: Path, *arguments: str) -> Iterator[Path]:
    """``mount ARGUMENTS point``. Skips by name where we may not: not root, or a container without the right to mount."""
    if os.geteuid() != 0:
        pytest.skip("needs root: mounts a file system")
    point.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["mount", *arguments, str(point)], text=True, capture_output=True)
    if done.returncode != 0:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")
    try:
        yield point
    finally:
        subprocess.run(["umount", str(point)], check=True)


def tmpfs(point: Path, size: str) -> AbstractContextManager[Path]:
    """An empty file system in memory, of this size."""
    return mounted(point, "-t", "tmpfs", "-o", f"size={size}", "tmpfs")
