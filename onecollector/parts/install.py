"""`onecollector install`: each part on PATH, in the cache, fetched or built now, with a line that counts the seconds.

A release archive is a short cut: where it cannot be had or used, the reason is said and the part is built from its
module, which needs nothing but Go and its module proxy.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from onecollector.parts.build import BuildFailed, build, find_go, install_go
from onecollector.parts.cache import cache_folder, cached, locked
from onecollector.parts.locate import locate, named_binary
from onecollector.parts.pins import Pin, SystemPin, go_pin, pins, system_pins
from onecollector.parts.releases import archive_of
from onecollector.parts.ticker import Ticker

if TYPE_CHECKING:
    from onecollector.parts.download import Downloads


State = Literal["there", "fetched", "built", "installed", "missing"]


@dataclass(frozen=True, slots=True)
class PartResult:
    """What became of one part; ``reason`` says why it is missing, or why it was built though a release is declared."""

    part: str
    state: State
    version: str
    path: str
    seconds: float
    reason: str = ""


class Run:
    """One run of the command: what it says meanwhile, and what it learned about hosts."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self._downloads: Downloads | None = None

    def ticker(self, part: str, doing: str, usual: str) -> Ticker:
        """A counting line for one step."""
        return Ticker(part, doing, usual, self.quiet)

    def say(self, text: str) -> None:
        """A line at once, for what is learned long before the table is printed."""
        if not self.quiet:
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()

    def fetch(self, pin: Pin) -> tuple[Path | None, str]:
        """The part from its release archive, or why not; no reason where none is declared. The caller has the lock."""
        archive = archive_of(pin)
        if archive is None:
            return None, ""
        # Only here: a run that finds all parts never pays for the import of an HTTP client.
        from onecollector.parts.download import Downloads, NotFetched
        from onecollector.parts.fetch import fetch

        downloads = self._downloads = self._downloads or Downloads()
        silent = downloads.known_silent(archive.url)
        try:
            with nullcontext() if silent else self.ticker(pin.name, f"fetching {archive.name}", "less than a minute"):
                return fetch(pin, archive, downloads), ""
        except NotFetched as error:
            if not silent:
                self.say(f"{pin.name}: no release archive: {error}\n    it is built from its module instead")
            return None, str(error)


def install_part(pin: Pin, run: Run) -> PartResult:
    """Find, fetch or build one part."""
    began = time.monotonic()

    def result(state: State, path: Path | None, reason: str = "") -> PartResult:
        return PartResult(pin.name, state, pin.version, str(path or ""), time.monotonic() - began, reason)

    found = locate(pin.name)
    if found is not None:
        return result("there", found)
    variable, named = named_binary(pin.name)
    if named is not None:
        return result("missing", None, f"{pin.name}: expected a file at {named} (${variable}), found none; unset it")
    with locked(pin.name, run.ticker(pin.name, "waiting for another install", f"{pin.usual_s} s on two cores")):
        if cached(pin).is_file():
            # The one that we waited for brought it.
            return result("there", cached(pin))
        fetched, reason = run.fetch(pin)
        if fetched is not None:
            return result("fetched", fetched)
        logs = cache_folder() / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        log = logs / f"{pin.name}-{pin.key}.log"
        # Under the lock: the log of a build that still runs is not ours to take away.
        log.unlink(missing_ok=True)
        try:
            go = find_go()
            if go is None:
                with run.ticker("go", "installing", f"{go_pin().usual_s} s"):
                    go = install_go(log)
            with run.ticker(pin.name, "building", f"{pin.usual_s} s on two cores"):
                path = build(pin, go, log)
        except BuildFailed as error:
            return result("missing", None, str(error))
        return result("built", path, reason)


def system_command(pin: SystemPin) -> str | None:
    """Path of a command of the distribution, also where sbin is not on PATH."""
    return shutil.which(pin.command) or next(
        (str(p) for folder in ("/usr/sbin", "/sbin", "/bin") if (p := Path(folder) / pin.command).exists()), None
    )


def command_version(path: str) -> str:
    """The version that a command of the distribution tells of itself; empty where it tells none."""
    try:
        done = subprocess.run([path, "--version"], text=True, capture_output=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    match = re.search(r"\d+\.\d+(\.\d+)?", done.stdout + done.stderr)
    return match[0] if match else ""


def install_system(pin: SystemPin) -> PartResult:
    """A part from the distribution: installed as root on Debian, else the command is said."""
    began = time.monotonic()
    found = system_command(pin)
    if found:
        return PartResult(pin.name, "there", command_version(found), found, time.monotonic() - began)
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
    return PartResult(pin.name, "installed", command_version(found), found, time.monotonic() - began)


def install(parts: Sequence[str] | None = None, *, quiet: bool = False) -> list[PartResult]:
    """Find or install parts, all by default, one after the other. Raises KeyError for an unknown part."""
    known = {**system_pins(), **pins()}
    names = list(parts) if parts else list(known)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise KeyError(f"unknown parts {unknown}; expected some of {sorted(known)}")
    results, run = [], Run(quiet)
    for name in names:
        pin = known[name]
        results.append(install_system(pin) if isinstance(pin, SystemPin) else install_part(pin, run))
    return results


def install_command(parts: Sequence[str] | None, *, json_output: bool = False) -> int:
    """The command: prints a row per part; 0 where all are there."""
    from onecollector.cli.invocation import as_pasted
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
            # Why a part was built and not fetched was said when it happened.
            if not result.path:
                sys.stderr.write(f"{as_pasted(result.reason)}\n")
    return 0 if all(result.path for result in results) else 1
