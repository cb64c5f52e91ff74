"""Exports of real lines: all of them by both engines, the same files after any kill, and no file that is not whole."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from onecollector_resources.exports.partitions import manifest_of
from onecollector_resources.loki.access import LokiAccess
from onecollector_resources.loki.flush import flush
from onecollector_resources.loki.lifecycle import LokiLifecycle
from onecollector_resources.settings import Settings
from tests.real.conftest import Finder
from tests.real.hard_set import QUERY, Expected, expected_rows, push_hard_set, span
from tests.real.lokis import new_loki
from tests.real.mounts import tmpfs
from tests.real.s3_server import S3Server, s3_server
from tests.unit.lines_model import rows_of

pytestmark = [pytest.mark.real]


@dataclass
class Place:
    """A Loki with the hard set in it, flushed, and how the command line is told of it."""

    loki: LokiLifecycle
    folder: Path
    now_ns: int
    expected: list[Expected]

    def settings(self, name: str = "export", **more: Any) -> dict[str, str]:
        """An environment in which ``onecollector`` finds this Loki; its chunks are known."""
        path = self.folder / f"{name}.yaml"
        export = {"chunk_store": f"file://{self.loki.data_dir}/objects", "settle": "0s", **more}
        body = {"state_dir": str(self.folder / "state"), "loki": {"url": self.loki.url}, "export": export}
        path.write_text(json.dumps(body))
        return {**os.environ, "ONECOLLECTOR_CONFIG": str(path)}

    def command(self, out: Path | str, *more: str) -> list[str]:
        start_ns, end_ns = span(self.now_ns)
        stamps = [
            f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(t // 10**9))}.{t % 10**9:09d}Z"
            for t in (start_ns, end_ns)
        ]
        begin = [sys.executable, "-m", "onecollector.cli.main", "export", QUERY, "--from", stamps[0], "--to", stamps[1]]
        return [*begin, "--out", str(out), *more]

    def export(
        self, out: Path | str, *more: str, environment: Mapping[str, str] | None = None, code: int = 0
    ) -> dict[str, Any]:
        done = subprocess.run(
            [*self.command(out, *more), "--json"], env=environment or self.settings(), text=True, capture_output=True
        )
        assert done.returncode == code, done.stdout + done.stderr
        return json.loads(done.stdout)


def rows_in(out: Path) -> list[Expected]:
    """All rows of a dataset, read through its manifests."""
    rows: list[Expected] = []
    for path in out.rglob("_manifest.json"):
        manifest = manifest_of(path.read_bytes(), str(path))
        assert manifest.complete
        for file in manifest.files:
            data = (path.parent / file.name).read_bytes()
            assert hashlib.sha256(data).hexdigest() == file.sha256
            rows += rows_of(pq.ParquetFile(pa.BufferReader(data)).read())
    return sorted(rows)


def files_in(out: Path) -> dict[str, bytes]:
    """Without what the store keeps for itself."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in out.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


def without_statistics(files: dict[str, bytes]) -> dict[str, bytes]:
    """Loki's own figures of the same lines change for a while after a flush."""
    return {
        name: re.sub(rb'"source": "stats:[^"]*"', b"", data) if name.endswith(".json") else data
        for name, data in files.items()
    }


@pytest.fixture(scope="module")
def place(part: Finder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("export")
    loki = new_loki(part("loki"), folder / "loki", Settings(state_dir=folder / "state"))
    loki.start()
    try:
        now_ns = time.time_ns()
        pushed = push_hard_set(loki.url, "default", now_ns)
        flush(LokiAccess(loki.url, "default"), clock=time.monotonic, sleep=time.sleep)
        yield Place(loki, folder, now_ns, expected_rows(pushed))
    finally:
        loki.kill()


@pytest.fixture(scope="module")
def s3(part: Finder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(part("versitygw"), tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.mark.parametrize("engine", ["api", "chunks"])
def test_every_hard_line_is_there_once_by_both_engines(place: Place, tmp_path: Path, engine: str) -> None:
    told = place.export(tmp_path / "out", "--engine", engine)
    assert {row["engine"] for row in told["partitions"]} == {engine}
    assert rows_in(tmp_path / "out") == place.expected
    assert told["rows"] == len(place.expected) == told["entries"] - told["duplicates"]


def test_both_engines_and_every_run_give_the_same_files(place: Place, tmp_path: Path) -> None:
    for engine in ("api", "chunks"):
        place.export(tmp_path / engine, "--engine", engine)
    api, chunks = (
        {name: data for name, data in files_in(tmp_path / engine).items() if name.endswith(".parquet")}
        for engine in ("api", "chunks")
    )
    assert api == chunks
    before = files_in(tmp_path / "chunks")
    told = place.export(tmp_path / "chunks", "--engine", "chunks", "--force")
    assert files_in(tmp_path / "chunks") == before
    assert not any(row["skipped"] for row in told["partitions"])


@pytest.mark.parametrize(
    ("engine", "kills"),
    [("chunks", 4), *(pytest.param(engine, 20, marks=pytest.mark.soak) for engine in ("api", "chunks"))],
)
def test_killed_at_any_moment_and_started_again_it_ends_with_the_same_files(
    place: Place, tmp_path: Path, engine: str, kills: int
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    began = time.monotonic()
    place.export(whole, "--engine", engine)
    took = time.monotonic() - began
    chance = random.Random(engine)
    for turn in range(kills):
        process = subprocess.Popen(
            place.command(killed, "--engine", engine),
            env=place.settings(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            # Later and later, so that not every kill hits the first partition.
            process.wait(took * chance.uniform(0.3, 0.6 + turn / (2 * kills)))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        for path in killed.rglob("_manifest.json"):
            for file in manifest_of(path.read_bytes(), str(path)).files:
                assert (path.parent / file.name).stat().st_size == file.bytes
    told = place.export(killed, "--engine", engine)
    assert told["incomplete"] == 0
    assert without_statistics(files_in(killed)) == without_statistics(files_in(whole))


def test_to_a_bucket(place: Place, s3: S3Server, tmp_path: Path) -> None:
    s3.bucket("exports")
    access = {"endpoint": s3.url}
    environment = {**place.settings("s3", s3=access), **s3.environment}
    environment["ONECOLLECTOR_CONFIG"] = place.settings("s3", s3=access)["ONECOLLECTOR_CONFIG"]
    told = place.export("s3://exports/logs", environment=environment)
    assert told["rows"] == len(place.expected)
    store = s3.store("exports", "logs")
    for info in store.list():
        target = tmp_path / info.key
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(store.get(info.key))
    assert rows_in(tmp_path) == place.expected
    # A user without rights is told so, and which right it is.
    s3.add_nobody()
    denied = {**access, "access_key_env": "OC_NOBODY_KEY", "secret_key_env": "OC_NOBODY_SECRET"}
    environment["ONECOLLECTOR_CONFIG"] = place.settings("denied", s3=denied)["ONECOLLECTOR_CONFIG"]
    done = subprocess.run(
        place.command("s3://exports/logs", "--force"), env=environment, text=True, capture_output=True
    )
    assert done.returncode != 0
    assert "exports" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_full_disk_leaves_no_partition_half_written(place: Place, tmp_path: Path) -> None:
    with tmpfs(tmp_path / "disk", "128k") as disk:
        told = place.export(disk / "out", code=1)
        failed = [row for row in told["partitions"] if row["error"]]
        assert failed
        assert "space" in failed[0]["error"] or "room" in failed[0]["error"]
        rows_in(disk / "out")


def test_what_was_not_there_and_what_cannot_be_asked(place: Place, tmp_path: Path) -> None:
    # A tenant without data: an empty but valid file, so that nobody takes it for an hour that was not looked at.
    out = tmp_path / "empty"
    told = place.export(out, "--tenant", "nobody-there")
    assert told["rows"] == 0
    assert rows_in(out) == []
    assert list(out.rglob("*.parquet"))
    for arguments, said in (
        (["{service_name=", "--from", "2026-01-01"], "^"),
        (['{a="b"} | json', "--from", "2026-01-01"], "json"),
        (['{a="b"}', "--from", "2026-01-02", "--to", "2026-01-01"], "ends after it starts"),
        (['{a="b"}', "--from", "2100-01-01", "--to", "2100-01-02"], "in the past"),
        (['{a="b"}', "--from", "soon"], "RFC 3339"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "onecollector.cli.main", "export", *arguments, "--out", str(tmp_path / "never")],
            env=place.settings(),
            text=True,
            capture_output=True,
        )
        assert done.returncode == 2, done.stdout + done.stderr
        assert said in done.stderr, done.stderr
        assert "Traceback" not in done.stderr


def test_a_damaged_chunk_is_named_and_the_partition_is_not_called_complete(place: Place, tmp_path: Path) -> None:
    objects = sorted((place.loki.data_dir / "objects" / "default").rglob("*"))
    victim = next(path for path in objects if path.is_file() and path.stat().st_size > 2_000)
    whole = victim.read_bytes()
    try:
        victim.write_bytes(
            whole[: len(whole) // 2] + bytes([whole[len(whole) // 2] ^ 1]) + whole[len(whole) // 2 + 1 :]
        )
        told = place.export(tmp_path / "out", "--engine", "chunks", code=1)
        bad = [row for row in told["partitions"] if not row["complete"]]
        assert bad
        assert any("damaged" in problem for row in bad for problem in row["problems"])
        assert told["rows"] < len(place.expected)
    finally:
        victim.write_bytes(whole)
    told = place.export(tmp_path / "out", "--engine", "chunks")
    assert told["rows"] == len(place.expected)


def test_lines_that_come_late_are_noticed_and_taken_in(place: Place, tmp_path: Path) -> None:
    # The hour that is not over yet at the first export is not settled, and read again.
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H")
    place.export(tmp_path / "out", "--engine", "chunks")
    again = place.export(tmp_path / "out", "--engine", "chunks")["partitions"]
    assert [row for row in again if row["rows"] and not row["skipped"] and row["hour"][:13] < now] == []
    late = {"stream": {"service_name": "hard-late"}, "values": [[str(place.now_ns - 2 * 3600 * 10**9), "very late"]]}
    httpx.post(
        f"{place.loki.url}/loki/api/v1/push", json={"streams": [late]}, headers={"X-Scope-OrgID": "default"}, timeout=60
    ).raise_for_status()
    flush(LokiAccess(place.loki.url, "default"), clock=time.monotonic, sleep=time.sleep)
    told = place.export(tmp_path / "out", "--engine", "chunks")
    new = [
        row["service"] for row in told["partitions"] if row["rows"] and not row["skipped"] and row["hour"][:13] < now
    ]
    assert set(new) == {"hard-late"}
    assert told["rows"] == len(place.expected) + 1


def test_the_asset_exports_an_hour_proves_it_and_takes_in_late_lines_of_earlier_ones(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dagster as dg

    from onecollector_assets.exports import COMPLETE, KEY, log_exports
    from onecollector_resources.dagster_resources import OneCollectorResource

    monkeypatch.setenv("ONECOLLECTOR_CONFIG", place.settings("asset", out=str(tmp_path / "out"))["ONECOLLECTOR_CONFIG"])
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=2)

    def exported(which: datetime) -> dg.ExecuteInProcessResult:
        return dg.materialize(
            [log_exports],
            partition_key=which.strftime(KEY),
            resources={"onecollector": OneCollectorResource(), "io_manager": dg.mem_io_manager},
            instance=instance,
        )

    start_ns = int(hour.timestamp()) * 10**9
    with dg.DagsterInstance.ephemeral() as instance:
        result = exported(hour)
        (check,) = result.get_asset_check_evaluations()
        assert (check.check_name, check.passed) == (COMPLETE, True)
        rows = [row for row in rows_in(tmp_path / "out") if row[0] < start_ns + 3600 * 10**9]
        assert len(rows) > 100
        late = {"stream": {"service_name": "hard-asset"}, "values": [[str(start_ns + 7), "late for the asset"]]}
        httpx.post(
            f"{place.loki.url}/loki/api/v1/push",
            json={"streams": [late]},
            headers={"X-Scope-OrgID": "default"},
            timeout=60,
        ).raise_for_status()
        flush(LokiAccess(place.loki.url, "default"), clock=time.monotonic, sleep=time.sleep)
        exported(hour + timedelta(hours=1))
        assert any(row[2] == "late for the asset" for row in rows_in(tmp_path / "out"))
        keys = instance.get_materialized_partitions(dg.AssetKey("log_exports"))
        assert {hour.strftime(KEY), (hour + timedelta(hours=1)).strftime(KEY)} <= keys
