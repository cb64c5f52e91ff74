"""Training: a tenant of 1,000 services from 14 days of kept minute tallies to a model on the store, and back into memory.

What a run does every day, but for counting the day's lines (bench.templates has that) and the examination of 20 services,
which does not grow with the tenant. ``--services`` takes fewer.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import threading
import time
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil

from bench.report import report
from ml.evaluation.days import DAY, START_MINUTE, live
from ml.evaluation.services import make_service
from ml.evaluation.tallies import tally_of
from ml.model_manifest import Learned
from ml.model_store import ModelStore
from ml.tally_store import Coverage, DayWriter, TallyStore
from ml.template_store import StoredTemplates
from ml.tenant_training import TrainingPlan, fit_groups
from onecollector_resources.storage.file_store import FileStore
from onecollector_resources.storage.objects import open_store

if TYPE_CHECKING:
    import polars as pl

DISTINCT = 10
"""Services that are made, of 5 to 3,000 lines a minute; all others are these under other names."""
DAYS = 14
FIRST = date(2026, 1, 5)


def made() -> list[pl.DataFrame]:
    """The tallies of the distinct services."""
    tables = []
    for number in range(DISTINCT):
        chance = np.random.default_rng((901, number))
        rate = float(np.geomspace(5, 3000, DISTINCT)[number])
        tables.append(tally_of(live(make_service(number, rate, chance), chance, quiet_days=DAYS, test_days=0), chance))
    return tables


def keep(store: FileStore, services: int, scratch: Path) -> tuple[list, int]:
    """Days of tallies on the store, and how many rows they have."""
    import polars as pl

    tables, kept, days, rows = made(), TallyStore(store, "bench"), [], 0
    for number in range(DAYS):
        first = START_MINUTE + number * DAY
        parts = [t.filter(pl.col("minute").is_between(first, first + DAY, closed="left")) for t in tables]
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            writer = DayWriter(Path(folder))
            for service in range(services):
                writer.add(f"service-{service:04}", parts[service % DISTINCT])
                rows += parts[service % DISTINCT].height
            days.append(kept.save(FIRST + timedelta(days=number), "bench", writer, Coverage()))
    return days, rows


class MostMemory(threading.Thread):
    """The most resident memory of this process and its children together, looked at five times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most, self._over = 0, threading.Event()

    def run(self) -> None:
        here = psutil.Process()
        while not self._over.wait(0.2):
            sizes = []
            for process in (here, *here.children(recursive=True)):
                try:
                    sizes.append(process.memory_info().rss)
                except psutil.NoSuchProcess:
                    continue
            self.most = max(self.most, sum(sizes))

    def stop(self) -> float:
        """In GB."""
        self._over.set()
        self.join()
        return self.most / 1e9


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--services", type=int, default=1_000)
    services = parser.parse_args().services
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        store = FileStore(root / "store", create=True)
        days, rows = keep(store, services, root)
        size = sum(file.bytes for day in days for file in day.files)
        print(f"{rows:,} rows of tallies, {size / 1e6:,.0f} MB")
        plan = TrainingPlan("bench", tuple(days), START_MINUTE, START_MINUTE + DAYS * DAY)
        memory, began = MostMemory(), time.perf_counter()
        memory.start()
        fitted = list(fit_groups(partial(open_store, (root / "store").as_uri()), plan, 2))
        models = ModelStore(store, "bench")
        facts = [one for group in fitted for one in group.facts]
        learned = Learned("2026-01-05", "2026-01-18", sum(group.minutes for group in fitted), 0.0)
        arrays, names = [group.arrays for group in fitted], [group.names for group in fitted]
        manifest = models.write(arrays, names, facts, {"gates": [], "passed": True}, learned, "", StoredTemplates())
        seconds, most = time.perf_counter() - began, memory.stop()
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        models.channels.promote(manifest.model_id, "bench")
        began = time.perf_counter()
        serving = models.serving()
        loading = time.perf_counter() - began
        assert serving.model is not None and len(facts) == services
    cpu = used.ru_utime + used.ru_stime
    report(
        "training",
        [
            {
                "what": f"{services:,} services x {DAYS} days from kept tallies to a model, 2 processes",
                "value": round(seconds, 1),
                "unit": "s",
                "reach": 300 * services / 1000,
                "better": "lower",
            },
            {
                "what": "training: of two cores, the share that it got",
                "value": round(cpu / seconds / 2, 2),
                "unit": "",
                "better": "higher",
            },
            {
                "what": "training: CPU of both, a service",
                "value": round(cpu / services, 3),
                "unit": "s CPU",
                "better": "lower",
            },
            {
                "what": "training: most memory of all processes",
                "value": round(most, 2),
                "unit": "GB",
                "reach": 3,
                "better": "lower",
            },
            {
                "what": f"training: tallies of {DAYS} days, {rows:,} rows",
                "value": round(size / 1e6),
                "unit": "MB",
                "better": "lower",
            },
            {
                "what": "training: the model on the store",
                "value": round(manifest.bytes / 1e6, 1),
                "unit": "MB",
                "better": "lower",
            },
            {
                "what": "training: the model checked and loaded",
                "value": round(loading, 2),
                "unit": "s",
                "better": "lower",
            },
        ],
    )


if __name__ == "__main__":
    main()
