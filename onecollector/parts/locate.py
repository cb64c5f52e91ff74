"""Where a part is: on PATH in its pinned version, else in the cache, else nowhere.

What a user has on PATH is what they mean, so it comes first, but only in the version that this project was tested with.
Asking a binary for its version costs a process, so each is asked once per process.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

from onecollector.parts.cache import cached
from onecollector.parts.pins import Pin, pins


@cache
def _told(binary: str, arguments: tuple[str, ...], _mtime_ns: int, _size: int) -> str:
    try:
        done = subprocess.run(
            [binary, *arguments], text=True, errors="replace", capture_output=True, stdin=subprocess.DEVNULL, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    match = re.search(r"\d+\.\d+\.\d+", done.stdout + done.stderr)
    return match[0] if match else ""


def version_of(binary: Path, pin: Pin) -> str:
    """The version that a binary tells of itself; empty where it tells none. A replaced file is asked anew."""
    try:
        state = binary.stat()
    except OSError:
        return ""
    return _told(str(binary), pin.version_args, state.st_mtime_ns, state.st_size)


def on_path(pin: Pin) -> Path | None:
    """The part on PATH, if it is of the pinned version."""
    found = shutil.which(pin.binary)
    return Path(found) if found and version_of(Path(found), pin) == pin.version else None


def named_binary(name: str) -> tuple[str, Path | None]:
    """The variable that names a binary of the user's own, and the path it holds, whether that is a file or not."""
    variable = f"ONECOLLECTOR_{name.upper().replace('-', '_')}_BINARY"
    named = os.environ.get(variable)
    return variable, Path(named) if named else None


def locate(name: str) -> Path | None:
    """The binary of a part, or None. Raises KeyError for a part that the pin file does not name."""
    pin = pins()[name]
    named = named_binary(name)[1]
    if named is not None:
        # A binary of the user's own: newer versions are welcome, its component names are read from it.
        return named if named.is_file() else None
    there = cached(pin)
    return on_path(pin) or (there if there.is_file() else None)
