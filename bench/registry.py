"""The registry with 100,000 sources on sqlite: upserts in batches, look-ups, pages."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable

from bench.report import report
from onecollector_resources.records import LogSource
from onecollector_resources.registry.store import LogSourceRegistry

SOURCES = 100_000


def source(number: int, path: str = "/x") -> LogSource:
    service = f"s{number % 5000}"
    return LogSource(
        "h",
        f"{number:064x}",
        "container",
        f"n{number}",
        f"n{number}",
        "default",
        service,
        service,
        "docker",
        None,
        "link",
        path,
        "collecting",
    )


def p95_ms(call: Callable[[int], object], rounds: int = 200) -> float:
    """95th percentile of a call, in milliseconds."""
    taken = []
    for number in range(rounds):
        began = time.perf_counter()
        call(number)
        taken.append((time.perf_counter() - began) * 1000)
    return sorted(taken)[int(rounds * 0.95)]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        registry = LogSourceRegistry(f"sqlite:///{folder}/r.db")
        registry.migrate()
        began = time.perf_counter()
        registry.sync_host("h", [source(n) for n in range(SOURCES)], actor="bench")
        inserted = SOURCES / (time.perf_counter() - began)
        began = time.perf_counter()
        registry.sync_host("h", [source(n, "/y") for n in range(SOURCES)], actor="bench")
        updated = SOURCES / (time.perf_counter() - began)
        lookup = p95_ms(lambda n: registry.lookup_sources(service=f"s{n * 7}"))
        page = p95_ms(lambda n: registry.list_sources(200, ("h", f"{n * 400:064x}")))
    report(
        "registry",
        [
            {
                "what": f"{SOURCES:,} new sources, with events and audit rows",
                "value": round(inserted),
                "unit": "/s",
                "reach": 10_000,
                "better": "higher",
            },
            {
                "what": f"{SOURCES:,} changed sources, with events and audit rows",
                "value": round(updated),
                "unit": "/s",
                "reach": 10_000,
                "better": "higher",
            },
            {
                "what": "lookup by service (20 rows), p95",
                "value": round(lookup, 2),
                "unit": "ms",
                "reach": 2,
                "better": "lower",
            },
            {
                "what": "page of 200 from anywhere, p95",
                "value": round(page, 2),
                "unit": "ms",
                "reach": 20,
                "better": "lower",
            },
        ],
    )


if __name__ == "__main__":
    main()
