"""The collector's own check, with the node's binary and environment: the last word before a config touches a host.

``validate`` builds the pipelines and starts nothing: a port, a folder or Loki itself are found out only by starting.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from onecollector_resources.collector.names import CollectorBinaryError, ComponentNames, component_names
from onecollector_resources.records import Finding

__all__ = ["CollectorBinaryError", "ComponentNames", "component_names", "parse_errors", "validate_with_binary"]

TIMEOUT_S = 60
STAMP = re.compile(r"^\d{4}[/-]\d\d[/-]\d\d\S* (\d\d:\d\d:\d\d )?")
CHAIN = re.compile(r"(?:decoding failed due to the following error\(s\):|error\(s\) decoding:)$")
"""Ends a line that only leads to the next one."""

READING = re.compile(r"'(?P<section>\w+)' error reading configuration for \"(?P<name>[^\"]+)\"")
UNKNOWN = re.compile(r"'(?P<section>\w+)' unknown type: \"[^\"]*\" for id: \"(?P<name>[^\"]*)\"")
CREATING = re.compile(
    r"failed to create \"(?P<name>[^\"]+)\" (?P<kind>receiver|processor|exporter|extension|connector)\b"
)
INVALID = re.compile(r"'[^']*' has invalid keys: (?P<key>[\w./-]+)")
QUOTED = re.compile(r"^'(?P<key>[\w.:/+\[\]-]+)' ")
PATH = re.compile(r"(?P<path>(?:service|receivers|processors|exporters|extensions)::[\w.:/+-]*[\w+-])")


def parse_errors(output: str) -> tuple[Finding, ...]:
    """Findings out of what the binary printed, at the place that it names: ``processors::memory_limiter::limit_mib``.

    Its errors are a tree, a line a level: what leads to the next line is taken for the way there.
    """
    out: dict[str, Finding] = {}
    below = ""
    for line in output.splitlines():
        text = re.sub(r"^(Error: |\* )+", "", STAMP.sub("", line.strip()))
        if text.startswith("Usage:"):
            break
        if not text or "[MISSING]" in text:
            continue
        reading = READING.search(text)
        if CHAIN.search(text):
            below = f"{reading['section']}::{reading['name']}" if reading else ""
            continue
        where = _place(text, below)
        out.setdefault(text, Finding("error", "binary", where, text[:600], "mend it; the collector refuses to start"))
    return tuple(out.values())[:20]


def _place(text: str, below: str) -> str:
    for pattern in (READING, UNKNOWN):
        if match := pattern.search(text):
            return f"{match['section']}::{match['name']}"
    if match := CREATING.search(text):
        return f"{match['kind']}s::{match['name']}"
    if match := PATH.search(text):
        return match["path"]
    if match := INVALID.search(text) or QUOTED.search(text):
        return "::".join(filter(None, (below, match["key"].replace(".", "::"))))
    return below or "config"


def validate_with_binary(text: str, binary: Path, environment: Mapping[str, str] | None = None) -> tuple[Finding, ...]:
    """Findings of ``<binary> validate``; none where it accepts. Raises CollectorBinaryError."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        try:
            done = subprocess.run(
                [str(binary), "validate", "--config", file.name],
                text=True,
                capture_output=True,
                timeout=TIMEOUT_S,
                env={**os.environ, **(environment or {})},
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise CollectorBinaryError(f"collector {binary} cannot check a config: {error}") from error
    if done.returncode == 0:
        return ()
    found = parse_errors(done.stderr + done.stdout)
    return found or (Finding("error", "binary", "config", f"exit {done.returncode} without a word", "run it by hand"),)
