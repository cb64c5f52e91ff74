"""Queries to Loki's HTTP API, with the answer as records and the refusal in Loki's own words.

A query's start is inclusive and its end exclusive, times are nanoseconds since the epoch. Structured metadata is kept
apart from labels (``categorize-labels``): folded into them it would make a stream of every trace id.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import httpx
import orjson

CATEGORIZE = {"X-Loki-Response-Encoding-Flags": "categorize-labels"}

INNER_LABELS = ("__time_shard__", "__stream_shard__")
"""Labels that Loki adds for itself; they are no part of a line's identity."""

LONG_QUERY = 6_000
"""Bytes: longer queries go into a POST body, URLs of more are refused on the way."""


class LokiError(RuntimeError):
    """Loki refused or did not answer. ``status`` is the HTTP status, or None."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Entry:
    """One line. Its identity is all four fields together."""

    time_ns: int
    line: str
    labels: Mapping[str, str]
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Streams:
    """Answer of a log query, in Loki's order."""

    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of a vector (one point) or a matrix (many): times in seconds since the epoch."""

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


def parse_logql_response(payload: Mapping[str, Any]) -> Streams | Samples:
    """``streams``, ``vector``, ``matrix`` or ``scalar`` as records.

    Raises LokiError for an answer of another shape.
    """
    try:
        data = payload["data"]
        kind, result = data["resultType"], data["result"]
        if kind == "streams":
            return Streams(tuple(_entries(result)))
        if kind == "vector":
            return Samples(
                "vector", tuple(Sample(r["metric"], ((float(r["value"][0]), float(r["value"][1])),)) for r in result)
            )
        if kind == "matrix":
            return Samples(
                "matrix",
                tuple(Sample(r["metric"], tuple((float(t), float(v)) for t, v in r["values"])) for r in result),
            )
        if kind == "scalar":
            return Samples("scalar", (Sample({}, ((float(result[0]), float(result[1])),)),))
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise LokiError(f"Loki's answer has an unknown shape: {error!r} in {str(payload)[:200]}") from error
    raise LokiError(f"Loki's answer has the unknown type {kind!r}; expected streams, vector, matrix or scalar")


def _entries(result: Any) -> Iterator[Entry]:
    for stream in result:
        labels = {key: value for key, value in stream["stream"].items() if key not in INNER_LABELS}
        for value in stream["values"]:
            extra = value[2] if len(value) > 2 else {}
            metadata = extra.get("structuredMetadata", {})
            parsed = extra.get("parsed")
            yield Entry(int(value[0]), value[1], {**labels, **parsed} if parsed else labels, metadata)


def with_caret(query: str, message: str) -> str:
    """Loki's message with the query under it and a caret under the column that it names."""
    match = re.search(r"at line (\d+), col (\d+)", message)
    if match is None:
        return message
    lines = query.splitlines() or [""]
    row, column = int(match[1]), int(match[2])
    if not 1 <= row <= len(lines):
        return message
    return f"{message}\n    {lines[row - 1]}\n    {' ' * (max(1, column) - 1)}^"


class LokiQuerierClient:
    """A tenant's view of one Loki. Safe to share between threads; close it or use it as a context manager."""

    def __init__(
        self,
        url: str,
        tenant: str,
        *,
        bearer: str | None = None,
        timeout_s: float = 30,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url, self.tenant = url.rstrip("/"), tenant
        headers = {"X-Scope-OrgID": tenant, **CATEGORIZE}
        if bearer:
            headers["Authorization"] = f"Bearer {bearer}"
        self._http = httpx.Client(base_url=self.url, headers=headers, timeout=timeout_s, transport=transport)

    def __enter__(self) -> LokiQuerierClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _call(self, path: str, params: Mapping[str, Any], query: str = "") -> Any:
        clean = {key: value for key, value in params.items() if value is not None}
        try:
            if len(query) > LONG_QUERY:
                answer = self._http.post(path, data=clean)
            else:
                answer = self._http.get(path, params=clean)
        except httpx.HTTPError as error:
            raise LokiError(f"Loki at {self.url} does not answer: {type(error).__name__}: {error}") from error
        if answer.status_code != 200:
            text = with_caret(query, answer.text.strip())
            raise LokiError(f"Loki at {self.url} refused the query ({answer.status_code}): {text}", answer.status_code)
        try:
            return orjson.loads(answer.content)
        except orjson.JSONDecodeError as error:
            raise LokiError(f"Loki at {self.url} did not answer with JSON: {answer.text[:200]}") from error

    def query_range(
        self,
        query: str,
        start_ns: int,
        end_ns: int,
        limit: int = 1000,
        direction: Literal["forward", "backward"] = "backward",
        step_s: float | None = None,
    ) -> Streams | Samples:
        """Lines (or a metric's matrix) in [start_ns, end_ns). At most ``limit`` lines, newest first by default.

        Raises LokiError with Loki's text, a caret under the spot for bad LogQL.
        """
        params = {
            "query": query,
            "start": start_ns,
            "end": end_ns,
            "limit": limit,
            "direction": direction,
            "step": None if step_s is None else f"{step_s:g}s",
        }
        return parse_logql_response(self._call("/loki/api/v1/query_range", params, query))

    def query_instant(self, query: str, time_ns: int | None = None, limit: int = 1000) -> Streams | Samples:
        """A metric query at one instant: a range ``[w]`` at T covers (T - w, T]. Raises LokiError."""
        return parse_logql_response(
            self._call("/loki/api/v1/query", {"query": query, "time": time_ns, "limit": limit}, query)
        )

    def samples(self, query: str, time_ns: int | None = None) -> tuple[Sample, ...]:
        """``query_instant`` for a query that must give numbers. Raises LokiError for one that gives lines."""
        answer = self.query_instant(query, time_ns)
        if isinstance(answer, Streams):
            raise LokiError(f"expected a metric query, found one that gives lines: {query[:200]}")
        return answer.series

    def entries(
        self,
        query: str,
        start_ns: int,
        end_ns: int,
        limit: int = 1000,
        direction: Literal["forward", "backward"] = "backward",
    ) -> tuple[Entry, ...]:
        """``query_range`` for a query that must give lines. Raises LokiError for one that gives numbers."""
        answer = self.query_range(query, start_ns, end_ns, limit, direction)
        if isinstance(answer, Samples):
            raise LokiError(f"expected a log query, found a metric query: {query[:200]}")
        return answer.entries

    def all_entries(self, query: str, start_ns: int, end_ns: int, page: int = 20_000) -> Iterator[Entry]:
        """Every line in [start_ns, end_ns), in time order, each once.

        Pages overlap by one instant, and lines are told apart by all four parts of their identity. Raises LokiError
        where more lines than a page share one nanosecond: stepping over them would lose some without a word.
        """
        seen: set[tuple[Any, ...]] = set()
        while True:
            batch = sorted(self.entries(query, start_ns, end_ns, page, "forward"), key=lambda entry: entry.time_ns)
            fresh = [entry for entry in batch if _identity(entry) not in seen]
            yield from fresh
            if len(batch) < page:
                return
            if not fresh:
                raise LokiError(f"more than {page} lines at {batch[-1].time_ns} ns; ask with a larger page")
            start_ns = batch[-1].time_ns
            seen = {_identity(entry) for entry in batch if entry.time_ns == start_ns}

    def labels(self, start_ns: int | None = None, end_ns: int | None = None) -> list[str]:
        """Names of index labels. Raises LokiError."""
        return self._call("/loki/api/v1/labels", {"start": start_ns, "end": end_ns}).get("data") or []

    def label_values(
        self, name: str, query: str | None = None, start_ns: int | None = None, end_ns: int | None = None
    ) -> list[str]:
        """Values of one index label. Raises LokiError."""
        return (
            self._call(f"/loki/api/v1/label/{name}/values", {"query": query, "start": start_ns, "end": end_ns}).get(
                "data"
            )
            or []
        )

    def series(self, matcher: str, start_ns: int, end_ns: int) -> list[dict[str, str]]:
        """Label sets of the streams that match. Raises LokiError."""
        return (
            self._call("/loki/api/v1/series", {"match[]": matcher, "start": start_ns, "end": end_ns}).get("data") or []
        )

    def format_query(self, query: str) -> str:
        """The query as Loki prints it: also the cheapest check of its syntax. Raises LokiError with a caret."""
        return self._call("/loki/api/v1/format_query", {"query": query}, query)["data"]


def _identity(entry: Entry) -> tuple[Any, ...]:
    return (entry.time_ns, entry.line, tuple(sorted(entry.labels.items())), tuple(sorted(entry.metadata.items())))
