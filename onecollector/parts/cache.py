"""The cache of parts: where each lies, who may write to it, and how a part appears in it.

It lies outside any checkout and is keyed by version and by everything the build depends on, so two checkouts with the
same pins share it and two with other pins do not meet. A part is made in a folder beside its place, under a lock that
one process holds, and appears by one rename: nobody ever sees half of it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from platformdirs import user_cache_path

from onecollector.parts.pins import Pin


def cache_folder() -> Path:
    """``$ONECOLLECTOR_CACHE``, else the XDG cache folder."""
    named = os.environ.get("ONECOLLECTOR_CACHE")
    return Path(named) if named else user_cache_path("onecollector") / "parts"


def cached(pin: Pin) -> Path:
    """Where the part lies in the cache, whether it is there or not."""
    return cache_folder() / pin.name / pin.key / pin.binary


@contextmanager
def locked(name: str, waiting: AbstractContextManager[object] | None = None) -> Iterator[None]:
    """One process at a time makes a part. ``waiting`` is entered only while another one has the lock."""
    folder = cache_folder() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with waiting or nullcontext():
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def work_folder(pin: Pin) -> Iterator[Path]:
    """A folder beside the part's place, on the same file system, gone afterwards. The caller holds the part's lock."""
    beside = cached(pin).parent.parent
    beside.mkdir(parents=True, exist_ok=True)
    for left in beside.glob("build-*"):
        # We hold the lock, so whoever made it was killed.
        shutil.rmtree(left, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix="build-", dir=beside))
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def appear(pin: Pin, made: Path) -> Path:
    """Put the folder with the finished binary at the part's place; answers the binary's path. The caller has the lock."""
    target = cached(pin)
    for path in made.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    # A folder without the binary is what somebody's clean-up left; a rename onto it would fail.
    shutil.rmtree(target.parent, ignore_errors=True)
    made.replace(target.parent)
    return target
