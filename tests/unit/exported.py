"""Exported datasets of made-up lines, written by the exporter itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from onecollector_resources.exports.partitions import Manifest, Partition
from onecollector_resources.exports.run import Exporter
from onecollector_resources.exports.sources import Selection
from onecollector_resources.loki.lines import LineBlock, label_text
from onecollector_resources.storage.file_store import FileStore
from onecollector_resources.storage.objects import ObjectStore
from tests.unit.lines_model import Line, block_of

HOUR = datetime(2026, 11, 3, 14, tzinfo=UTC)
SECOND_NS = 10**9


@dataclass(frozen=True)
class Lines:
    """A source that holds these."""

    lines: Sequence[Line]
    troubles: tuple[str, ...] = ()
    name: Any = "api"

    def read(self, selection: Selection) -> Lines:
        return self

    def blocks(self) -> Iterator[LineBlock]:
        if self.lines:
            yield block_of(self.lines)

    def problems(self) -> tuple[str, ...]:
        return self.troubles

    def fingerprint(self, selection: Selection) -> str:
        return str(len(self.lines))


def exported(
    store: ObjectStore, scratch: Path, partition: Partition, lines: Sequence[Line], troubles: tuple[str, ...] = ()
) -> Manifest:
    """Write one partition."""
    selection = Selection(partition, '{service_name=~".*"}', partition.start_ns, partition.end_ns)
    return Exporter(store, scratch).export(selection, Lines(lines, troubles), settled=True)


def some_lines(partition: Partition, count: int, text: str = "line") -> list[Line]:
    """One a second; every third is an error, every second has a trace id."""
    labels = {"service_name": partition.service} if partition.service else {"job": "nameless"}
    return [
        (
            partition.start_ns + n * SECOND_NS,
            label_text(labels),
            f"{text} {n}",
            ((("severity_text", "ERROR"),) if n % 3 == 0 else ()) + ((("trace_id", f"t{n}"),) if n % 2 else ()),
        )
        for n in range(count)
    ]


def small_dataset(folder: Path, services: Sequence[str], *, hours: int = 2, rows: int = 6) -> FileStore:
    """``rows`` lines of every service and hour under ``folder/out``."""
    store = FileStore(folder / "out", create=True)
    for service in services:
        for hour in range(hours):
            partition = Partition("default", service, HOUR + timedelta(hours=hour))
            exported(store, folder / "scratch", partition, some_lines(partition, rows))
    return store


RARE = "volume sdb1 went read-only after 3 failed writes"
"""The one line of its kind in ``shop``."""


def shop(folder: Path, *, hours: int = 3) -> FileStore:
    """Three services, each with lines of its few kinds every ten seconds, bursts of errors, and ``RARE`` once.

    The rare line stands in service ``db`` at 15:20:07.000000007; half a second later ``payments`` times out.
    """
    kinds = {
        "web": ("GET /cart/{n} 200 in {n} ms", "GET /item/{n} 304 in {n} ms"),
        "payments": ("charge {n} ok", "charge {n} ok", "card of order {n} declined"),
        "db": ("checkpoint {n} complete, wrote {n} buffers",),
    }
    store = FileStore(folder / "out", create=True)
    rare_ns = int((HOUR + timedelta(hours=1, minutes=20, seconds=7)).timestamp()) * SECOND_NS + 7
    for service, texts in kinds.items():
        labels = label_text({"service_name": service, "host_name": "h1"})
        for hour in range(hours):
            partition = Partition("default", service, HOUR + timedelta(hours=hour))
            lines: list[Line] = []
            for n in range(360):
                text = texts[n % len(texts)].format(n=n * 7 + hour)
                severity = "warn" if "declined" in text else "info"
                time_ns = partition.start_ns + n * 10 * SECOND_NS + len(service)
                lines.append((time_ns, labels, text, (("severity_text", severity),)))
            if hour == 1 and service == "db":
                lines.append((rare_ns, labels, RARE, (("severity_text", "error"),)))
            if hour == 1 and service == "payments":
                lines += [
                    (
                        rare_ns + SECOND_NS // 2 + n,
                        labels,
                        f"write of order {n} timed out",
                        (("severity_text", "error"),),
                    )
                    for n in range(40)
                ]
            exported(store, folder / "scratch", partition, sorted(lines))
    return store
