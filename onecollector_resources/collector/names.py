"""Component names as the deployed binary knows them: they change between releases, and aliases are dropped one day.

``components`` of some releases leaves out every type that has an alias. What lists all names is the error of ``validate``
for a config with one unknown type per section.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

PREFERRED = {
    "file_log": ("file_log", "filelog"),
    "otlp_http": ("otlp_http", "otlphttp"),
    "memory_limiter": ("memory_limiter",),
    "transform": ("transform",),
    "filter": ("filter",),
    "file_storage": ("file_storage",),
    "health_check": ("health_check",),
}
"""What we render, each with its names from new to old."""

UNKNOWN_TYPES = """
receivers: {oc_unknown: }
processors: {oc_unknown: }
exporters: {oc_unknown: }
connectors: {oc_unknown: }
extensions: {oc_unknown: }
service: {pipelines: {logs: {receivers: [oc_unknown], exporters: [oc_unknown]}}}
"""


class CollectorBinaryError(RuntimeError):
    """The collector's binary cannot be run or is not one."""


@dataclass(frozen=True, slots=True)
class ComponentNames:
    """Rendered name of each component, and all names the binary knows by section."""

    chosen: dict[str, str] = field(default_factory=lambda: {name: options[0] for name, options in PREFERRED.items()})
    known: dict[str, frozenset[str]] = field(default_factory=dict)

    def __getitem__(self, name: str) -> str:
        return self.chosen[name]


def parse_names(error: str) -> dict[str, frozenset[str]]:
    """Names by section out of the error of ``validate``."""
    found = re.findall(r"'(\w+)' unknown type: \S+ for id: \S+ \(valid values: \[([^\]]*)\]\)", error)
    return {section: frozenset(names.split()) for section, names in found}


def component_names(binary: Path) -> ComponentNames:
    """Ask the binary once per process and file. Raises CollectorBinaryError."""
    try:
        stat = binary.stat()
    except OSError as error:
        raise CollectorBinaryError(
            f"collector {binary}: {error.strerror}; run: onecollector install collector"
        ) from error
    return _names_of(binary, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=4)
def _names_of(binary: Path, mtime: int, size: int) -> ComponentNames:
    try:
        done = subprocess.run(
            [str(binary), "validate", f"--config=yaml:{UNKNOWN_TYPES}"], text=True, capture_output=True, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CollectorBinaryError(f"collector {binary} cannot be run: {error}") from error
    known = parse_names(done.stderr + done.stdout)
    if "receivers" not in known:
        raise CollectorBinaryError(
            f"{binary} does not answer like a collector: {(done.stderr or done.stdout).strip()[:300]}"
        )
    everything = frozenset().union(*known.values())
    chosen = {}
    for name, options in PREFERRED.items():
        there = next((option for option in options if option in everything), None)
        if there is None:
            raise CollectorBinaryError(f"{binary} has none of {', '.join(options)}; expected a build with {name}")
        chosen[name] = there
    return ComponentNames(chosen, known)
