"""One question to Loki's HTTP API and what came of it: an answer, or a trouble as a record that says what may help.

Loki tells apart too little: a page that is larger than a gRPC message may be is a refusal in one release, and in
another silence until the connection breaks. So troubles are sorted here by what to do, once, and nothing is raised.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Literal

import httpx
import orjson

from onecollector_resources.loki.columns import Lines, decode
from onecollector_resources.loki.faults import with_caret
from onecollector_resources.loki.windows import Size

CATEGORIZE = {"X-Loki-Response-Encoding-Flags": "categorize-labels"}
"""Keeps structured metadata apart from labels: folded into them it makes a stream of every trace id."""

LONG_QUERY = 6_000
"""Bytes: a longer query goes into a POST body, addresses of more are refused on the way."""

Kind = Literal["busy", "failed", "silent", "cut", "away", "garbled", "limit", "too_large", "too_long", "refused"]

PASSING: tuple[Kind, ...] = ("busy", "failed", "silent", "cut", "away")
"""Troubles that may be over at the next try."""

MAX_ENTRIES = re.compile(r"max entries limit.*\(\s*(\d+)\s*>\s*(\d+)\s*\)", re.DOTALL)
TOO_LARGE = re.compile(r"larger than (?:the )?max|message size|ResourceExhausted", re.IGNORECASE)
TOO_LONG = re.compile(
    r"query time range exceeds the limit|query would read too many bytes|max number of chunks|maximum of series",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Page:
    """Lines that came, the size of the answer in bytes and how long it took in seconds."""

    lines: Lines
    bytes: int
    took_s: float


@dataclass(frozen=True, slots=True)
class Trouble:
    """No answer, and why.

    ``busy`` 429, ``failed`` 5xx, ``silent`` no answer in time, ``cut`` the connection broke, ``away`` there was none,
    ``garbled`` an answer that is none: try again. ``limit``: ask for at most ``limit`` rows. ``too_large``: ask for
    fewer rows. ``too_long``: ask for less time. ``refused``: for good.
    """

    kind: Kind
    message: str
    status: int | None = None
    limit: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """What a tenant may ask for; 0 is no limit."""

    entries: int
    length_ns: int


def trouble_of(status: int, body: str, query: str) -> Trouble:
    """What an answer that is not 200 means."""
    text = body.strip()[:2_000]
    said = f"{status}: {with_caret(query, text)}" if text else str(status)
    entries = MAX_ENTRIES.search(text)
    if entries:
        return Trouble("limit", said, status, int(entries[2]))
    if TOO_LARGE.search(text):
        return Trouble("too_large", said, status)
    if status == 429:
        return Trouble("busy", said, status)
    if TOO_LONG.search(text):
        return Trouble("too_long", said, status)
    if status >= 500 or status in (408, 499):
        return Trouble("failed", said, status)
    return Trouble("refused", said, status)


def duration_ns(text: str) -> int:
    """``30d1h``, ``721h0m0s`` or ``0s`` in nanoseconds. Raises ValueError for another text."""
    parts = re.findall(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h|d|w|y)", text)
    if "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"expected a duration such as 30d1h, found {text!r}")
    second = 1_000_000_000
    scale = {"ns": 1, "us": 1_000, "µs": 1_000, "ms": 1_000_000, "s": second, "m": 60 * second, "h": 3600 * second}
    scale |= {"d": 24 * scale["h"], "w": 7 * 24 * scale["h"], "y": 365 * 24 * scale["h"]}
    return int(sum(float(number) * scale[unit] for number, unit in parts))


class Wire:
    """Questions of one tenant through one client, which the caller closes. Safe to share between threads."""

    def __init__(self, client: httpx.Client, clock: Callable[[], float] = time.monotonic) -> None:
        self._http, self._clock = client, clock
        # On one machine packing and unpacking cost more than they save.
        self._headers = {**CATEGORIZE, "Accept-Encoding": "identity"} if _is_loopback(client) else CATEGORIZE

    def page(
        self,
        query: str,
        start_ns: int,
        end_ns: int,
        limit: int,
        timeout_s: float,
        direction: Literal["forward", "backward"] = "forward",
    ) -> Page | Trouble:
        """The first (backward: last) ``limit`` lines in [start_ns, end_ns)."""
        began = self._clock()
        span = {"start": str(start_ns), "end": str(end_ns)}
        params = {"query": query, **span, "limit": str(limit), "direction": direction}
        body = self._ask("/loki/api/v1/query_range", params, query, timeout_s)
        if isinstance(body, Trouble):
            return body
        try:
            lines = decode(body)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return Trouble("garbled", f"an answer of unknown shape ({error!r}): {body[:200]!r}", 200)
        times = lines.block.time_ns
        if len(times) and not (start_ns <= times.min() and times.max() < end_ns):
            return Trouble("garbled", f"lines from {times.min()} to {times.max()} for [{start_ns}, {end_ns})", 200)
        return Page(lines, len(body), self._clock() - began)

    def size(self, selector: str, start_ns: int, end_ns: int, timeout_s: float) -> Size | Trouble:
        """What the index knows of the streams in [start_ns, end_ns)."""
        params = {"query": selector, "start": str(start_ns), "end": str(end_ns)}
        found = self._json("/loki/api/v1/index/stats", params, selector, timeout_s)
        if isinstance(found, Trouble):
            return found
        try:
            return Size(int(found["bytes"]), int(found["entries"]))
        except (KeyError, TypeError, ValueError) as error:
            return Trouble("garbled", f"statistics of unknown shape ({error!r}): {found!r}"[:300], 200)

    def answers(self, timeout_s: float) -> Trouble | None:
        """Whether there is anybody: a small question, and why there was no answer to it."""
        found = self._ask("/loki/api/v1/drilldown-limits", {}, "", timeout_s)
        if isinstance(found, Trouble) and found.kind in PASSING:
            return found
        return None

    def limits(self, timeout_s: float) -> Limits | Trouble:
        """What the tenant may ask for, where Loki says it."""
        found = self._json("/loki/api/v1/drilldown-limits", {}, "", timeout_s)
        if isinstance(found, Trouble):
            return found
        try:
            limits = found.get("limits") or found
            length = limits.get("max_query_length") or 0
            return Limits(
                int(limits["max_entries_limit_per_query"]),
                duration_ns(length) if isinstance(length, str) else int(length),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            return Trouble("garbled", f"limits of unknown shape ({error!r}): {found!r}"[:300], 200)

    def _json(self, path: str, params: Mapping[str, str], query: str, timeout_s: float) -> Any:
        body = self._ask(path, params, query, timeout_s)
        if isinstance(body, Trouble):
            return body
        try:
            return orjson.loads(body)
        except orjson.JSONDecodeError as error:
            return Trouble("garbled", f"expected JSON, found {body[:200]!r} ({error})", 200)

    def _ask(self, path: str, params: Mapping[str, str], query: str, timeout_s: float) -> bytes | Trouble:
        timeout = httpx.Timeout(timeout_s, connect=min(5.0, timeout_s))
        try:
            if len(query) > LONG_QUERY:
                answer = self._http.post(path, data=dict(params), headers=self._headers, timeout=timeout)
            else:
                answer = self._http.get(path, params=dict(params), headers=self._headers, timeout=timeout)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            return Trouble("away", f"no connection ({_told(error)})")
        except httpx.TimeoutException as error:
            return Trouble("silent", f"no answer within {timeout_s:.0f} s ({_told(error)})")
        except httpx.DecodingError as error:
            return Trouble("garbled", f"an answer that cannot be unpacked ({_told(error)})")
        except httpx.TransportError as error:
            return Trouble("cut", f"the connection broke ({_told(error)})")
        if answer.status_code != 200:
            return trouble_of(answer.status_code, answer.text, query)
        return answer.content


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _is_loopback(client: httpx.Client) -> bool:
    host = client.base_url.host
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
