"""Ten million different lines of one service in one minute: what that costs, and that nothing else is missed for it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from subprocess import Popen

import httpx
import orjson
import psutil
import pytest

from bench.loki import private_loki
from bench.stack import wait_until
from onecollector.scorer import counting
from onecollector.scorer.reader import MINUTE_NS
from onecollector.scorer.state import Kept, ScorerState
from onecollector.scorer.status_file import read_status
from onecollector_resources.findings.store import FindingStore
from onecollector_resources.layout import StateLayout
from onecollector_resources.registry.store import LogSourceRegistry
from tests.real.killing import Killer, slow_webhook
from tests.real.scored import ended, past, prepared, started, store_of
from tests.unit.floods import distinct
from tests.unit.scorer_world import models

pytestmark = [pytest.mark.real, pytest.mark.soak, pytest.mark.timeout(1200)]

COUNTED = """
import json, resource, time
import polars as pl
from ml.minute_tally import MinuteCounter
from ml.templates import TemplateMiner
from tests.unit.floods import distinct
from tests.unit.ml.test_templates import ever_new_keys, flood
counter, spent = MinuteCounter(TemplateMiner(), {"loud"}, 1), 0.0
made = {"words": distinct, "keys": ever_new_keys, "names": flood}[KIND]
for first in range(0, 10_000_000, 200_000):
    rows = pl.DataFrame({"line": pl.concat([made(at, 10_000) for at in range(first, first + 200_000, 10_000)])})
    rows = rows.with_columns(timestamp=pl.lit(60 * 10**9), service=pl.lit("loud"), is_error=pl.lit(False))
    began = time.process_time()
    counter.add(rows)
    spent += time.process_time() - began
tally = counter.done()
print(json.dumps({
    "lines": tally.lines["loud"], "counted": tally.table["lines"].sum(), "overflow": tally.overflow,
    "rows": tally.table.height, "cpu_s": spent, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
}))
"""
LINES, PUSHED = 3_000_000, 50_000
MOST_MB = 1_000


@pytest.mark.parametrize("kind", ["names", "words", "keys"])
def test_ten_million_lines_that_are_all_counted_take_bounded_memory(kind: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", COUNTED.replace("KIND", repr(kind))], capture_output=True, text=True, check=True
    )
    told = json.loads(done.stdout)
    print(kind, told)
    assert told["lines"] == told["counted"] == 10_000_000
    assert told["rows"] <= 2_001 and told["overflow"] <= 10_000_000
    assert told["peak_mb"] < MOST_MB


def test_a_flood_in_a_real_loki_hides_no_finding_of_another_service(tmp_path: Path) -> None:
    layout, minutes = StateLayout(tmp_path / "s"), past(6)
    models(layout.models)
    layout.root.mkdir(exist_ok=True)
    LogSourceRegistry(f"sqlite:///{layout.registry_db}").migrate()
    store = FindingStore(f"sqlite:///{layout.registry_db}")
    state = ScorerState(layout.scorer / "tenants" / "default")
    with private_loki() as loki, slow_webhook(Killer()) as hook:
        minutes.push(loki.url, "default", [("cart", 1)])
        minutes.score(minutes.scorer(loki.url, "default", store_of(layout, "default"), store, state.folder))
        flooded = minutes.first + 2
        step = MINUTE_NS // LINES
        with httpx.Client(
            timeout=120, headers={"X-Scope-OrgID": "default", "Content-Type": "application/json"}
        ) as http:
            for first in range(0, LINES, PUSHED):
                values = [
                    [str(flooded * MINUTE_NS + (first + n) * step), line]
                    for n, line in enumerate(distinct(first, PUSHED).to_list())
                ]
                body = {"streams": [{"stream": {"service_name": "mailer", "level": "debug"}, "values": values}]}
                http.post(f"{loki.url}/loki/api/v1/push", content=orjson.dumps(body)).raise_for_status()
        process, peak = started(prepared(layout, loki.url, hook.url, []), tmp_path / "scorer.log"), 0

        def scored() -> bool:
            nonlocal peak
            peak = max(peak, psutil.Process(process.pid).memory_info().rss)
            status = read_status(layout.scorer_status)
            return status is not None and status.tenants["default"]["minute"] >= minutes.first + 5

        try:
            wait_until("all is scored", scored, 300, 0.05)
        finally:
            ended(process, Popen.terminate)
        kept = state.load()
        assert isinstance(kept, Kept)
        tally = next(one.tally for one in kept.minutes if one.minute == flooded)
        print(f"peak {peak / 1e6:.0f} MB", tally.lines, tally.overflow)
        assert tally.lines["mailer"] > LINES and tally.table["lines"].sum() == sum(tally.lines.values())
        assert LINES - counting.FLOODED_LINES <= tally.overflow <= LINES
        assert peak < MOST_MB * 10**6
        assert "cart" in {one.finding.service for one in store.open_findings("default")}
    store.disconnect()
