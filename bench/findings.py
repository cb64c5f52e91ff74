"""From a minute's end to the webhook: 500 services at 5,000 lines/s into a real Loki, the scorer a process beside it, faults in some.

The model is fitted to days of the same services, made of the templates that the miner finds in their lines. ``--quick``
takes 50 services and one fault.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import psutil

from bench.loki import private_loki
from bench.report import report
from bench.stack import wait_until
from ml.detectors import AIM, DEFAULT_BUDGET, ServiceFit, fit_service, join
from ml.drift import Sightings
from ml.features import choose_vocabulary, frame_of
from ml.live_window import KeptMinute, LiveWindow
from ml.minute_tally import MinuteCounter
from ml.model_manifest import Learned
from ml.model_store import ModelStore, ServiceFacts, TrainedShard, packed
from ml.template_store import StoredTemplates
from ml.templates import TemplateMiner
from ml.tenant_training import SHARD_SERVICES
from onecollector.local.ports import any_free_port
from onecollector.local.webhook import webhook
from onecollector_resources.layout import StateLayout
from onecollector_resources.runtime import Runtime, save_runtime
from onecollector_resources.storage.file_store import FileStore

DAY, DAYS = 1440, 4
KINDS = 10
POOL = 30_000
LINES_A_SECOND = 10
TEMPLATES = (
    ("GET /api/v1/{w}/{n} 200 in {n} ms", 0.34),
    ("GET /api/v1/{w}/{n} 404 in {n} ms", 0.05),
    ("session {n} of {w} opened from 10.0.{n}.{n}", 0.15),
    ("session {n} of {w} closed after {n} s", 0.15),
    ("cache {w} hit ratio {n}", 0.1),
    ("flushed {n} rows of {w} to disk", 0.08),
    ('level=info msg="{w} order accepted" order={n} user={n}', 0.1),
    ("heartbeat {w} {n}", 0.02),
    ("retrying {w} upstream attempt {n}", 0.01),
)
WORDS = ("orders", "carts", "users", "mails", "cards", "refunds", "stocks", "prices", "labels", "routes")


def line_of(chance: random.Random, kind: int) -> str:
    """A line of a service of that kind."""
    text = chance.choices([t for t, _ in TEMPLATES], [share for _, share in TEMPLATES])[0].replace("{w}", WORDS[kind])
    while "{n}" in text:
        text = text.replace("{n}", str(chance.randrange(1, 250)), 1)
    return text


@cache
def pool_of(kind: int) -> list[str]:
    """Lines of a service of that kind: of these the model learns how often each template comes, and these are written.

    Others made in the same way have other shares of each: then a tenth of all services would be unusual for good.
    """
    chance = random.Random(kind)
    return [line_of(chance, kind) for _ in range(POOL)]


def fitted(kind: int) -> tuple[ServiceFit, Sightings, StoredTemplates]:
    """One kind of service, learned from days of counts of the templates that its lines have."""
    import polars as pl

    lines = pool_of(kind)
    miner = TemplateMiner()
    mined = miner.mine(pl.Series(lines), "s")
    known = sorted(zip((t.id for _, t in mined.templates), mined.lines.tolist(), strict=True))
    now = int(time.time() // 60)
    start = now - DAYS * DAY
    numbers = np.random.default_rng(kind)
    minutes = np.arange(start, now)
    tables = []
    for template, n in known:
        rate = n / len(lines) * LINES_A_SECOND * 60
        count = numbers.poisson(rate * np.exp(numbers.normal(0, 0.05, len(minutes))))
        tables.append(pl.DataFrame({"minute": minutes, "template": [template] * len(minutes), "lines": count}))
    table = pl.concat(tables).filter(pl.col("lines") > 0).with_columns(errors=pl.lit(0, pl.Int64))
    vocabulary = choose_vocabulary(table)
    frame = frame_of("s", table, vocabulary, start, now)
    templates = StoredTemplates()
    templates.take(miner)
    return fit_service(frame, vocabulary), frame.sightings, templates


def keep_models(store: ModelStore, services: list[str]) -> str:
    """A model of all services, in production; answers the id of another one like it, which nobody knows of yet."""
    kinds = [fitted(kind) for kind in range(KINDS)]
    templates, arrays, names = StoredTemplates(), [], []
    for first in range(0, len(services), SHARD_SERVICES):
        group = services[first : first + SHARD_SERVICES]
        some = [(name, kinds[(first + n) % KINDS]) for n, name in enumerate(group)]
        shard = join([replace(kind[0], service=name) for name, kind in some])
        one, text = packed(TrainedShard(shard, tuple(kind[1] for _, kind in some)))
        arrays.append(one)
        names.append(text)
        templates.services |= {name: kind[2].services["s"] for name, kind in some}
    facts = [ServiceFacts(name, float(DAYS), 1, len(TEMPLATES), 0.0, False) for name in services]
    today = datetime.now().date().isoformat()
    learned = Learned(today, today, DAYS * DAY * len(services), 0.0, {}, {})
    made = store.write(arrays, names, facts, {"gates": [], "passed": True}, learned, "", templates)
    store.channels.promote(made.model_id, "bench")
    later = replace(store, clock=lambda: datetime.now(UTC) + timedelta(seconds=1))
    return later.write(arrays, names, facts, {"gates": [], "passed": True}, learned, "", templates).model_id


class Writer(threading.Thread):
    """Pushes every service's lines each second, ten of each; ``faulty`` ones write errors beside, from a minute on."""

    def __init__(self, url: str, services: list[str]) -> None:
        super().__init__(daemon=True)
        self._url, self._services, self._over = url, services, threading.Event()
        self.faulty: dict[str, float] = {}
        self.lines, self.late_s = 0, 0.0

    def run(self) -> None:
        chance = random.Random(1)
        with httpx.Client(timeout=60, headers={"X-Scope-OrgID": "default", "Content-Type": "application/json"}) as http:
            second = int(time.time()) + 1
            while not self._over.is_set():
                time.sleep(max(0.0, second + 1 - time.time()))
                streams = []
                for number, service in enumerate(self._services):
                    at = chance.randrange(POOL - 2 * LINES_A_SECOND)
                    count = LINES_A_SECOND + chance.choice((-1, 0, 0, 1))
                    texts = pool_of(number % KINDS)[at : at + count]
                    step = 10**9 // count
                    values = [[str(second * 10**9 + n * step), text] for n, text in enumerate(texts)]
                    streams.append({"stream": {"service_name": service, "level": "info"}, "values": values})
                    if second >= self.faulty.get(service, float("inf")):
                        error = [[str(second * 10**9 + 7), f"connection to 10.0.0.{second % 250} refused by peer"]]
                        streams.append({"stream": {"service_name": service, "level": "error"}, "values": error})
                    self.lines += count
                http.post(
                    f"{self._url}/loki/api/v1/push", content=orjson.dumps({"streams": streams})
                ).raise_for_status()
                self.late_s = max(self.late_s, time.time() - second - 1)
                second += 1

    def stop(self) -> None:
        """And wait for it."""
        self._over.set()
        self.join()


def started(folder: Path, loki_url: str, webhook: str) -> tuple[subprocess.Popen[bytes], StateLayout]:
    """The scorer as ``up`` starts it."""
    layout = StateLayout(folder / "s")
    settings = {"state_dir": str(layout.root), "models": {"enabled": True, "webhook_url": webhook}}
    (folder / "onecollector.yaml").write_text(json.dumps(settings))
    values: dict[str, Any] = {one.name: 0 if one.type == "int" else "" for one in fields(Runtime)}
    save_runtime(layout, Runtime(**{**values, "loki_url": loki_url, "agent_port": any_free_port(set())}))
    environment = {
        **os.environ,
        "ONECOLLECTOR_CONFIG": str(folder / "onecollector.yaml"),
        "MALLOC_ARENA_MAX": "2",
        "POLARS_MAX_THREADS": "2",
        "OMP_NUM_THREADS": "1",
    }
    log = (folder / "scorer.log").open("wb")
    return subprocess.Popen([sys.executable, "-m", "onecollector.scorer"], env=environment, stderr=log), layout


def scoring_cpu_s(store: ModelStore, services: list[str]) -> tuple[float, float]:
    """CPU seconds to take in and to score a minute of all services; and to mine and count its lines."""
    import polars as pl

    model = store.serving().model
    assert model is not None
    minute = int(time.time() // 60)
    miner = TemplateMiner()
    model.templates.fill(miner)
    chance = random.Random(3)
    texts = [[line_of(chance, kind) for _ in range(600)] for kind in range(KINDS)]
    names = [name for name in services for _ in range(600)]
    lines = pl.DataFrame(
        {
            "timestamp": [minute * 60 * 10**9] * len(names),
            "line": [text for n in range(len(services)) for text in texts[n % KINDS]],
            "service": names,
            "is_error": [False] * len(names),
        }
    )
    spans, counting = [], []
    window = LiveWindow(model, minute)
    for turn in range(4):
        began = time.process_time()
        counter = MinuteCounter(miner, window.services, minute + turn)
        counter.add(lines.with_columns(pl.col("timestamp") + turn * 60 * 10**9))
        tally = counter.done()
        middle = time.process_time()
        window.append(KeptMinute(tally))
        list(window.score())
        spans.append(time.process_time() - middle)
        counting.append(middle - began)
    return min(spans), min(counting)


@dataclass
class Phase:
    """Some minutes of the scorer at work: what it said after each, and what it cost."""

    rounds: list[dict[str, Any]]
    cpu_s_a_minute: float
    lines_a_second: float
    memory: int


def watched(process: psutil.Process, layout: StateLayout, writer: Writer, faulty: list[str], until: float) -> Phase:
    """Let services fail one a minute, and look until all is told."""
    first = (int(time.time()) // 60 + 2) * 60
    for number, service in enumerate(faulty):
        writer.faulty[service] = first + number * 60 + 5
    wait_until("the minute before", lambda: time.time() > first - 60, 200, 1)
    cpu, at, lines, memory = _cpu(process), time.time(), writer.lines, 0
    rounds: list[dict[str, Any]] = []
    while time.time() < first + (len(faulty) + until) * 60:
        time.sleep(0.5)
        memory = max(memory, process.memory_info().rss)
        said = _status(layout)
        if said and (not rounds or said["tenants"]["default"]["minute"] != rounds[-1]["tenants"]["default"]["minute"]):
            rounds.append(said)
            print(said["lag_s"], said["cpu_s"], said["tenants"]["default"], flush=True)
    spent = time.time() - at
    return Phase(rounds, (_cpu(process) - cpu) / spent * 60, (writer.lines - lines) / spent, memory)


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--quick", action="store_true")
    quick = options.parse_args().quick
    services = [f"service-{number:03}" for number in range(50 if quick else 500)]
    faulty = [services[(7 + 101 * number) % len(services)] for number in range(2 if quick else 6)]
    half = len(faulty) // 2
    with tempfile.TemporaryDirectory() as name, private_loki() as loki, webhook() as (hook, seen):
        folder = Path(name)
        store = ModelStore(FileStore(folder / "s" / "models", create=True), "default")
        candidate = keep_models(store, services)
        scoring, counting = scoring_cpu_s(store, services)
        print(f"scoring {scoring:.2f} s CPU, counting {counting:.2f}", flush=True)
        writer = Writer(loki.url, services)
        writer.start()
        process, layout = started(folder, loki.url, hook)
        try:
            told = wait_until("status", lambda: _status(layout), 120, 0.5)
            resident = psutil.Process(process.pid)
            print("scorer is up", told["tenants"]["default"], flush=True)
            up = time.time()
            # Three whole minutes before the first fault.
            time.sleep(120)
            alone = watched(resident, layout, writer, faulty[:half], 2)
            store.channels.point_candidate(candidate, "bench")
            wait_until("the shadow", lambda: (_status(layout) or told)["tenants"]["default"]["shadow"], 500, 1)
            beside = watched(resident, layout, writer, faulty[half:], 2)
            minutes = (time.time() - up) / 60
        finally:
            process.terminate()
            process.wait(60)
            writer.stop()
            print((folder / "scorer.log").read_text()[-3000:], f"writer at most {writer.late_s:.1f} s late")
    opened = [(when, body) for when, body in seen if body["kind"] == "opened"]
    delays = {body["service"]: when - datetime.fromisoformat(body["first"]).timestamp() - 60 for when, body in opened}
    first, second = ([delays[service] for service in part] for part in (faulty[:half], faulty[half:]))
    rate = alone.lines_a_second
    expected = AIM * DEFAULT_BUDGET * len(services) * minutes / 1440
    lower = {"better": "lower"}
    report(
        "findings",
        [
            {
                "what": f"minute closed to the webhook, {len(services)} services, {rate:,.0f} lines/s, most of {half}",
                "value": round(max(first), 1),
                "unit": "s",
                "reach": 45,
                **lower,
            },
            {
                "what": f"the same with a candidate in its shadow, most of {len(faulty) - half}",
                "value": round(max(second), 1),
                "unit": "s",
                "reach": 45,
                **lower,
            },
            {
                "what": "minute closed to the webhook, median (20 s of it are grace)",
                "value": round(statistics.median(first), 1),
                "unit": "s",
                **lower,
            },
            {
                "what": f"scoring a minute of {len(services)} services",
                "value": round(scoring, 2),
                "unit": "s CPU",
                "reach": 0.5 * len(services) / 500,
                **lower,
            },
            {
                "what": f"mining and counting a minute's {600 * len(services):,} lines",
                "value": round(counting, 2),
                "unit": "s CPU",
                **lower,
            },
            *(
                {"what": f"scorer{text}: {what}", "value": value, "unit": unit, **lower}
                for text, phase in (("", alone), (" with a candidate in its shadow", beside))
                for what, value, unit in (
                    ("CPU of the whole process, a minute", round(phase.cpu_s_a_minute, 1), "s CPU"),
                    (
                        "a minute's work until it was told, median (after the grace)",
                        round(statistics.median(one["lag_s"] for one in phase.rounds) - 20, 1),
                        "s",
                    ),
                    ("largest resident memory", round(phase.memory / 1e6), "MB"),
                )
            ),
            {
                "what": f"findings in services without a fault ({expected:.1f} by the budget, in {minutes:.0f} minutes)",
                "value": len(delays.keys() - set(faulty)),
                "unit": "",
                **lower,
            },
        ],
    )


def _status(layout: StateLayout) -> dict[str, Any] | None:
    try:
        return orjson.loads(layout.scorer_status.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


if __name__ == "__main__":
    main()
