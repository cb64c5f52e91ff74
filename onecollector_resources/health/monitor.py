"""HealthMonitor: is the way into Loki open, are Loki's parts well, and what does Loki show of each source.

``verify_pipeline_ok`` is the only one that proves anything about lines: a probe through the real pipeline. The others say
where to look when it fails.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import httpx

from onecollector_resources.collector.manager import AgentManager
from onecollector_resources.collector.probe import ProbeLook
from onecollector_resources.collector.transports import TransportError
from onecollector_resources.discovery.links_model import PROBES
from onecollector_resources.health.delivery import ProofRow
from onecollector_resources.health.tallies import too_many_series
from onecollector_resources.loki.access import LokiAccess
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
    missing = [row for row in rows if row.final and not row.complete and row.missing and not row.behind]
    if missing:
        return "suspect", f"missing in Loki: records {missing[0].missing_text()}"
    if rows and all(row.complete for row in rows):
        # Complete outweighs what Loki discarded: it counts retries, too.
        if source.phase == "collecting" and (reason := _silence(source, rows, last_line, now)):
            return "silent", reason
        return "proved", ""
    mine = [d for d in discarded if d.tenant == source.tenant]
    if mine:
        return "suspect", f"Loki discarded {mine[0].lines} lines of tenant {mine[0].tenant}: {mine[0].reason}"
    if not rows and last_line is None:
        return "unknown", ""
    return "flowing", ""


def _silence(source: LogSource, rows: Sequence[ProofRow], last_line: datetime | None, now: datetime) -> str:
    if last_line is not None:
        silent = (now - last_line).total_seconds() > SILENT_AFTER_S
        return f"no line since {last_line:%Y-%m-%d %H:%M:%S} UTC" if silent else ""
    never = not any(row.records for row in rows)
    seen = source.first_seen
    return "no line yet" if never and seen and (now - seen).total_seconds() > SILENT_AFTER_S else ""


class HealthMonitor:
    """Loki's parts and the pipeline into it."""

    def __init__(
        self,
        access: LokiAccess,
        manager: AgentManager,
        *,
        http: httpx.Client | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.access, self.loki_url, self._manager, self._clock = access, access.url.rstrip("/"), manager, clock
        self._http = http or access.client(timeout_s=10)

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

    def tenants_probed(self, deadline_s: float = 6.0) -> set[str]:
        """Tenants of whom every probe came out of Loki: nothing of theirs waits in a queue. Raises TransportError."""
        look = self.verify_pipeline_ok(deadline_s)
        late = {probe.tenant for probe, seconds in look.seen.items() if seconds is None}
        return {probe.tenant for probe in look.seen} - late

    def check_distributor_health(self) -> ComponentStatus:
        """Whether Loki takes lines: its push path answers an empty push. What it discarded stands in the facts."""
        try:
            answer = self._http.post(
                f"{self.loki_url}/loki/api/v1/push", json={"streams": []}, headers={"X-Scope-OrgID": "default"}
            )
        except httpx.HTTPError as error:
            return ComponentStatus("distributor", "down", f"{type(error).__name__}: {error}")
        # Nothing to store is refused in other words by other versions; each of them means that it listens.
        if answer.status_code not in (200, 204, 400, 422):
            return ComponentStatus("distributor", "down", f"push answers {answer.status_code}: {answer.text[:100]}")
        refused = {f"{d.tenant}/{d.reason}": d.lines for d in self.discarded()}
        # Counted since Loki's start, retries too: one old line would else be a trouble for ever.
        return ComponentStatus("distributor", "ok", "", {"discarded": refused})

    def check_ingester_health(self) -> ComponentStatus:
        """Whether the ingester is ready, its ring whole, its write-ahead log sound."""
        try:
            ready = self._http.get(f"{self.loki_url}/ready")
            ring = self._http.get(f"{self.loki_url}/ring", headers={"Accept": "application/json"})
            metrics = self.metrics()
        except httpx.HTTPError as error:
            return ComponentStatus("ingester", "down", f"{type(error).__name__}: {error}")
        if ready.status_code != 200:
            return ComponentStatus("ingester", "down", ready.text.strip()[:100])
        troubles = {
            name: int(value)
            for name in ("loki_ingester_wal_corruptions_total", "loki_ingester_wal_disk_full_failures_total")
            if (value := _metric(metrics, name))
        }
        states = ring_states(ring)
        reasons = [f"{name}: {value}" for name, value in troubles.items()]
        reasons += [f"{name} is {state}" for name, state in states.items() if state != "ACTIVE"]
        facts = {"streams": int(_metric(metrics, "loki_ingester_memory_streams") or 0), "ring": states, **troubles}
        return ComponentStatus("ingester", "degraded" if reasons else "ok", "; ".join(reasons), facts)

    def check_querier_health(self) -> ComponentStatus:
        """Whether a query over recent lines is answered, and how fast."""
        began = self._clock()
        try:
            with LokiQuerierClient(replace(self.access, tenant="default", timeout_s=10)) as client:
                # A constant would be answered without asking ingester or store.
                client.samples(f'sum(count_over_time({{service_name="{PROBES}"}} [5m]))')
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
        problems += [f"no room in {disk}" for disk in status.get("full_disks", [])]
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
        """Container id to the time of its newest line in the last minutes, to the minute. Raises LokiError.

        It reads every line of that time: ask it once, and go on with what a ProofMemory saw grow.
        """
        now = int(self._clock() * 1e9)
        with LokiQuerierClient(self.access.of_tenant(tenant)) as client:
            return _last_lines(client, now - minutes * 60 * 10**9, now)


def _last_lines(client: LokiQuerierClient, start_ns: int, end_ns: int, prefix: str = "") -> dict[str, datetime]:
    having = f' | container_id=~"{prefix}.*"' if prefix else ""
    query = f'sum by (container_id) (count_over_time({{service_name=~".+"}}{having} [1m]))'
    try:
        answer = client.query_range(query, start_ns, end_ns, step_s=60)
    except LokiError as error:
        if not too_many_series(error) or len(prefix) > 2:
            raise
        out: dict[str, datetime] = {}
        for digit in "0123456789abcdef":
            out |= _last_lines(client, start_ns, end_ns, prefix + digit)
        return out
    found: dict[str, datetime] = {}
    for series in getattr(answer, "series", ()):
        points = [t for t, v in series.points if v > 0]
        if points and series.labels.get("container_id"):
            found[series.labels["container_id"]] = datetime.fromtimestamp(points[-1], UTC)
    return found


def ring_states(answer: httpx.Response) -> dict[str, str]:
    """Ingester to its state, out of ``/ring`` as JSON; empty where a gateway hides it or an old Loki answers in HTML."""
    if answer.status_code != 200 or "json" not in answer.headers.get("Content-Type", ""):
        return {}
    return {shard["id"]: shard["state"] for shard in answer.json().get("shards") or []}


def _metric(text: str, name: str) -> float | None:
    values = re.findall(rf"^{name}(?:\{{[^}}]*\}})? ([0-9.e+]+)$", text, flags=re.MULTILINE)
    return sum(map(float, values)) if values else None
