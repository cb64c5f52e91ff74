"""Answers to queries as records: lines, or numbers.

Structured metadata and what the query itself took out of a line are kept apart from the labels of the line's stream
(``categorize-labels``): folded into them, each trace id would make a stream of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from onecollector_resources.loki.faults import LokiError
from onecollector_resources.loki.names import INNER_LABELS, SEVERITY_KEYS

CATEGORIZE = {"X-Loki-Response-Encoding-Flags": "categorize-labels"}
"""Header that asks for labels, structured metadata and parsed fields apart; for queries and for the tail."""

NOTHING: Mapping[str, str] = {}

Identity = tuple[int, str, tuple[tuple[str, str], ...], tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]]


@dataclass(frozen=True, slots=True)
class Entry:
    """One line. ``time_ns`` is in nanoseconds since the epoch.

    ``labels`` are those of its stream without Loki's inner ones, ``metadata`` its structured metadata, ``parsed`` what
    stages of the query (``| json`` and the like) added.
    """

    time_ns: int
    line: str
    labels: Mapping[str, str]
    metadata: Mapping[str, str]
    parsed: Mapping[str, str] = field(default_factory=dict)

    def identity(self) -> Identity:
        """Equal for the same line and for no other: time, text, labels and metadata together."""
        return (
            self.time_ns,
            self.line,
            tuple(sorted(self.labels.items())),
            tuple(sorted(self.metadata.items())),
            tuple(sorted(self.parsed.items())),
        )

    @property
    def severity(self) -> str:
        """How bad the line is, in lower case; empty where nothing says it."""
        found = (self.metadata.get(name) for name in SEVERITY_KEYS)
        return (next(filter(None, found), "") or self.labels.get("level", "")).lower()


@dataclass(frozen=True, slots=True)
class Streams:
    """Answer of a log query, in Loki's order: by stream, within it by time in the direction that was asked for."""

    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of a vector (one point) or a matrix (many): (seconds since the epoch, value)."""

    labels: Mapping[str, str]
    points: tuple[tuple[float, float], ...]

    @property
    def value(self) -> float:
        """The newest value."""
        return self.points[-1][1]


@dataclass(frozen=True, slots=True)
class Samples:
    """Answer of a metric query."""

    kind: Literal["vector", "matrix", "scalar"]
    series: tuple[Sample, ...]


def parse_logql_response(payload: Any) -> Streams | Samples:
    """``streams``, ``vector``, ``matrix`` or ``scalar`` as records, from Loki's JSON as read.

    Raises LokiError for an answer of another shape.
    """
    try:
        data = payload["data"]
        kind, result = data["resultType"], data["result"]
        if kind == "streams":
            return Streams(tuple(read_streams(result)))
        if kind == "vector":
            return Samples("vector", tuple(Sample(r["metric"], (_point(r["value"]),)) for r in result))
        if kind == "matrix":
            return Samples("matrix", tuple(Sample(r["metric"], tuple(map(_point, r["values"]))) for r in result))
        if kind == "scalar":
            return Samples("scalar", (Sample({}, (_scalar(result),)),))
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise LokiError(f"Loki's answer has an unknown shape: {error!r} in {str(payload)[:200]}") from error
    raise LokiError(f"Loki's answer has the unknown type {kind!r}; expected streams, vector, matrix or scalar")


def read_streams(result: Any) -> Iterator[Entry]:
    """Lines of a list of streams: what a query answers and what a message of the tail holds."""
    for stream in result:
        labels = {key: value for key, value in stream["stream"].items() if key not in INNER_LABELS}
        for value in stream["values"]:
            extra: Mapping[str, Mapping[str, str]] = value[2] if len(value) > 2 else {}
            yield Entry(
                int(value[0]), value[1], labels, extra.get("structuredMetadata", NOTHING), extra.get("parsed", NOTHING)
            )


def _scalar(pair: Any) -> tuple[float, float]:
    # Loki gives a scalar's time in milliseconds, and that of everything else in seconds.
    at, value = _point(pair)
    return (at / 1000 if at > 1e11 else at), value


def _point(pair: Any) -> tuple[float, float]:
    return float(pair[0]), float(pair[1])
