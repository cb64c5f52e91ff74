"""Lines that are hard to read out whole, and which rows an exact reader finds when they lie in a Loki.

Each part is a way in which readers were seen to lose or double lines: many in one nanosecond, equal but for the stream
or the metadata, at the borders of windows, out of order, hours late, pushed again, empty, long, in any script.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping

import httpx

from onecollector_resources.loki.lines import label_text

Pushed = tuple[int, Mapping[str, str], str, Mapping[str, str]]
"""Time in ns, the stream's labels, line, structured metadata."""

Expected = tuple[int, str, str, tuple[tuple[str, str], ...]]
"""As a table of lines has them: time, labels as text, line, metadata by name."""

SECOND, MINUTE, HOUR = 10**9, 60 * 10**9, 3600 * 10**9
BURST = 3_000
QUERY = '{service_name=~"hard-.+"}'
BATCH = 2_000


def span(now_ns: int) -> tuple[int, int]:
    """The range [start, end) that all of it lies in."""
    return now_ns - 8 * HOUR, now_ns + 1


def hard_lines(now_ns: int) -> Iterator[list[Pushed]]:
    """The lines in the order in which they are pushed: each list is of one stream."""
    chance = random.Random(7)
    recent = now_ns - 10 * MINUTE

    burst = {"service_name": "hard-burst"}
    lines = [
        (recent, burst, f"burst {number:05d}", {"n": str(number)} if number % 5 == 0 else {}) for number in range(BURST)
    ]
    yield lines
    # Again, all of it: an exporter that got no answer sends again.
    yield lines[: BURST // 2]

    for pod in ("one", "two"):
        labels = {"service_name": "hard-twins", "pod": pod}
        yield [(recent + number // 10, labels, f"twin {number % 10}", {}) for number in range(500)]
    labels = {"service_name": "hard-twins", "pod": "three"}
    yield [(recent, labels, "the same line", {"trace": f"{number:04d}"}) for number in range(1_200)]
    yield [(recent, labels, "the same line", {})]

    labels = {"service_name": "hard-borders"}
    borders = [(now_ns // unit - back) * unit for unit in (SECOND, MINUTE, 15 * MINUTE, HOUR) for back in (1, 2)]
    around = sorted({border + step for border in borders for step in (-1, 0, 1) if border + step < now_ns})
    yield [(time_ns, labels, f"border {time_ns}", {}) for time_ns in around if time_ns >= now_ns - 50 * MINUTE]
    yield [(time_ns, labels, f"border {time_ns}", {}) for time_ns in around if time_ns < now_ns - 50 * MINUTE]

    labels = {"service_name": "hard-shuffled"}
    shuffled = [(now_ns - chance.randrange(30 * MINUTE), labels, f"shuffled {number}", {}) for number in range(2_000)]
    yield shuffled
    yield shuffled[::3]

    late = {"service_name": "hard-late"}
    yield [(now_ns - 1 - number, late, f"on time {number}", {}) for number in range(50)]
    yield [(now_ns - 6 * HOUR + number, late, f"late {number}", {"late": "yes"}) for number in range(300)]

    # A collector that was away for hours reads several files of a service side by side.
    labels = {"service_name": "hard-backlog"}
    for step in range(4):
        for hour in (6, 4, 5, 2, 3, 1):
            first = now_ns - hour * HOUR + step * 10 * MINUTE
            yield [(first + n * SECOND, labels, f"backlog {hour} {step} {n}", {"file": str(hour)}) for n in range(100)]

    labels = {"service_name": "hard-text", "place": 'Zürich "4" \\ 日本'}
    texts = ["", " ", "\n", "a\nb\r\n", '"', "\\", "`", "\t\x01\x7f", "ünïcödé", "日本語", "\U0001f600", "\ufffd"]
    texts += ["\u2028", '{"level":"error","n":1}', "level=error n=1", "x" * 100_000, "%s {{.x}} ${y}"]
    # Metadata: Loki itself makes a space of U+FFFD, and leaves out what is empty.
    yield [
        (
            recent + number,
            labels,
            text,
            {"as_is": text[:500].replace("\ufffd", "?") or "-", "x": "ü"} if number % 2 else {},
        )
        for number, text in enumerate(texts)
    ]
    yield [(recent + 100, labels, text, {}) for text in texts]


def push_hard_set(url: str, tenant: str, now_ns: int) -> list[Pushed]:
    """Push it; answers every line that was pushed, also those pushed twice. Raises AssertionError where Loki refuses."""
    pushed: list[Pushed] = []
    with httpx.Client(base_url=url, headers={"X-Scope-OrgID": tenant}, timeout=60) as client:
        for lines in hard_lines(now_ns):
            # One stream a push: with more, a refusal of all but the last is not told.
            for first in range(0, len(lines), BATCH):
                part = lines[first : first + BATCH]
                values = [[str(time_ns), line, dict(metadata)] for time_ns, _, line, metadata in part]
                body = {"streams": [{"stream": dict(part[0][1]), "values": values}]}
                answer = client.post("/loki/api/v1/push", json=body)
                assert answer.status_code == 204, f"{part[0][1]}: {answer.status_code}: {answer.text}"
            pushed += lines
    return pushed


def expected_rows(pushed: Iterable[Pushed], start_ns: int | None = None, end_ns: int | None = None) -> list[Expected]:
    """The rows that an exact reader gives for [start_ns, end_ns), all by default: each line once, in order."""
    rows = {
        (time_ns, label_text(labels), line, tuple(sorted(metadata.items())))
        for time_ns, labels, line, metadata in pushed
        if (start_ns is None or start_ns <= time_ns) and (end_ns is None or time_ns < end_ns)
    }
    return sorted(rows)
