"""`onecollector install`: each part on PATH, in the cache, or built now, with a line that says how long it usually takes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from onecollector.parts.build import BuildFailed, build, find_go, install_go
from onecollector.parts.locate import cache_folder, locate
from onecollector.parts.pins import Pin, SystemPin, go_pin, pins, system_pins


@dataclass(frozen=True, slots=True)
class PartResult:
    """What became of one part."""

    part: str
    state: Literal["there", "built", "installed", "missing"]
    version: str
    path: str
    seconds: float
    reason: str = ""


class Ticker:
    """A line on stderr that counts while something long goes on; silent where nobody looks."""

    def __init__(self, part: str, usual_s: int, quiet: bool) -> None:
        self._text, self._usual, self._stop = part, usual_s, threading.Event()
        self._quiet, self._began = quiet, time.monotonic()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Ticker:
        if not self._quiet:
            sys.stderr.write(f"{self._text}: building, usually {self._usual} s on two cores\n")
            sys.stderr.flush()
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()

    def _run(self) -> None:
        # On a terminal every second; in a log every half minute, so that nobody thinks it hangs.
        tty = sys.stderr.isatty()
        while not self._stop.wait(1 if tty else 30):
            passed = time.monotonic() - self._began
            sys.stderr.write(
                f"{chr(13) if tty else ''}{self._text}: {passed:.0f} s of usually {self._usual} s{'' if tty else chr(10)}"
            )
            sys.stderr.flush()


def install_part(pin: Pin, quiet: bool) -> PartResult:
    """Find or build one part."""
    began = time.monotonic()
    found = locate(pin.name)
    if found is not None:
        return PartResult(pin.name, "there", pin.version, str(found), time.monotonic() - began)
    logs = cache_folder() / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    log = logs / f"{pin.name}-{pin.key}.log"
    log.unlink(missing_ok=True)
    try:
        go = find_go()
        if go is None:
            with Ticker("go", go_pin().usual_s, quiet):
                go = install_go(log)
        with Ticker(pin.name, pin.usual_s, quiet):
            path = build(pin, go, log)
    except BuildFailed as error:
        return PartResult(pin.name, "missing", pin.version, "", time.monotonic() - began, str(error))
    return PartResult(pin.name, "built", pin.version, str(path), time.monotonic() - began)


def system_command(pin: SystemPin) -> str | None:
    """Path of a command of the distribution, also where sbin is not on PATH."""
    return shutil.which(pin.command) or next(
        (str(p) for folder in ("/usr/sbin", "/sbin", "/bin") if (p := Path(folder) / pin.command).exists()), None
    )


def install_system(pin: SystemPin) -> PartResult:
    """A part from the distribution: installed as root on Debian, else the command is said."""
    began = time.monotonic()
    found = system_command(pin)
    if found:
        return PartResult(pin.name, "there", "", found, time.monotonic() - began)
    command = f"apt-get install --no-install-recommends {pin.package}"
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return PartResult(pin.name, "missing", pin.minimum, "", 0.0, f"{pin.name} is not there; as root: {command}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    quiet = {"capture_output": True, "text": True, "env": environment}
    subprocess.run(["apt-get", "update", "-q"], **quiet)  # pyright: ignore[reportCallIssue, reportArgumentType]
    # Packages start their service; the engine that we use is started by `up`, if at all.
    done = subprocess.run([*command.split(), "-y", "-q"], **quiet)  # pyright: ignore[reportCallIssue, reportArgumentType]
    found = system_command(pin)
    if not found:
        tail = " ".join(str(done.stderr).strip().splitlines()[-2:])
        return PartResult(pin.name, "missing", pin.minimum, "", time.monotonic() - began, f"{command} failed: {tail}")
    return PartResult(pin.name, "installed", "", found, time.monotonic() - began)


def install(parts: Sequence[str] | None = None, *, quiet: bool = False) -> list[PartResult]:
    """Find or install parts, all by default, one after the other. Raises KeyError for an unknown part."""
    known = {**system_pins(), **pins()}
    names = list(parts) if parts else list(known)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise KeyError(f"unknown parts {unknown}; expected some of {sorted(known)}")
    results = []
    for name in names:
        pin = known[name]
        results.append(install_system(pin) if isinstance(pin, SystemPin) else install_part(pin, quiet))
    return results


def install_command(parts: Sequence[str] | None, *, json_output: bool = False) -> int:
    """The command: prints a row per part; 0 where all are there."""
    from onecollector.cli.render import console, print_json, table

    try:
        results = install(parts, quiet=json_output)
    except KeyError as error:
        sys.stderr.write(f"{error.args[0]}\n")
        return 2
    if json_output:
        print_json(results)
    else:
        rows = [
            (
                r.part,
                r.version,
                "✓" if r.path else "✗",
                {"there": "", "missing": "missing"}.get(r.state, f"{r.state} in {r.seconds:.0f} s"),
                r.path,
            )
            for r in results
        ]
        console().print(table(("PART", "VERSION", "", "", "PATH"), rows))
        for result in results:
            if result.reason:
                sys.stderr.write(f"{result.reason}\n")
    return 0 if all(result.path for result in results) else 1
