"""A Loki for tests of reading: limits, order, both directions, start inclusive and end exclusive, and faults on demand.

It answers the queries that readers make of ``{app="a"}``: matchers, line filters and filters by metadata added to it.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from urllib.parse import parse_qs

import httpx
import orjson

from onecollector_resources.loki import logql
from onecollector_resources.loki.splits import Row

Line = tuple[int, Row]
Fault = Callable[[httpx.Request, dict[str, str]], httpx.Response | None]
"""Answers in Loki's place, or raises, or None to let Loki answer."""

MS = 1_000_000
ESCAPED = re.compile(r"\\x\{([0-9a-f]+)\}")


def row(labels: dict[str, str], line: str, metadata: dict[str, str] | None = None) -> Row:
    return Row({"app": "a", **labels}, line, metadata or {})


def identity(line: Line) -> tuple[int, tuple[tuple[str, str], ...], str, tuple[tuple[str, str], ...]]:
    time_ns, row = line
    return time_ns, tuple(sorted(row.labels.items())), row.line, tuple(sorted(row.metadata.items()))


def pattern(text: str) -> str:
    """A pattern of Loki's as Python's."""
    return ESCAPED.sub(lambda match: f"\\U{int(match[1], 16):08x}", text).replace("$", "\\Z")


def conditions_of(query: str) -> Callable[[Row], bool]:
    """What a query asks of a row: its matchers and, of its stages, line filters and filters by one metadata."""
    parsed = logql.parse(query)
    tests: list[Callable[[Row], bool]] = []

    def compared(op: str, found: str, value: str) -> bool:
        equal = re.fullmatch(pattern(value), found) is not None if "~" in op else found == value
        return equal != op.startswith("!")

    for m in parsed.matchers:
        tests.append(lambda row, m=m: compared(m.op, row.labels.get(m.name, ""), m.value))
    stages, at = parsed.stages, 0
    while at < len(stages):
        mark = stages[at].text
        if mark == "|":
            name, op, value = stages[at + 1].text, stages[at + 2].text, logql.unquote(query, stages[at + 3])
            tests.append(lambda row, n=name, o=op, v=value: compared(o, row.metadata.get(n, row.labels.get(n, "")), v))
            at += 4
            continue
        text = logql.unquote(query, stages[at + 1])
        if mark in ("|=", "!="):
            tests.append(lambda row, t=text, m=mark: (t in row.line) == (m == "|="))
        else:
            regex = re.compile(pattern(text))
            tests.append(lambda row, r=regex, m=mark: (r.search(row.line) is not None) == (m == "|~"))
        at += 2
    return lambda row: all(test(row) for test in tests)


class FakeLoki(httpx.BaseTransport):
    """Holds lines, each once. ``most`` is max_entries_limit_per_query; ``fault`` is asked before every answer."""

    def __init__(self, lines: Sequence[Line], most: int = 5000, fault: Fault | None = None) -> None:
        unique = {identity(line): line for line in lines}
        # Within an instant by stream, as Loki does it; readers must not rely on more than that it is always the same.
        self.lines = sorted(unique.values(), key=lambda line: (line[0], hash(identity(line)[1])))
        self.most, self.fault = most, fault
        self.asked: list[dict[str, str]] = []
        self._lock = threading.Lock()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        raw = request.url.query if request.method == "GET" else request.read()
        params = {name: values[0] for name, values in parse_qs(raw.decode(), keep_blank_values=True).items()}
        with self._lock:
            self.asked.append({"path": request.url.path, **params})
        answer = self.fault(request, params) if self.fault else None
        return answer or self._answer(request.url.path, params)

    def _answer(self, path: str, params: dict[str, str]) -> httpx.Response:
        if path.endswith("drilldown-limits"):
            return httpx.Response(200, json={"limits": {"max_entries_limit_per_query": self.most}})
        fits = conditions_of(params["query"])
        start, end = int(params["start"]), int(params["end"])
        found = [line for line in self.lines if start <= line[0] < end and fits(line[1])]
        if path.endswith("index/stats"):
            size = sum(len(row.line.encode()) for _, row in found)
            return httpx.Response(200, json={"streams": 1, "chunks": 1, "bytes": size, "entries": len(found)})
        limit = int(params["limit"])
        if self.most and limit > self.most:
            text = f"max entries limit per query exceeded, limit > max_entries_limit_per_query ({limit} > {self.most})"
            return httpx.Response(400, text=text)
        found = found[-limit:][::-1] if params["direction"] == "backward" else found[:limit]
        streams: dict[tuple[tuple[str, str], ...], list[object]] = {}
        for time_ns, one in found:
            extra = {"structuredMetadata": dict(reversed(one.metadata.items()))} if one.metadata else {}
            streams.setdefault(tuple(one.labels.items()), []).append([str(time_ns), one.line, extra])
        result = [{"stream": dict(labels), "values": values} for labels, values in streams.items()]
        return httpx.Response(200, content=orjson.dumps({"data": {"resultType": "streams", "result": result}}))


class LokiOfChunks(FakeLoki):
    """Leaves out chunks that end in the millisecond that a query begins in, as Loki 3.7.8 does. Chunks are of ``size`` lines."""

    def __init__(self, lines: Sequence[Line], size: int, most: int = 0) -> None:
        super().__init__(lines, most)
        self.chunk_end: dict[object, int] = {}
        streams: dict[object, list[Line]] = {}
        for line in self.lines:
            streams.setdefault(identity(line)[1], []).append(line)
        for mine in streams.values():
            for begin in range(0, len(mine), size):
                chunk = mine[begin : begin + size]
                self.chunk_end.update(dict.fromkeys(map(identity, chunk), chunk[-1][0] // MS))

    def _answer(self, path: str, params: dict[str, str]) -> httpx.Response:
        if not path.endswith("query_range"):
            return super()._answer(path, params)
        begins = int(params["start"]) // MS
        seen = FakeLoki([line for line in self.lines if self.chunk_end[identity(line)] != begins], self.most)
        return seen._answer(path, params)
