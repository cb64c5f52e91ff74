"""What an export says while it runs and when it is done: figures on stderr where somebody looks, trouble always."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.text import Text

from onecollector.cli.render import console, error_console, human_bytes
from onecollector_resources.exports.exporting import Outcome
from onecollector_resources.loki.catalogue import IndexStats

if TYPE_CHECKING:
    from rich.progress import Progress


def human_count(count: float) -> str:
    """``38.1 M``, ``812 k``, ``999``."""
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if count >= size:
            return f"{count / size:.1f}{unit}" if count < 100 * size else f"{count / size:.0f}{unit}"
    return f"{count:.0f}"


def _bar(console: Console) -> Progress:
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    return Progress(
        BarColumn(None),
        TaskProgressColumn(),
        TextColumn("{task.fields[rows]} lines  {task.fields[rate]} lines/s"),
        TimeRemainingColumn(compact=True),
        TextColumn("left"),
        console=console,
        transient=True,
    )


class Meter:
    """A bar with lines, lines a second and the time that is left; partitions with trouble are told as they come.

    The bar goes by bytes of lines against what Loki's index says, which is an estimate: it may end before the bar.
    """

    def __init__(self, size: IndexStats, *, shown: bool) -> None:
        self._size = size
        self._console = error_console()
        self._progress = _bar(self._console) if shown else None
        self._task = (
            self._progress.add_task("", total=size.bytes or None, rows="0", rate="-") if self._progress else None
        )
        self._rows = 0

    def __enter__(self) -> Self:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def expected(self) -> str:
        """``61.2 M lines, 9.4 GB (from index/stats)``."""
        return f"{human_count(self._size.entries)} lines, {human_bytes(self._size.bytes)} (from index/stats)"

    def add(self, rows: int, size: int) -> None:
        """So many more rows, with so many bytes of lines."""
        if self._progress is None or self._task is None:
            return
        self._rows += rows
        elapsed = self._progress.tasks[0].elapsed or 0
        rate = human_count(self._rows / elapsed) if elapsed > 1 else "-"
        self._progress.update(self._task, advance=size, rows=human_count(self._rows), rate=rate)

    def settled(self, outcome: Outcome) -> None:
        """Tell what is wrong with a partition, if anything is."""
        problems = [outcome.error] if outcome.error else list(outcome.manifest.problems if outcome.manifest else ())
        for problem in problems:
            self._console.print(Text(f"✗ {outcome.task.selection.partition}: {problem}", style="red"))

    @staticmethod
    def say(text: str) -> None:
        """A line on stdout."""
        console().print(Text(text))
        sys.stdout.flush()


@dataclass(frozen=True, slots=True)
class Totals:
    """All partitions together."""

    partitions: int
    skipped: int
    incomplete: int
    failed: int
    rows: int
    entries: int
    duplicates: int
    files: int
    bytes: int
    line_bytes: int
    known_holes: int
    unknown_holes: int
    seconds: float

    @classmethod
    def of(cls, outcomes: Sequence[Outcome], seconds: float) -> Totals:
        """The sums."""
        manifests = [outcome.manifest for outcome in outcomes if outcome.manifest is not None]
        holes = [hole for m in manifests for hole in m.holes]
        return cls(
            partitions=len(outcomes),
            skipped=sum(outcome.skipped for outcome in outcomes),
            incomplete=sum(not outcome.complete for outcome in outcomes),
            failed=sum(bool(outcome.error) for outcome in outcomes),
            rows=sum(m.rows for m in manifests),
            entries=sum(m.entries for m in manifests),
            duplicates=sum(m.duplicates for m in manifests),
            files=sum(len(m.files) for m in manifests),
            bytes=sum(file.bytes for m in manifests for file in m.files),
            line_bytes=sum(m.line_bytes for m in manifests),
            known_holes=sum(bool(hole.known) for hole in holes),
            unknown_holes=sum(not hole.known for hole in holes),
            seconds=seconds,
        )

    def plain(self) -> dict[str, Any]:
        """For machines."""
        return {name: getattr(self, name) for name in self.__slots__}

    def told(self, url: str, unchecked: str = "") -> str:
        """The last line, which says whether that is all."""
        if unchecked:
            holes = unchecked
        elif self.unknown_holes:
            holes = f"{self.unknown_holes} holes in record numbers that no gap explains"
        elif self.known_holes:
            holes = f"{self.known_holes} holes in record numbers, all of them explained in the manifests"
        else:
            holes = "no hole in record numbers"
        word = "done" if not self.incomplete else "INCOMPLETE"
        there = f" ({self.skipped} of {self.partitions} partitions were there)" if self.skipped else ""
        return (
            f"{word:<10} {self.rows:,} rows in {self.files} files, {human_bytes(self.bytes)}{there}"
            f" · {self.entries:,} entries − {self.duplicates:,} duplicates · {holes}"
            + (f" · {self.incomplete} of {self.partitions} partitions are not complete" if self.incomplete else "")
            + f" · {self.seconds:.1f}s · {url}"
        )


def outcome_row(outcome: Outcome) -> dict[str, Any]:
    """A partition for machines."""
    partition, manifest = outcome.task.selection.partition, outcome.manifest
    return {
        "tenant": partition.tenant,
        "service": partition.service,
        "hour": partition.hour.isoformat(),
        "engine": outcome.task.source.name,
        "reason": outcome.task.reason,
        "complete": outcome.complete,
        "skipped": outcome.skipped,
        "error": outcome.error,
        "problems": list(manifest.problems) if manifest else [],
        "rows": manifest.rows if manifest else None,
        "duplicates": manifest.duplicates if manifest else None,
        "files": [partition.prefix + file.name for file in manifest.files] if manifest else [],
    }
