"""What a Loki tells about its lines and itself without giving lines: sizes, patterns, fields, limits, version.

Each record here is one answer with units in its names, each ``read_*`` turns Loki's JSON into it and takes missing
parts for empty: these answers grow with every release.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

UNIT_S = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "ms": 1e-3,
    "s": 1,
    "m": 60,
    "h": 3600,
    "d": 86_400,
    "w": 604_800,
    "y": 31_536_000,
}

DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|[smhdwy])")


@dataclass(frozen=True, slots=True)
class IndexStats:
    """What the index says of a selector: figures of whole chunks that touch the range, so an estimate at its edges.

    Lines that Loki's ingesters still hold are not in it.
    """

    streams: int
    chunks: int
    entries: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Volume:
    """Bytes of one label set: (seconds since the epoch, bytes), one point for ``volume``, many for ``volume_range``."""

    labels: Mapping[str, str]
    points: tuple[tuple[float, int], ...]

    @property
    def bytes(self) -> int:
        """All of it."""
        return sum(size for _, size in self.points)


@dataclass(frozen=True, slots=True)
class Pattern:
    """Lines that look alike, ``<_>`` for what differs: (seconds since the epoch, lines)."""

    text: str
    points: tuple[tuple[float, int], ...]
    level: str = ""

    @property
    def lines(self) -> int:
        """All of them."""
        return sum(count for _, count in self.points)


@dataclass(frozen=True, slots=True)
class DetectedField:
    """A field that a parser finds in lines. ``kind``: string, int, float, boolean, duration or bytes.

    ``cardinality`` is the number of different values in the lines that Loki looked at; ``parsers`` are the stages that
    find it, none for structured metadata.
    """

    name: str
    kind: str
    cardinality: int
    parsers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DetectedLabel:
    """A label of streams, and how many values it has."""

    name: str
    cardinality: int


@dataclass(frozen=True, slots=True)
class TenantLimits:
    """What a tenant may ask for; None: no limit, or not told. ``all`` is everything that Loki says."""

    max_entries: int | None
    """Lines in one answer."""
    max_query_length_s: float | None
    max_query_series: int | None
    retention_s: float | None
    all: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class BuildInfo:
    """Loki's version."""

    version: str
    revision: str
    go_version: str


def seconds_of_duration(text: Any) -> float | None:
    """``30d1h``, ``744h``, ``1m0s`` in seconds; None for what is no duration."""
    parts = DURATION.findall(str(text))
    if not parts or "".join(number + unit for number, unit in parts) != str(text):
        return 0.0 if text in (0, "0") else None
    return sum(float(number) * UNIT_S[unit] for number, unit in parts)


def read_stats(payload: Any) -> IndexStats:
    """Of ``/index/stats``."""
    return IndexStats(*(int(payload.get(name) or 0) for name in ("streams", "chunks", "entries", "bytes")))


def read_volumes(payload: Any) -> tuple[Volume, ...]:
    """Of ``/index/volume`` and ``/index/volume_range``, largest first."""
    found = [
        Volume(row["metric"], tuple((float(t), int(float(size))) for t, size in row.get("values") or [row["value"]]))
        for row in payload["data"]["result"] or []
    ]
    return tuple(sorted(found, key=lambda volume: -volume.bytes))


def read_patterns(payload: Any) -> tuple[Pattern, ...]:
    """Of ``/patterns``, most lines first."""
    found = [
        Pattern(
            row["pattern"],
            tuple((float(t), int(count)) for t, count in row.get("samples") or []),
            row.get("level") or "",
        )
        for row in payload.get("data") or []
    ]
    return tuple(sorted(found, key=lambda pattern: -pattern.lines))


def read_detected_fields(payload: Any) -> tuple[DetectedField, ...]:
    """Of ``/detected_fields``, by name."""
    found = [
        DetectedField(
            row["label"], row.get("type", "string"), int(row.get("cardinality", 0)), tuple(row["parsers"] or ())
        )
        for row in payload.get("fields") or []
    ]
    return tuple(sorted(found, key=lambda one: one.name))


def read_detected_labels(payload: Any) -> tuple[DetectedLabel, ...]:
    """Of ``/detected_labels``, by name."""
    found = [DetectedLabel(row["label"], int(row.get("cardinality", 0))) for row in payload.get("detectedLabels") or []]
    return tuple(sorted(found, key=lambda one: one.name))


def read_limits(payload: Any) -> TenantLimits:
    """Of ``/drilldown-limits`` or ``/config/tenant/v1/limits``."""
    found = payload.get("limits", payload) or {}
    return TenantLimits(
        max_entries=int(found.get("max_entries_limit_per_query") or 0) or None,
        max_query_length_s=seconds_of_duration(found.get("max_query_length")) or None,
        max_query_series=int(found.get("max_query_series") or 0) or None,
        retention_s=seconds_of_duration(found.get("retention_period")) or None,
        all=found,
    )


def read_build_info(payload: Any) -> BuildInfo:
    """Of ``/status/buildinfo``."""
    return BuildInfo(payload.get("version", ""), payload.get("revision", ""), payload.get("goVersion", ""))
