"""One shape for all results: a table for people, ``results/<area>.json`` with the machine's description for everybody."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """Processor, cores, memory, kernel, Python."""
    model = ""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def commit() -> str:
    """The commit that was measured; ``+`` where the tree had changes."""
    here = Path(__file__).parent
    name = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=here, text=True, capture_output=True
    ).stdout.strip()
    dirty = subprocess.run(
        ["git", "status", "--porcelain", "-uno"], cwd=here, text=True, capture_output=True
    ).stdout.strip()
    return name + ("+" if dirty else "")


def report(area: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the table and write the JSON. A row: what, value, unit, reach (or None), better (lower or higher).

    One with ``detail`` stands in the JSON and not among the README's figures.
    """
    table = Table(title=area, title_justify="left")
    for name in ("what", "value", "aim", ""):
        table.add_column(name, justify="right" if name in ("value", "aim") else "left")
    for row in rows:
        reach, value = row.get("reach"), row["value"]
        met = "" if reach is None else "✓" if (value <= reach if row["better"] == "lower" else value >= reach) else "✗"
        sign = "<=" if row["better"] == "lower" else ">="
        table.add_row(row["what"], f"{value:,} {row['unit']}", "" if reach is None else f"{sign} {reach:,}", met)
    Console(width=140).print(table)
    RESULTS.mkdir(exist_ok=True)
    body = {
        "bench": area,
        "commit": commit(),
        "measured": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "rows": list(rows),
    }
    (RESULTS / f"{area}.json").write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
