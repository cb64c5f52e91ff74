"""Probe lines: a line of our own through the very receiver, processors and queue that containers' lines take.

A probe is a file in the agent's link tree under the service ``onecollector-probe``, framed like its pipeline's files, so
finding it in Loki proves the globs, the parsing, the processors, the queue and the tenant's way into Loki at once.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from onecollector_resources.discovery.links_model import PROBES
from onecollector_resources.loki.querier import Entry, LokiError

KEPT_S = 60.0
"""Seconds after which a probe's file is removed: read long since, and idle files cost the collector."""

LOOK_EVERY_S = 0.1


@dataclass(frozen=True, slots=True)
class Probe:
    """A probe line that was written at ``written_at`` (epoch seconds)."""

    tenant: str
    pipeline: str
    token: str
    written_at: float


class Reader(Protocol):
    """What is needed of a Loki client."""

    def entries(self, query: str, start_ns: int, end_ns: int, limit: int = ...) -> tuple[Entry, ...]: ...


def framed(profile: str, text: str, now: datetime) -> str:
    """One line in the framing of a profile."""
    stamp = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    if profile == "docker":
        return json.dumps({"time": stamp, "log": f"{text}\n", "stream": "stdout"}) + "\n"
    if profile == "cri":
        return f"{stamp} stdout F {text}\n"
    return f"{text}\n"


def write_probes(
    tree: Path, pipelines: Iterable[tuple[str, str]], revision: str, now: Callable[[], float] = time.time
) -> list[Probe]:
    """Write a probe file for each (tenant, pipeline); answers the probes. Raises OSError."""
    probes = []
    for tenant, pipeline in sorted(pipelines):
        token = secrets.token_hex(8)
        # The token comes first: plain files are told apart by how they begin.
        text = f"{token} onecollector probe rev={revision}"
        folder = tree / tenant / pipeline / PROBES
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        written = now()
        name = f"probe--{secrets.token_hex(32)}.log"
        beside = folder / f".{name}.new"
        beside.write_text(
            framed(pipeline.partition("+")[0], text, datetime.fromtimestamp(written, UTC)), encoding="utf-8"
        )
        beside.rename(folder / name)
        probes.append(Probe(tenant, pipeline, token, written))
    return probes


def remove_old_probes(tree: Path, now: float) -> int:
    """Remove probe files that have served; answers how many."""
    removed = 0
    for path in tree.glob(f"*/*/{PROBES}/*"):
        with contextlib.suppress(FileNotFoundError):  # somebody else may remove them, too
            if now - path.lstat().st_mtime > KEPT_S:
                path.unlink()
                removed += 1
    return removed


@dataclass(frozen=True, slots=True)
class ProbeLook:
    """Seconds until each probe was seen, None where it was not; ``loki_error`` where Loki did not answer at the end."""

    seen: Mapping[Probe, float | None]
    loki_error: str = ""

    @property
    def ok(self) -> bool:
        """Whether all were seen."""
        return all(value is not None for value in self.seen.values())

    @property
    def slowest(self) -> float:
        """Seconds of the slowest that was seen."""
        return max((value for value in self.seen.values() if value is not None), default=0.0)


def probes_seen(
    reader_for: Callable[[str], Reader],
    probes: Iterable[Probe],
    deadline_s: float,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.time,
) -> ProbeLook:
    """Look for probes in Loki until all are seen, at most ``deadline_s`` seconds."""
    seen: dict[Probe, float | None] = dict.fromkeys(probes)
    end, problem = clock() + deadline_s, ""
    readers = {probe.tenant: reader_for(probe.tenant) for probe in seen}
    while True:
        for tenant, reader in readers.items():
            waiting = [probe for probe, value in seen.items() if value is None and probe.tenant == tenant]
            if not waiting:
                continue
            query = f'{{service_name="{PROBES}"}} |~ "{"|".join(probe.token for probe in waiting)}"'
            start = int((min(probe.written_at for probe in waiting) - 60) * 1e9)
            try:
                found = " ".join(entry.line for entry in reader.entries(query, start, int((clock() + 60) * 1e9), 1000))
                problem = ""
            except LokiError as error:
                problem = str(error)
                continue
            for probe in waiting:
                if probe.token in found:
                    seen[probe] = max(0.0, clock() - probe.written_at)
        if all(value is not None for value in seen.values()) or clock() >= end:
            return ProbeLook(seen, problem)
        sleep(LOOK_EVERY_S)
