"""A machine with nothing on it, for the tests of `install`: a pin file, a cache, a Go that counts, a release host."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from onecollector.parts import pins as pin_file
from onecollector.parts.install import PartResult, install
from onecollector.parts.releases import this_platform

FAKE_GO = """#!/bin/sh
case "$1" in
env) echo go1.99.0 ;;
build)
  echo build >> "$TEST_BUILDS"
  while [ -n "$TEST_HOLD" ] && [ ! -e "$TEST_HOLD" ]; do sleep 0.05; done
  if [ -n "$TEST_BROKEN" ]; then echo "main.go:3:1: undefined: nothing"; exit 1; fi
  while [ "$1" != -o ]; do shift; done
  printf '#!/bin/sh\\necho tiny, version 1.2.3\\n' > "$2"
  chmod 755 "$2" ;;
esac
"""


def program(version: str = "1.2.3") -> bytes:
    return f"#!/bin/sh\necho tiny, version {version}\n".encode()


def zipped(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as box:
        for name, data in members.items():
            box.writestr(name, data)
    return out.getvalue()


def tarred(name: str, data: bytes, link: str = "") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as box:
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(data), 0o755
        if link:
            info.type, info.linkname = tarfile.SYMTYPE, link
        box.addfile(info, io.BytesIO(data))
    return out.getvalue()


@dataclass
class Server:
    """A release host. ``files`` by path; a path in ``cut`` promises all of a file and sends half."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    cut: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)

    def publish(self, name: str, archive: bytes, digest: str | None = None) -> None:
        self.files[f"/v1.2.3/{name}"] = archive
        digest = digest or hashlib.sha256(archive).hexdigest()
        self.files["/v1.2.3/SHA256SUMS"] = f"{'0' * 64}  another.zip\n{digest} *{name}\n".encode()


@dataclass
class World:
    """One machine: a pin file with two parts, an empty cache, a Go that counts its builds."""

    root: Path
    monkeypatch: pytest.MonkeyPatch
    part: dict[str, object]

    @property
    def builds(self) -> int:
        file = self.root / "builds"
        return len(file.read_text().splitlines()) if file.exists() else 0

    @property
    def kept(self) -> list[str]:
        """What lies in the cache, but for logs and locks."""
        cache = self.root / "cache"
        files = (str(path.relative_to(cache)) for path in cache.rglob("*") if path.is_file())
        return sorted(name for name in files if not name.startswith(("logs/", "locks/")))

    def write(self, **changes: object) -> None:
        """Write the pin file with ``changes`` of its part; a part `second` is made alike."""
        part = {**self.part, **changes}
        data = {
            "go": {"minimum": "1.20", "pypi": "none", "pypi_version": "0", "usual_s": 1},
            "parts": {"tiny": part, "second": {**part, "binary": "tiny-second"}},
            "system": {},
        }
        (self.root / "stack" / "pins.yaml").write_text(json.dumps(data))
        for function in (pin_file._file, pin_file.pins, pin_file.system_pins):
            function.cache_clear()

    def release(self, base: str, **changes: object) -> None:
        """Write the pin file with a release at ``base``."""
        row = {
            "url": base + "/v{version}/tiny-{platform}.zip",
            "archive": "zip",
            "member": "tiny-{platform}",
            "checksums": "SHA256SUMS",
            "platforms": {this_platform(): "here"},
        }
        self.write(release={**row, **changes})

    def on_path(self, name: str, text: str) -> Path:
        path = self.root / "bin" / name
        path.write_text(text)
        path.chmod(0o755)
        return path

    def install(self) -> PartResult:
        return install(["tiny"], quiet=True)[0]
