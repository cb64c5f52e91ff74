"""A scorer as a process of its own beside a real Loki: what its tenants wrote before it looks, and how it is started.

Lines are those of ``scorer_world`` moved to the last two hours, so that the process finds all of them when it catches up. A
state that a scorer left behind says from which minute on it looks.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import httpx

from ml.model_store import ModelStore
from ml.redaction import redacted
from ml.templates import TemplateMiner
from onecollector.scorer.reader import MINUTE_NS, LokiLines
from onecollector.scorer.state import ScorerState
from onecollector.scorer.tenant import TenantScorer
from onecollector.scorer.tenant_status import Options
from onecollector_resources.findings.store import FindingStore
from onecollector_resources.layout import StateLayout
from onecollector_resources.loki.access import LokiAccess
from onecollector_resources.runtime import Runtime, save_runtime
from onecollector_resources.storage.file_store import FileStore
from tests.unit.scorer_world import NOW, SERVICES, FakeSight, written

HISTORY = 80
"""Minutes before the first that is scored."""
FAULT_MINUTES = 4
ERRORS = (
    "ERROR lost peer {n} of the ring",
    "ERROR disk {n} refuses every write",
    "ERROR handshake with node {n} failed twice",
    "ERROR snapshot {n} is torn apart",
    "ERROR no quorum among {n} voters today",
)
AT_ONCE = (
    "import onecollector.scorer.doubt as doubt; doubt.STILL_S = 0; import onecollector.scorer.__main__ as m; m.main()"
)
"""The scorer, but lines that may be late are not waited for: a process that lives for a second would never be done."""


@dataclass(frozen=True, slots=True)
class Past:
    """Minutes that lie behind: scored are ``scored`` of them, from ``first`` (since 1970) on."""

    first: int
    scored: int

    def push(
        self, url: str, tenant: str, faults: Sequence[tuple[str, int]], services: Iterable[str] = SERVICES
    ) -> None:
        """What the services wrote, and errors of a service for some minutes, so many minutes after ``first``."""
        moved = (self.first - NOW) * MINUTE_NS
        for service in services:
            streams = {"info": [], "error": []}
            for minute in range(NOW - HISTORY, NOW + self.scored):
                lines = written(service, minute)
                for number, (faulty, begin) in enumerate(faults):
                    if faulty == service and NOW + begin <= minute < NOW + begin + FAULT_MINUTES:
                        text = ERRORS[number // len(SERVICES) % len(ERRORS)]
                        lines += written(service, minute, [(text, 8.0)], error=True)
                for stamp, _, text, bad in lines:
                    streams["error" if bad else "info"].append((stamp + moved, text))
            body = [
                {
                    "stream": {"service_name": service, "level": level},
                    "values": [[str(stamp), text] for stamp, text in sorted(values)],
                }
                for level, values in streams.items()
                if values
            ]
            answer = httpx.post(
                f"{url}/loki/api/v1/push", json={"streams": body}, headers={"X-Scope-OrgID": tenant}, timeout=60
            )
            assert answer.status_code == 204, answer.text

    def scorer(
        self, url: str, tenant: str, store: ModelStore, ledger: FindingStore, folder: Path, findings_per_hour: int = 12
    ) -> TenantScorer:
        """One in this process, whose state is kept in ``folder``."""
        options = Options(findings_per_hour=findings_per_hour)
        reader = LokiLines(LokiAccess(url, tenant), ours=True)
        return TenantScorer(
            tenant, reader, store, ledger, FakeSight(), ScorerState(folder), options, TemplateMiner, redacted
        )

    def score(self, scorer: TenantScorer, minutes: int = 0) -> None:
        """Everything before ``first`` is history, and so many minutes after it are scored."""
        for minute in range(minutes + 1):
            while scorer.step((self.first + minute) * 60.0 + 20):
                pass


def past(scored: int) -> Past:
    """The last ``scored`` minutes."""
    return Past(int(time.time() // 60) - scored - 1, scored)


def store_of(layout: StateLayout, tenant: str) -> ModelStore:
    """The models of a tenant, where the process looks for them."""
    return ModelStore(FileStore(layout.models, create=True), tenant)


def prepared(
    layout: StateLayout,
    loki_url: str,
    webhook_url: str,
    tenants: Iterable[str],
    findings_per_hour: int = 12,
    **more: Any,
) -> Path:
    """What a process finds when ``up`` starts it; answers the settings' file."""
    layout.root.mkdir(parents=True, exist_ok=True)
    settings = {
        "state_dir": str(layout.root),
        "tenants": sorted({"default", *tenants}),
        "models": {"enabled": True, "webhook_url": webhook_url, "findings_per_hour": findings_per_hour},
        **more,
    }
    path = layout.root / "onecollector.yaml"
    path.write_text(json.dumps(settings))
    values: dict[str, Any] = {one.name: 0 if one.type == "int" else "" for one in fields(Runtime)}
    save_runtime(layout, Runtime(**{**values, "loki_url": loki_url}))
    return path


def started(config: Path, log: Path) -> subprocess.Popen[bytes]:
    """The process."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("ONECOLLECTOR_")},
        "ONECOLLECTOR_CONFIG": str(config),
        "POLARS_MAX_THREADS": "2",
        "OMP_NUM_THREADS": "1",
    }
    with log.open("ab") as out:
        return subprocess.Popen([sys.executable, "-c", AT_ONCE], env=environment, stderr=out)


def ended(process: subprocess.Popen[bytes], how: Callable[[subprocess.Popen[bytes]], None]) -> None:
    """End it, whatever it does, and wait."""
    how(process)
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
