"""HealthMonitor: is the way into Loki open, are Loki's parts well, and what does Loki show of each source.

``verify_pipeline_ok`` is the only one that proves anything about lines: a probe through the real pipeline. The others say
where to look when it fails.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import httpx

from onecollector_resources.collector.manager import AgentManager
from onecollector_resources.collector.probe import ProbeLook
from onecollector_resources.collector.transports import TransportError
from onecollector_resources.health.delivery import ProofRow
from onecollector_resources.loki.querier import LokiError, LokiQuerierClient
from onecollector_resources.records import ComponentStatus, Flow, LogSource

SILENT_AFTER_S = 900.0
"""A running source without a line for so long is silent; rules have their own figure."""

METRIC = re.compile(r"^loki_discarded_samples_total\{(?P<labels>[^}]*)\} (?P<value>[0-9.e+]+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Discarded:
    """Lines that Loki refused since its start, by tenant and reason. Retries count again: a rise is a suspicion."""

    tenant: str
    reason: str
    lines: int


def parse_discarded(metrics: str) -> tuple[Discarded, ...]:
    """Loki's discarded counter out of its ``/metrics``."""
    out = []
    for match in METRIC.finditer(metrics):
        labels = dict(re.findall(r'(\w+)="([^"]*)"', match["labels"]))
        out.append(Discarded(labels.get("tenant", ""), labels.get("reason", ""), int(float(match["value"]))))
    return tuple(sorted(out, key=lambda d: (d.tenant, d.reason)))


def rises(before: Iterable[Discarded], after: Iterable[Discarded]) -> tuple[Discarded, ...]:
    """What was discarded in between; a counter that fell belongs to a new process and counts whole."""
    was = {(d.tenant, d.reason): d.lines for d in before}
    out = []
    for one in after:
        old = was.get((one.tenant, one.reason), 0)
        risen = one.lines - old if one.lines >= old else one.lines
        if risen:
            out.append(Discarded(one.tenant, one.reason, risen))
    return tuple(out)


def judge_flow(
    source: LogSource,
    rows: Sequence[ProofRow],
    last_line: datetime | None,
    discarded: Sequence[Discarded],
    now: datetime,
) -> tuple[Flow, str]:
    """What Loki shows of one source. Pure."""
    missing = [row for row in rows if not row.complete and row.missing and not row.behind]
    if missing and all(row.final for row in missing):
        return "suspect", f"missing in Loki: records {missing[0].missing_text()}"
    if rows and all(row.complete for row in rows):
        if (
            source.phase == "collecting"
            and last_line is not None
            and (now - last_line).total_seconds() > SILENT_AFTER_S
        ):
            return "silent", f"no line since {last_line:%Y-%m-%d %H:%M:%S} UTC"
        return "proved", ""
    mine = [d for d in discarded if d.tenant == source.tenant]
    if mine:
        return "suspect", f"Loki discarded {mine[0].lines} lines of tenant {mine[0].tenant}: {mine[0].reason}"
    if not rows and last_line is None:
        return "unknown", ""
    return "flowing", ""


class HealthMonitor:
    """Loki's parts and the pipeline into it."""

    def __init__(
        self,
        loki_url: str,
        manager: AgentManager,
        *,
        bearer: str | None = None,
        http: httpx.Client | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.loki_url, self._manager, self._bearer, self._clock = loki_url.rstrip("/"), manager, bearer, clock
        self._http = http or httpx.Client(timeout=10)

    def verify_pipeline_ok(self, deadline_s: float = 6.0) -> ProbeLook:
        """A probe through every live pipeline, looked for in Loki. Raises TransportError."""
        return self._manager.verify_pipeline(deadline_s)

    def metrics(self) -> str:
        """Loki's ``/metrics``. Raises httpx.HTTPError."""
        answer = self._http.get(f"{self.loki_url}/metrics")
        answer.raise_for_status()
        return answer.text

    def discarded(self) -> tuple[Discarded, ...]:
        """What Loki refused since its start; empty where it does not tell."""
        try:
            return parse_discarded(self.metrics())
        except httpx.HTTPError:
            return ()

    def check_distributor_health(self) -> ComponentStatus:
        """Whether Loki takes lines: its push path answers an empty push."""
        try:
            answer = self._http.post(
                f"{self.loki_url}/loki/api/v1/push", json={"streams": []}, headers={"X-Scope-OrgID": "default"}
            )
        except httpx.HTTPError as error:
            return ComponentStatus("distributor", "down", f"{type(error).__name__}: {error}")
        if answer.status_code in (200, 204, 422, 400):
            refused = {f"{d.tenant}/{d.reason}": d.lines for d in self.discarded()}
            state = "degraded" if refused else "ok"
            return ComponentStatus(
                "distributor", state, "lines were discarded" if refused else "", {"discarded": refused}
            )
        return ComponentStatus("distributor", "down", f"push answers {answer.status_code}: {answer.text[:100]}")

    def check_ingester_health(self) -> ComponentStatus:
        """The ingester's ring, write-ahead log and disk."""
        try:
            ready = self._http.get(f"{self.loki_url}/ready")
            metrics = self.metrics()
        except httpx.HTTPError as error:
            return ComponentStatus("ingester", "down", f"{type(error).__name__}: {error}")
        troubles = {
            name: value
            for name in ("loki_ingester_wal_corruptions_total", "loki_ingester_wal_disk_full_failures_total")
            if (value := _metric(metrics, name))
        }
        streams = _metric(metrics, "loki_ingester_memory_streams") or 0
        if ready.status_code != 200:
            return ComponentStatus("ingester", "down", ready.text.strip()[:100])
        return ComponentStatus(
            "ingester", "degraded" if troubles else "ok", "; ".join(troubles), {"streams": int(streams), **troubles}
        )

    def check_querier_health(self) -> ComponentStatus:
        """Whether a query is answered, and how fast."""
        began = self._clock()
        try:
            with LokiQuerierClient(self.loki_url, "default", bearer=self._bearer, timeout_s=10) as client:
                client.samples("vector(1)")
        except LokiError as error:
            return ComponentStatus("querier", "down", str(error)[:200])
        return ComponentStatus("querier", "ok", "", {"seconds": round(self._clock() - began, 3)})

    def check_agent_health(self) -> ComponentStatus:
        """The agent's own word on itself, its collector and what it cannot reach."""
        try:
            status = self._manager.transport.status()
        except TransportError as error:
            return ComponentStatus("agent", "down", str(error)[:200])
        problems = [
            status[key]
            for key in ("docker_error", "registry_problem", "journal_problem", "settings_problem")
            if status.get(key)
        ]
        collector = status["collector"]
        if not collector["healthy"]:
            problems.insert(0, "the collector is not healthy")
        facts = {**status["counts"], "behind_bytes": status["behind_bytes"], "queue_bytes": collector["queue_bytes"]}
        return ComponentStatus("agent", "degraded" if problems else "ok", "; ".join(problems)[:300], facts)

    def summarize_component_status(self) -> Mapping[str, ComponentStatus]:
        """All of them by name."""
        found = (
            self.check_distributor_health(),
            self.check_ingester_health(),
            self.check_querier_health(),
            self.check_agent_health(),
        )
        return {status.component: status for status in found}

    def last_lines(self, tenant: str, minutes: int = 60) -> dict[str, datetime]:
        """Container id to the time of its newest line in the last minutes, to the minute. Raises LokiError."""
        query = 'sum by (container_id) (count_over_time({service_name=~".+"} [1m]))'
        now = int(self._clock() * 1e9)
        with LokiQuerierClient(self.loki_url, tenant, bearer=self._bearer) as client:
            answer = client.query_range(query, now - minutes * 60 * 10**9, now, step_s=60)
        out: dict[str, datetime] = {}
        for series in getattr(answer, "series", ()):
            points = [t for t, v in series.points if v > 0]
            if points and series.labels.get("container_id"):
                out[series.labels["container_id"]] = datetime.fromtimestamp(points[-1], UTC)
        return out


def _metric(text: str, name: str) -> float | None:
    values = re.findall(rf"^{name}(?:\{{[^}}]*\}})? ([0-9.e+]+)$", text, flags=re.MULTILINE)
    return sum(map(float, values)) if values else None
