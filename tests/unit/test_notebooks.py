"""The notebooks run as they are committed, and find what is in the data."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from ml.model_store import ModelStore
from onecollector_resources.exports.partitions import Partition
from onecollector_resources.storage.file_store import FileStore
from tests.unit.exported import HOUR, RARE, SECOND_NS, exported, shop, some_lines
from tests.unit.ml.trained import small_shard, written

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
EXPLORE = NOTEBOOKS / "explore_exports.ipynb"
INSPECT = NOTEBOOKS / "inspect_model.ipynb"
JUDGE = NOTEBOOKS / "judge_findings.ipynb"


@dataclass(frozen=True)
class Ran:
    """An executed notebook."""

    cells: list[Any]

    def outputs(self, kind: str) -> list[Any]:
        """What all cells showed in one MIME type."""
        shown = [output.get("data", {}) for cell in self.cells for output in cell.get("outputs", ())]
        return [data[kind] for data in shown if kind in data]

    @property
    def printed(self) -> str:
        return "".join(o["text"] for c in self.cells for o in c.get("outputs", ()) if o.get("name") == "stdout")

    @property
    def result(self) -> dict[str, Any]:
        """The figures in the cell that is tagged ``result``."""
        (cell,) = [cell for cell in self.cells if "result" in cell.metadata.get("tags", ())]
        return json.loads("".join(output["text"] for output in cell.outputs))


@contextmanager
def no_kernel_left() -> Iterator[None]:
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    try:
        yield
    finally:
        left = [process for process in psutil.Process().children(recursive=True) if process.pid not in before]
        assert not left, f"a kernel was left running: {left}"


def run(notebook: Path, folder: Path, **named: Path) -> Ran:
    """Execute in a kernel of its own that keeps its files under ``folder`` and opens no port.

    ``named`` are what the notebook reads: ``exports`` becomes ``ONECOLLECTOR_EXPORTS``.
    """
    own = {
        **{f"ONECOLLECTOR_{name.upper()}": str(path) for name, path in named.items()},
        "IPYTHONDIR": str(folder / "ipython"),
        "MPLCONFIGDIR": str(folder / "matplotlib"),
        "POLARS_MAX_THREADS": "2",
    }
    manager = AsyncKernelManager(kernel_name="python3", transport="ipc", ip=str(folder / "kernel"))
    client = NotebookClient(
        nbformat.read(notebook, as_version=4),
        km=manager,
        timeout=300,
        startup_timeout=300,
        resources={"metadata": {"path": str(NOTEBOOKS)}},
    )
    with no_kernel_left():
        client.execute(env={**os.environ, **own}, cleanup_kc=True)
    return Ran(client.nb.cells)


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose path is short enough for sockets, and in which Jupyter keeps its files."""
    folder = tmp_path_factory.mktemp("nb")
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(folder / "runtime"))
    return folder


@pytest.mark.parametrize("notebook", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.name)
def test_notebooks_are_committed_without_what_they_showed(notebook: Path) -> None:
    read = nbformat.read(notebook, as_version=4)
    nbformat.validate(read)
    for cell in read.cells:
        assert not cell.get("outputs") and cell.get("execution_count") is None
        assert not set(cell.metadata) - {"tags"}


def test_the_exports_are_counted_drawn_and_checked_and_the_rare_line_is_found(short: Path) -> None:
    store = shop(short)
    # An hour without lines is a partition, too.
    exported(store, short / "scratch", Partition("default", "", HOUR + timedelta(hours=3)), [])
    ran = run(EXPLORE, short, exports=store.root)
    result = ran.result
    rare = result.pop("rarest")
    neighbours = result.pop("neighbours")
    assert result == {
        "files": 10,
        "lines": 3 * 3 * 360 + 1 + 40,
        "services": {"web": 1080, "payments": 1120, "db": 1081},
        "severities": {"info": 3 * 1080 - 360, "warn": 360, "error": 41},
        "step": "1min",
        "steps": 180,
        "manifests": 10,
        "differing": 0,
        "faults": [],
        "incomplete": 0,
    }
    hour_ns = int(HOUR.timestamp()) * SECOND_NS
    assert rare == {
        "service": "db",
        "line": RARE,
        "lines": 1,
        "time_ns": hour_ns + (3600 + 20 * 60 + 7) * SECOND_NS + 7,
    }
    assert neighbours[0] == RARE
    assert len(neighbours) == 41 and all(line.endswith("timed out") for line in neighbours[1:])
    assert len(ran.outputs("image/png")) == 1
    assert "3,281 rows in 10 manifests, 3,281 in files" in ran.printed
    assert "0 partitions differ, 0 faults, 0 partitions are not complete" in ran.printed


def test_files_that_do_not_match_their_manifests_are_shown(short: Path) -> None:
    store = shop(short, hours=2)
    partition = Partition("default", "cron", HOUR)
    exported(store, short / "scratch", partition, some_lines(partition, 5), ("a chunk cannot be read",))
    (left_behind,) = (store.root / Partition("default", "web", HOUR).prefix).glob("*.parquet")
    left_behind.with_name("part-00000-0123456789ab.parquet").write_bytes(left_behind.read_bytes())
    (gone,) = (store.root / Partition("default", "db", HOUR).prefix).glob("*.parquet")
    gone.unlink()
    ran = run(EXPLORE, short, exports=store.root)
    assert (ran.result["differing"], ran.result["incomplete"]) == (2, 1)
    assert [fault.partition(": ")[2].partition(",")[0].partition(";")[0] for fault in ran.result["faults"]] == [
        "is gone",
        "no manifest names it",
    ]
    assert "default/cron 2026-11-03 14:00: a chunk cannot be read" in ran.printed


def test_a_folder_without_exports_says_what_to_do(short: Path) -> None:
    with pytest.raises(CellExecutionError, match="expected exported lines, found none; run `onecollector export`"):
        run(EXPLORE, short, exports=short / "nothing")


def test_a_model_is_shown_with_what_it_expects_and_how_rare_a_finding_has_to_be(short: Path) -> None:
    models = ModelStore(FileStore(short / "models", create=True), "default")
    serving, newer = written(models), written(models, seed=2)
    models.channels.promote(serving.model_id, "a test")
    ran = run(INSPECT, short, models=short / "models")
    result = ran.result
    services = list(small_shard().shard.services)
    assert result["model"] == serving.model_id != newer.model_id
    assert (result["services"], result["service"], result["gates"]) == (services, services[0], {"data": True})
    # A service of five lines a minute, in a mean week.
    assert 3 < result["lines a minute"] < 8 and result["kinds"] > 5
    for limits in result["thresholds"].values():
        assert limits == sorted(limits, reverse=True) and limits[0] > limits[-1]
    assert len(ran.outputs("image/png")) == 2


def test_findings_are_held_against_exported_lines_and_judgements(short: Path) -> None:
    """Three findings as `findings list --json` writes them: a real one, a wrong one, and one whose lines are gone."""

    def told(number: int, service: str, first: datetime, judgement: str) -> dict[str, Any]:
        times = {"first": 0, "peak": 1, "last": 2, "window_first": 0, "window_last": 2}
        return {
            "number": number,
            "tenant": "default",
            "service": service,
            "signal": "errors_up" if service == "payments" else "silence",
            "severity": "error",
            "judgement": judgement,
            "observed": 40,
            "expected": 0.0,
            "sentence": "40 lines <b>$x$</b>, expected 0",
            "query": f'{{service_name="{service}"}}',
            "templates": [{"text": "<V> timed out", "observed": 40, "expected": 0.0, "examples": ["db timed out"]}],
            **{name: (first + timedelta(minutes=at)).strftime("%Y-%m-%dT%H:%M:%SZ") for name, at in times.items()},
        }

    store = shop(short, hours=2)
    burst = HOUR + timedelta(hours=1, minutes=20)
    file = short / "findings.json"
    found = [
        told(7, "payments", burst, "confirmed"),
        told(8, "db", burst, "dismissed"),
        told(9, "gone", burst, "none"),
    ]
    file.write_text(json.dumps(found))
    ran = run(JUDGE, short, findings=file, exports=store.root)
    result = ran.result
    # Three minutes with a line every ten seconds; in one of them is the burst, or the rare line.
    assert result["in window"] == {"7": 3 * 6 + 40, "8": 3 * 6 + 1, "9": 0}
    assert (result["findings"], result["without lines"], result["judged"], result["confirmed"]) == (3, [9], 2, 1)
    assert result["precision"] == {"errors_up": "1.00 (0.21 to 1.00)", "silence": "0.00 (0.00 to 0.79)"}
    assert "1 of 2 judged findings are real: 0.50 (0.09 to 0.91)" in ran.printed
    assert len(ran.outputs("image/png")) == 1
