"""Having a Loki write what it holds in memory to its store, and knowing that it has.

Its answer to ``POST /flush`` comes when the work is queued. Its metrics tell when the queue is empty, but not of the
chunk that is being written at that moment, so they have to stand still for a while.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import httpx

from onecollector_resources.loki.access import LokiAccess
from onecollector_resources.loki.querier import LokiError

QUEUE = re.compile(r"^loki_ingester_flush_queue_length(?:\{[^}]*\})? (\S+)$", re.MULTILINE)
FLUSHED = re.compile(r"^loki_ingester_chunks_(?:flushed|flush_requests)_total(?:\{[^}]*\})? (\S+)$", re.MULTILINE)
FAILED = re.compile(r"^loki_ingester_chunks_flush_failures_total(?:\{[^}]*\})? (\S+)$", re.MULTILINE)

STILL_S = 1.0
POLL_S = 0.2


def flush(
    access: LokiAccess, *, clock: Callable[[], float], sleep: Callable[[float], None], deadline_s: float = 120
) -> None:
    """Flush and wait for it. Raises LokiError where Loki refuses, fails to write, or takes longer than ``deadline_s``."""
    with access.client() as http:
        try:
            failed_before = _state(http)[2]
            http.post("/flush").raise_for_status()
            began = since = clock()
            last = _state(http)
            while clock() - since < STILL_S or last[0]:
                if clock() - began > deadline_s:
                    raise LokiError(
                        f"Loki at {access.url} has not written its chunks {deadline_s:.0f} s after it was asked to: "
                        f"{last[0]:.0f} wait; its store may be slow or full"
                    )
                sleep(POLL_S)
                now = _state(http)
                if now != last:
                    last, since = now, clock()
        except httpx.HTTPError as error:
            raise LokiError(f"Loki at {access.url} cannot be flushed: {error}") from error
    if last[2] > failed_before:
        raise LokiError(
            f"Loki at {access.url} failed to write {last[2] - failed_before:.0f} chunks to its store; its log says why"
        )


def _state(http: httpx.Client) -> tuple[float, float, float]:
    text = http.get("/metrics").raise_for_status().text
    return tuple(sum(map(float, pattern.findall(text))) for pattern in (QUEUE, FLUSHED, FAILED))  # pyright: ignore[reportReturnType]
