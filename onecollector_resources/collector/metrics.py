"""What the collector tells of itself: its Prometheus text, read for the few figures that decisions need."""

from __future__ import annotations

import re


def metric_sum(text: str, name: str) -> float | None:
    """Sum of a metric over its labels, or None where it is not in the text."""
    values = re.findall(rf"^{re.escape(name)}(?:\{{[^}}]*\}})? ([0-9.eE+-]+)$", text, flags=re.MULTILINE)
    return sum(map(float, values)) if values else None


def queued_bytes(text: str) -> dict[str, int]:
    """Bytes that wait in each exporter's queue, what is on its way counted in, by the name after the exporter's ``/``."""
    found = re.findall(
        r'^otelcol_exporter_queue_size\{[^}]*\bexporter="[^"/]*/([^"]+)"[^}]*\} ([0-9.eE+-]+)$',
        text,
        flags=re.MULTILINE,
    )
    return {tenant: int(float(size)) for tenant, size in found}
