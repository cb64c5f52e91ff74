"""Loki's read API as values: what to send and how to read what comes back, without sending anything.

Each function here makes one ``Call``; the clients of ``querier.py``, one waiting and one for asyncio, carry it out and
take their methods from these functions. Times are nanoseconds since the epoch, ranges [start_ns, end_ns).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar
from urllib.parse import quote

import orjson
import yaml

from onecollector_resources.loki import catalogue
from onecollector_resources.loki.answers import Entry, Sample, Samples, Streams, parse_logql_response
from onecollector_resources.loki.faults import LokiError, NoLogQuery, refusal, with_caret
from onecollector_resources.loki.names import INNER_LABELS

T = TypeVar("T")
Direction = Literal["forward", "backward"]

LONG = 6_000
"""Bytes: longer queries go into a POST body, URLs of more are refused on the way."""

API = "/loki/api/v1"
MS = 1_000_000
NO_VOLUME = "it counts no volumes (limits_config.volume_enabled)"


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request. ``read`` makes the result of an answer's body; ``query`` is shown where Loki points into it.

    ``absent`` is what a 404 without words means.
    """

    path: str
    read: Callable[[bytes], T]
    params: Mapping[str, Any] = field(default_factory=dict)
    query: str = ""
    method: Literal["GET", "POST", "DELETE"] = "GET"
    absent: str = ""

    def request(self) -> dict[str, Any]:
        """The arguments of httpx's ``request``."""
        sent = {name: value for name, value in self.params.items() if value is not None}
        if self.method == "GET" and len(self.query) > LONG:
            return {"method": "POST", "url": self.path, "data": sent}
        return {"method": self.method, "url": self.path, "params": sent}

    def result(self, url: str, status: int, body: bytes) -> T:
        """What the answer of the Loki at ``url`` means. Raises LokiError with Loki's own words."""
        if status not in (200, 204):
            said = with_caret(self.query, _said(body) or (self.absent if status == 404 else "") or "without a word")
            what = "the query" if self.query else f"{self.method} {self.path}"
            raise refusal(f"Loki at {url}", what, status, said)
        try:
            return self.read(body)
        except orjson.JSONDecodeError as error:
            text = body[:200].decode(errors="replace")
            raise LokiError(f"Loki at {url} did not answer with JSON: {text}") from error
        except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
            text = body[:200].decode(errors="replace")
            raise LokiError(f"Loki's answer to {self.path} has an unknown shape: {error!r} in {text}") from error


def _said(body: bytes) -> str:
    """Loki's words: plain text, or of some parts JSON with the words in it."""
    text = body.decode(errors="replace").strip()[:2_000]
    if text.startswith("{"):
        try:
            return str(orjson.loads(body)["error"])
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return text
    return text


def json_of(read: Callable[[Any], T]) -> Callable[[bytes], T]:
    """A reader of JSON bodies."""
    return lambda body: read(orjson.loads(body))


def _seconds(step_s: float | None) -> str | None:
    return None if step_s is None else f"{step_s:g}s"


def query_range(
    query: str,
    start_ns: int,
    end_ns: int,
    limit: int = 1000,
    direction: Direction = "backward",
    step_s: float | None = None,
) -> Call[Streams | Samples]:
    """Lines in [start_ns, end_ns), at most ``limit``, newest first by default; or a metric query's matrix.

    ``step_s`` is the seconds between a matrix's points. Raises LokiError with Loki's text, a caret under the spot for
    bad LogQL.
    """
    return Call(
        f"{API}/query_range",
        json_of(parse_logql_response),
        {
            "query": query,
            "start": start_ns,
            "end": end_ns,
            "limit": limit,
            "direction": direction,
            "step": _seconds(step_s),
        },
        query,
    )


def query_instant(query: str, time_ns: int | None = None, limit: int = 1000) -> Call[Streams | Samples]:
    """A metric query at one instant, None: now. A range ``[w]`` at T covers (T - w, T]. Raises LokiError."""
    params = {"query": query, "time": time_ns, "limit": limit}
    return Call(f"{API}/query", json_of(parse_logql_response), params, query)


def samples(query: str, time_ns: int | None = None) -> Call[tuple[Sample, ...]]:
    """``query_instant`` for a query that must give numbers. Raises LokiError for one that gives lines."""

    def read(payload: Any) -> tuple[Sample, ...]:
        answer = parse_logql_response(payload)
        if isinstance(answer, Streams):
            raise LokiError(f"expected a metric query, found one that gives lines: {query[:200]}")
        return answer.series

    return Call(f"{API}/query", json_of(read), {"query": query, "time": time_ns}, query)


def entries(
    query: str, start_ns: int, end_ns: int, limit: int = 1000, direction: Direction = "backward"
) -> Call[tuple[Entry, ...]]:
    """``query_range`` for a query that must give lines. Raises LokiError for one that gives numbers."""

    def read(payload: Any) -> tuple[Entry, ...]:
        answer = parse_logql_response(payload)
        if isinstance(answer, Samples):
            raise NoLogQuery(f"expected a log query, found a metric query: {query[:200]}")
        return answer.entries

    params = {"query": query, "start": start_ns, "end": end_ns, "limit": limit, "direction": direction}
    return Call(f"{API}/query_range", json_of(read), params, query)


def labels(start_ns: int | None = None, end_ns: int | None = None, query: str | None = None) -> Call[list[str]]:
    """Names of index labels, of the streams of a selector where one is given; the last six hours by default.

    Loki may look at a wider range. Raises LokiError.
    """
    params = {**_whole_ms(start_ns, end_ns), "query": query}
    return Call(f"{API}/labels", json_of(lambda answer: _outer(answer.get("data"))), params, query or "")


def label_values(
    name: str, query: str | None = None, start_ns: int | None = None, end_ns: int | None = None
) -> Call[list[str]]:
    """Values of one index label, empty for a name that no stream has. Raises LokiError."""
    params = {"query": query, **_whole_ms(start_ns, end_ns)}
    path = f"{API}/label/{quote(name, safe='')}/values"
    return Call(path, json_of(lambda answer: answer.get("data") or []), params, query or "")


def series(matcher: str, start_ns: int, end_ns: int) -> Call[list[dict[str, str]]]:
    """Label sets of the streams that match, Loki's inner labels among them. Raises LokiError."""
    params = {"match[]": matcher, **_whole_ms(start_ns, end_ns)}
    return Call(f"{API}/series", json_of(lambda answer: answer.get("data") or []), params, matcher)


def stats(selector: str, start_ns: int, end_ns: int) -> Call[catalogue.IndexStats]:
    """Streams, chunks, lines and bytes of a stream selector, from the index alone; without lines not flushed yet.

    Raises LokiError.
    """
    params = {"query": selector, "start": start_ns, "end": end_ns}
    return Call(f"{API}/index/stats", json_of(catalogue.read_stats), params, selector)


def volume(
    selector: str, start_ns: int, end_ns: int, limit: int = 100, target_labels: Sequence[str] = ()
) -> Call[tuple[catalogue.Volume, ...]]:
    """Bytes by label set, largest first, at most ``limit`` sets; by ``target_labels`` where given. Raises LokiError."""
    params = {
        "query": selector,
        "start": start_ns,
        "end": end_ns,
        "limit": limit,
        "targetLabels": _joined(target_labels),
    }
    return Call(f"{API}/index/volume", json_of(catalogue.read_volumes), params, selector, absent=NO_VOLUME)


def volume_range(
    selector: str,
    start_ns: int,
    end_ns: int,
    step_s: float,
    limit: int = 100,
    target_labels: Sequence[str] = (),
) -> Call[tuple[catalogue.Volume, ...]]:
    """``volume`` in steps of ``step_s`` seconds. Raises LokiError."""
    params = {
        "query": selector,
        "start": start_ns,
        "end": end_ns,
        "limit": limit,
        "step": _seconds(step_s),
        "targetLabels": _joined(target_labels),
    }
    return Call(f"{API}/index/volume_range", json_of(catalogue.read_volumes), params, selector, absent=NO_VOLUME)


def patterns(
    selector: str, start_ns: int, end_ns: int, step_s: float | None = None
) -> Call[tuple[catalogue.Pattern, ...]]:
    """Kinds of lines that Loki's pattern ingester saw, most lines first; it keeps a few hours. Raises LokiError."""
    params = {"query": selector, "start": start_ns, "end": end_ns, "step": _seconds(step_s)}
    return Call(
        f"{API}/patterns",
        json_of(catalogue.read_patterns),
        params,
        selector,
        absent="its pattern ingester is off (pattern_ingester.enabled)",
    )


def detected_fields(
    query: str, start_ns: int, end_ns: int, limit: int = 1000, line_limit: int = 1000
) -> Call[tuple[catalogue.DetectedField, ...]]:
    """Fields in lines and metadata, at most ``limit``, found in ``line_limit`` lines of the range. Raises LokiError."""
    params = {"query": query, "start": start_ns, "end": end_ns, "limit": limit, "line_limit": line_limit}
    return Call(f"{API}/detected_fields", json_of(catalogue.read_detected_fields), params, query)


def detected_labels(selector: str | None, start_ns: int, end_ns: int) -> Call[tuple[catalogue.DetectedLabel, ...]]:
    """Labels with how many values each has, without those that say nothing to people. Raises LokiError."""
    params = {"query": selector, "start": start_ns, "end": end_ns}
    return Call(f"{API}/detected_labels", json_of(catalogue.read_detected_labels), params, selector or "")


def format_query(query: str) -> Call[str]:
    """The query as Loki prints it: also the cheapest check of its syntax. Raises LokiError with a caret."""
    return Call(f"{API}/format_query", json_of(lambda answer: answer["data"]), {"query": query}, query)


def drilldown_limits() -> Call[catalogue.TenantLimits]:
    """The tenant's limits, as a Loki of 3.4 and newer tells them. Raises LokiError."""
    return Call(f"{API}/drilldown-limits", json_of(catalogue.read_limits))


def configured_limits() -> Call[catalogue.TenantLimits]:
    """The tenant's limits as configured. Raises LokiError."""
    return Call("/config/tenant/v1/limits", lambda body: catalogue.read_limits(yaml.safe_load(body)))


def build_info() -> Call[catalogue.BuildInfo]:
    """Loki's version. Raises LokiError."""
    return Call(f"{API}/status/buildinfo", json_of(catalogue.read_build_info))


def _whole_ms(start_ns: int | None, end_ns: int | None) -> dict[str, int | None]:
    """The range to whole milliseconds: Loki cuts it by days, and refuses a part that is shorter than one."""
    return {
        "start": None if start_ns is None else start_ns // MS * MS,
        "end": None if end_ns is None else -(-end_ns // MS) * MS,
    }


def _outer(names: list[str] | None) -> list[str]:
    return [name for name in names or [] if name not in INNER_LABELS]


def _joined(names: Sequence[str]) -> str | None:
    return ",".join(names) or None
