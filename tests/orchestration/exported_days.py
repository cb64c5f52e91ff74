"""Days of the harness's services as exported lines, written by the exporter itself."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from ml.evaluation.days import DAY, START_MINUTE, live
from ml.evaluation.lines import MINUTE_NS, render
from ml.evaluation.services import make_service
from onecollector_resources.exports.partitions import Partition
from onecollector_resources.exports.run import Exporter
from onecollector_resources.exports.sources import Selection
from onecollector_resources.loki.lines import label_text
from onecollector_resources.settings import ExportSettings
from onecollector_resources.storage.file_store import FileStore
from tests.unit.exported import Lines

QUERY = ExportSettings().query
FIRST = datetime(2026, 1, 5, tzinfo=UTC)
"""A Monday, START_MINUTE of the harness."""


def services_of(rates: Sequence[float], days: int, seed: int = 7) -> dict[str, list[tuple[int, str, bool]]]:
    """Lines (ns, text, is error) of services that live through quiet days."""
    made = {}
    for number, rate in enumerate(rates):
        chance = np.random.default_rng((seed, number))
        lived = live(make_service(number, rate, chance), chance, quiet_days=days, test_days=0)
        table = render(lived, chance)
        made[f"svc-{number}"] = list(zip(table["timestamp"], table["line"], table["is_error"], strict=True))
    return made


def export_days(
    folder: Path,
    services: dict[str, list[tuple[int, str, bool]]],
    days: int,
    *,
    left_out: Sequence[int] = (),
) -> FileStore:
    """Every hour of the days, but for hours (counted from the first) that nobody exported."""
    store = FileStore(folder / "exports", create=True)
    exporter = Exporter(store, folder / "scratch")
    start_ns = START_MINUTE * MINUTE_NS
    by_hour: dict[tuple[str, int], list] = {}
    for service, lines in services.items():
        labels = label_text({"service_name": service})
        for time_ns, text, error in lines:
            severity = "error" if error else "info"
            hour = (time_ns - start_ns) // (60 * MINUTE_NS)
            by_hour.setdefault((service, hour), []).append((time_ns, labels, text, (("severity_text", severity),)))
    for hour in range(days * DAY // 60):
        if hour in left_out:
            continue
        when = datetime.fromtimestamp((start_ns + hour * 60 * MINUTE_NS) // 10**9, UTC)
        for service in ("", *services):
            partition = Partition("default", service, when)
            selection = Selection(partition, QUERY, partition.start_ns, partition.end_ns)
            exporter.export(selection, Lines(by_hour.get((service, hour), [])), settled=True)
    return store


def settings_file(folder: Path, **models: object) -> Path:
    """Settings over the exports in a folder."""
    told = "".join(f"  {name}: {value}\n" for name, value in models.items())
    path = folder / "onecollector.yaml"
    path.write_text(
        f"state_dir: {folder}/state\nexport: {{out: {folder}/exports}}\nmodels:\n  start_date: '2026-01-05'\n{told}"
    )
    return path
