"""A part from its release archive: summed, one member taken out, asked for its version, then put into the cache.

Every step can fail without harm: nothing appears in the cache before all of them went well, and building follows.
"""

from __future__ import annotations

import json
import shutil
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import IO

from onecollector.parts.cache import appear, work_folder
from onecollector.parts.download import Downloads, NotFetched
from onecollector.parts.locate import version_of
from onecollector.parts.pins import Pin
from onecollector.parts.releases import Archive

# Even a part that builds in seconds rests on one that takes minutes.
LEAST_TIME_S = 60


def fetch(pin: Pin, archive: Archive, downloads: Downloads) -> Path:
    """Fetch a part into the cache; answers its path. The caller holds the part's lock. Raises NotFetched."""
    silent = downloads.silent(archive.url)
    if silent:
        raise NotFetched(silent)
    try:
        with work_folder(pin) as work:
            expected = downloads.checksum(archive)
            packed = work / "archive"
            found = downloads.download(archive.url, packed, max(LEAST_TIME_S, pin.usual_s))
            if found != expected:
                origin = "the pin file" if archive.sha256 else archive.checksums
                raise NotFetched(
                    f"{archive.url}: wrong checksum: expected sha256 {expected} ({origin}), found {found}; nothing is kept"
                )
            made = work / "out" / pin.binary
            made.parent.mkdir()
            extract(archive, packed, made)
            made.chmod(0o755)
            told = version_of(made, pin)
            if told != pin.version:
                raise NotFetched(f"{archive.url}: expected version {pin.version}, its {archive.member} says {told!r}")
            note = {"url": archive.url, "sha256": found, "pinned": bool(archive.sha256)}
            (made.parent / "origin.json").write_text(json.dumps(note) + "\n", encoding="utf-8")
            return appear(pin, made.parent)
    except OSError as error:
        raise NotFetched(f"{archive.url}: {error}") from error


def extract(archive: Archive, packed: Path, made: Path) -> None:
    """Write one member to a path of ours; where the archive would put it, or any other, does not matter. NotFetched."""
    try:
        if archive.kind == "zip":
            with zipfile.ZipFile(packed) as box:
                with box.open(archive.member) as member:
                    _copy(member, made)
        else:
            with tarfile.open(packed, "r:gz") as box:
                info = box.getmember(archive.member)
                member = box.extractfile(info) if info.isreg() else None
                if member is None:
                    raise NotFetched(f"{archive.url}: expected {archive.member} to be a file, found a link or folder")
                _copy(member, made)
    except KeyError as error:
        raise NotFetched(f"{archive.url}: expected a member {archive.member}, found none") from error
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError) as error:
        raise NotFetched(f"{archive.url}: expected a {archive.kind} archive, found something else ({error})") from error


def _copy(member: IO[bytes], made: Path) -> None:
    with made.open("wb") as out:
        shutil.copyfileobj(member, out, 1 << 20)
