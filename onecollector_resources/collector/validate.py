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

TIMEOUT_S = 30
WHERE = re.compile(
    r"(?:'(?P<quoted>[\w.:/+-]+)'|(?P<path>(?:service|receivers|processors|exporters|extensions)[:.][\w.:/+-]*))"
)


def parse_errors(output: str) -> tuple[Finding, ...]:
    """Findings out of what the binary printed: one a line, at the place that it names."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    lines = [re.sub(r"^\d{4}[/-]\d\d[/-]\d\d\S* (\d\d:\d\d:\d\d )?", "", line) for line in lines]
    kept = [
        line
        for line in lines
        if not line.lower().startswith(("usage:", "for more", "flags:")) and "[MISSING]" not in line
    ]
    out, seen = [], set()
    for line in kept:
        text = re.sub(r"^Error: ", "", line)
        if (
            text in seen
            or text.endswith("error(s) decoding:")
            or text in ("decoding failed due to the following error(s):",)
        ):
            continue
        seen.add(text)
        match = WHERE.search(text)
        where = (match["quoted"] or match["path"]) if match else "config"
        out.append(Finding("error", "binary", where, text[:600], "mend it; the collector refuses to start with it"))
    return tuple(out[:20])


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
