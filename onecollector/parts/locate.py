"""Where a part is: on PATH in its pinned version, else in the cache, else nowhere.

The cache lies outside any checkout and is keyed by version and by everything the build depends on, so two checkouts with
the same pins share it and two with other pins do not meet.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from platformdirs import user_cache_path

from onecollector.parts.pins import Pin, pins


def cache_folder() -> Path:
    """``$ONECOLLECTOR_CACHE``, else the XDG cache folder."""
    named = os.environ.get("ONECOLLECTOR_CACHE")
    return Path(named) if named else user_cache_path("onecollector") / "parts"


def cached(pin: Pin) -> Path:
    """Where the part lies in the cache, whether it is there or not."""
    return cache_folder() / pin.name / pin.key / pin.binary


def version_of(binary: Path, pin: Pin) -> str:
    """The version that a binary tells of itself; empty where it tells none."""
    try:
        done = subprocess.run([str(binary), *pin.version_args], text=True, capture_output=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    match = re.search(r"\d+\.\d+\.\d+", done.stdout + done.stderr)
    return match[0] if match else ""


def on_path(pin: Pin) -> Path | None:
    """The part on PATH, if it is of the pinned version."""
    found = shutil.which(pin.binary)
    return Path(found) if found and version_of(Path(found), pin) == pin.version else None


def locate(name: str) -> Path | None:
    """The binary of a part, or None. Raises KeyError for a part that the pin file does not name."""
    pin = pins()[name]
    named = os.environ.get(f"ONECOLLECTOR_{name.upper().replace('-', '_')}_BINARY")
    if named:
        # A binary of the user's own: newer versions are welcome, its component names are read from it.
        return Path(named) if Path(named).is_file() else None
    there = cached(pin)
    if there.is_file():
        return there
    return on_path(pin)
