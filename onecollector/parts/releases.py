"""Which release archive of a part fits this machine, if any.

The pin file declares the archives that a part's own project publishes. A checksum that is pinned there wins; without
one it comes from the checksum file that the project publishes beside the archive, which guards against a damaged or
mistaken download, not against a project that was broken into. Who wants only what go.sum pins says
``ONECOLLECTOR_RELEASES=off``.

Our own collector has no public release: ``ONECOLLECTOR_RELEASES=https://...`` names the folder that holds one. Its
archive carries the pin's key in its name, so a collector of another manifest is never taken for ours.
"""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass

from onecollector.parts.pins import Pin

OFF = "off"
MACHINES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


@dataclass(frozen=True, slots=True)
class Archive:
    """One archive to fetch: ``member`` is the binary in it; ``sha256`` is empty where ``checksums`` has to be asked."""

    url: str
    kind: str
    member: str
    checksums: str
    sha256: str

    @property
    def name(self) -> str:
        """The archive's file name, by which the checksum file names it."""
        return self.url.rsplit("/", 1)[1]


def this_platform() -> str:
    """``linux-amd64``: the names that Go uses."""
    machine = platform.machine().lower()
    return f"{sys.platform}-{MACHINES.get(machine, machine)}"


def archive_of(pin: Pin, where: str | None = None) -> Archive | None:
    """The archive of a part for a platform, this machine's by default; None where none is declared or wanted."""
    base = os.environ.get("ONECOLLECTOR_RELEASES", "").strip().rstrip("/")
    where = where or this_platform()
    release = pin.release
    if release is None or where not in release.platforms or base == OFF:
        return None
    if "{releases}" in release.url and not base:
        return None
    words = {"version": pin.version, "key": pin.key, "platform": release.platforms[where], "releases": base}
    url = release.url.format(**words)
    return Archive(
        url=url,
        kind=release.archive,
        member=release.member.format(**words),
        checksums=f"{url.rsplit('/', 1)[0]}/{release.checksums}",
        sha256=release.sha256.get(where, "").lower(),
    )
