"""How log lines and numbers out of Loki look: for people in a terminal, plain in a pipe, JSON for machines."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from rich.text import Text

from onecollector.cli.render import console, table
from onecollector.cli.visible import escaped, on_one_line, visible

if TYPE_CHECKING:
    from onecollector_resources.loki.answers import Entry, Sample

Form = Literal["text", "raw", "jsonl"]

STYLES = {
    "trace": "dim",
    "debug": "dim",
    "warn": "yellow",
    "warning": "yellow",
    "error": "red",
    "err": "red",
    "fatal": "bold red",
    "critical": "bold red",
}
"""By severity; what is not here is as usual as any line."""

BARS = "▁▂▃▄▅▆▇█"


def as_record(entry: Entry) -> dict[str, Any]:
    """An entry for JSON."""
    record = {"time_ns": entry.time_ns, "line": entry.line, "labels": entry.labels, "metadata": entry.metadata}
    return {**record, "parsed": entry.parsed} if entry.parsed else record


class LinePrinter:
    """Writes lines to stdout in one form; flushed after each ``show``, so that a pipe sees them at once.

    ``day`` is the one whose lines need no date.
    """

    def __init__(self, form: Form, day: datetime | None = None) -> None:
        self._form, self._out = form, console()
        self._day = f"{day or datetime.now(UTC):%Y-%m-%d}"
        self._coloured = form == "text" and sys.stdout.isatty()

    def show(self, entries: Iterable[Entry], *, filled: bool = False) -> None:
        """``filled`` marks lines that a live tail brought late."""
        for entry in entries:
            if self._form == "raw":
                sys.stdout.write(entry.line + "\n")
            elif self._form == "jsonl":
                record = as_record(entry) | ({"filled": True} if filled else {})
                document = json.dumps(record, ensure_ascii=False)
                sys.stdout.write((escaped(document) if sys.stdout.isatty() else document) + "\n")
            elif self._coloured:
                stamp, service, line = self._parts(entry, filled)
                text = Text().append(stamp, style="dim").append(service, style="cyan")
                self._out.print(text.append(line, style=STYLES.get(entry.severity, "default")), soft_wrap=True)
            else:
                sys.stdout.write("".join(self._parts(entry, filled)) + "\n")
        sys.stdout.flush()

    def _parts(self, entry: Entry, filled: bool) -> tuple[str, str, str]:
        stamp = f"{datetime.fromtimestamp(entry.time_ns // 10**9, UTC):%Y-%m-%d %H:%M:%S}"
        stamp = stamp.removeprefix(f"{self._day} ") + f".{entry.time_ns // 10**6 % 1000:03d}"
        service = on_one_line(entry.labels.get("service_name", ""))
        return f"{stamp}{'+' if filled else ' '}", f"{service} " if service else "", visible(entry.line)


def series_name(sample: Sample) -> str:
    """``{a="b"}``."""
    return "{" + ", ".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items())) + "}"


def number(value: float) -> str:
    """Short, and exact where it is a whole number."""
    if not math.isfinite(value):
        return str(value)
    return f"{int(value):,}" if value == int(value) and abs(value) < 1e15 else f"{value:.4g}"


def trend(values: Sequence[float], width: int = 30) -> str:
    """Bars, the last ``width`` values, from the smallest to the largest."""
    kept = [value for value in values[-width:] if math.isfinite(value)]
    if not kept:
        return ""
    low, high = min(kept), max(kept)
    # Halves, as the whole of two numbers far apart is no number.
    span = (high / 2 - low / 2) or 1
    return "".join(BARS[round((value / 2 - low / 2) / span * (len(BARS) - 1))] for value in kept)


def show_series(series: Sequence[Sample]) -> None:
    """A metric query's answer as a small table, the largest first."""
    ordered = sorted(series, key=lambda sample: 0.0 if math.isnan(sample.value) else -sample.value)
    if all(len(sample.points) == 1 for sample in ordered):
        console().print(table(("SERIES", "VALUE"), [(series_name(s), number(s.value)) for s in ordered], ("VALUE",)))
        return
    rows = []
    for sample in ordered:
        values = [value for _, value in sample.points]
        rows.append((series_name(sample), *map(number, (values[-1], min(values), max(values))), trend(values)))
    console().print(table(("SERIES", "LAST", "MIN", "MAX", "TREND"), rows, ("LAST", "MIN", "MAX")))
