"""How results look: tables and words for people, JSON for machines, no colour when piped."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.table import Table
from rich.text import Text

from onecollector.cli.visible import Terminal, on_one_line


def console() -> Terminal:
    """stdout; rich drops colour by itself when it is not a terminal, and lines are not folded in a pipe."""
    return Terminal(highlight=False, soft_wrap=not sys.stdout.isatty(), width=None if sys.stdout.isatty() else 200)


def error_console() -> Terminal:
    """stderr."""
    return Terminal(stderr=True, highlight=False)


def warn(message: str) -> None:
    """A line on stderr."""
    error_console().print(Text(message, style="yellow"))


def print_json(value: Any) -> None:
    """One JSON document."""
    print(json.dumps(value, indent=1, sort_keys=True, default=_plain))  # noqa: T201


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if hasattr(value, "__slots__"):
        return {name: getattr(value, name) for name in value.__slots__}
    return str(value)


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], right: Sequence[str] = ()) -> Table:
    """A table without lines: the density of `docker ps`."""
    out = Table(box=None, pad_edge=False, header_style="dim")
    for name in columns:
        out.add_column(name, justify="right" if name in right else "left", no_wrap=True, overflow="ellipsis")
    for row in rows:
        # Text, not str: names of containers are not markup.
        out.add_row(
            *(cell if isinstance(cell, Text) else Text(on_one_line("" if cell is None else str(cell))) for cell in row)
        )
    return out


def human_bytes(size: float) -> str:
    """``131 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:.0f} {unit}" if unit in ("B", "kB", "MB") else f"{size:.1f} {unit}"
        size /= 1000
    return ""
