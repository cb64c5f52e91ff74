"""Days of a real Loki into an archive, on disk and in a bucket, and back into a Loki of their own, with nothing missing:
after kills, with flipped bits, by the command line and in Dagster."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from bench.stack import wait_until
from onecollector.local.ending import has_ended
from onecollector_resources.archive.copy import Archiver
from onecollector_resources.archive.manifest import object_key
from onecollector_resources.archive.places import archiver_of
from onecollector_resources.archive.proof import StreamProof
from onecollector_resources.archive.restore import drill_day
from onecollector_resources.archive.scratch import running_scratch, stop_scratch
from onecollector_resources.archive.shelf import newest_manifest, wanted_manifests
from onecollector_resources.loki.lifecycle import LokiLifecycle
from onecollector_resources.runtime import Runtime, save_runtime
from onecollector_resources.settings import ArchiveSettings, LokiSettings, Settings
from onecollector_resources.storage.file_store import FileStore
from onecollector_resources.storage.objects import ObjectStore, StoreGone
from tests.real.lokis import new_loki
from tests.real.s3_server import ENVIRONMENT, S3Server, s3_server

pytestmark = [pytest.mark.real]

DAY = (datetime.now(UTC) - timedelta(days=3)).date()
MIDNIGHT_NS = int(datetime(DAY.year, DAY.month, DAY.day, tzinfo=UTC).timestamp()) * 10**9
SECOND, HOUR = 10**9, 3600 * 10**9
PER_DAY = {
    # Of these, half are of the day before.
    '{"service_name":"midnight"}': 100,
    '{"app":"metadata"}': 3_002,
    '{"app":"both","service_name":"both"}': 500,
    '{"service_name":"burst"}': 2_000,
}


def push(loki: LokiLifecycle, tenant: str, labels: dict[str, str], values: list[list[Any]]) -> None:
    answer = httpx.post(
        f"{loki.url}/loki/api/v1/push",
        json={"streams": [{"stream": labels, "values": values}]},
        headers={"X-Scope-OrgID": tenant},
        timeout=60,
    )
    assert answer.status_code == 204, answer.text


def fill(loki: LokiLifecycle, tenant: str) -> None:
    """Streams without a label in common; lines over midnight, equal lines with other metadata, a burst in one instant."""
    at = MIDNIGHT_NS + 2 * HOUR
    push(
        loki,
        tenant,
        {"service_name": "midnight"},
        [[str(MIDNIGHT_NS + (n - 100) * SECOND), f"m {n}"] for n in range(200)],
    )
    rows: list[list[Any]] = [[str(at + n * 1_000), f"line {n} é", {"trace_id": f"{tenant}-{n}"}] for n in range(3_000)]
    rows += [
        [str(at), "same", {"trace_id": "a"}],
        [str(at), "same", {"trace_id": "b"}],
        [str(at), "same", {"trace_id": "b"}],
    ]
    push(loki, tenant, {"app": "metadata"}, rows)
    push(loki, tenant, {"app": "both", "service_name": "both"}, [[str(at + n * SECOND), f"b{n}"] for n in range(500)])
    push(loki, tenant, {"service_name": "burst"}, [[str(at), f"burst {n}"] for n in range(2_000)])


def settle(folder: Path) -> None:
    """As if an hour had passed since Loki wrote its objects."""
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files):
            # Its server may take a file of its own away meanwhile.
            with contextlib.suppress(FileNotFoundError):
                os.utime(os.path.join(root, name), (time.time() - 3600, time.time() - 3600))


@dataclass
class Stack:
    """A Loki with closed days of two tenants, its settings, and what is needed for the command line."""

    loki: LokiLifecycle
    settings: Settings
    environment: dict[str, str]
    objects: Path

    def archiver(self, archive: ObjectStore, **more: Any) -> Archiver:
        return archiver_of(self.settings, archive, self.loki.url, **more)

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "onecollector.cli.main", *arguments]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments), env=self.environment, text=True, capture_output=True, timeout=250
        )


@pytest.fixture(scope="module")
def server(part: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(part("versitygw"), tmp_path_factory.mktemp("s3")) as started:
        started.bucket("loki-chunks")
        started.bucket("loki-rules")
        started.bucket("archive")
        yield started


@pytest.fixture(scope="module", params=["disk", "bucket"])
def stack(
    request: pytest.FixtureRequest, part: Any, server: S3Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """Loki on disk, and Loki on a bucket."""
    root = tmp_path_factory.mktemp("stack")
    loki_settings = LokiSettings(store="s3", s3=server.access) if request.param == "bucket" else LokiSettings()
    binary = part("loki")
    made = new_loki(binary, root / "loki", Settings(state_dir=root, loki=loki_settings), server.environment)
    # Where `up` would have put it.
    (root / "loki" / "data").rename(root / "data")
    text = made.config.read_text().replace(f"{root}/loki/data", str(root / "loki"))
    made.config.write_text(text)
    made.data_dir = root / "loki"
    (root / "data" / "overrides.yaml").rename(root / "loki" / "overrides.yaml")
    archive = ArchiveSettings(url="s3://archive/days", s3=server.access)
    settings = Settings(state_dir=root, loki=loki_settings, archive=archive, tenants={"default": {}, "other": {}})  # pyright: ignore
    runtime = Runtime(made.url, made.http_port, *([0] * 6), "", "", "", "", str(binary))
    save_runtime(settings.layout, runtime)
    config = root / "onecollector.yaml"
    config.write_text(json.dumps(json.loads(settings.model_dump_json(exclude_defaults=True))))
    environment = {**os.environ, **ENVIRONMENT, "ONECOLLECTOR_CONFIG": str(config)}
    objects = server.root / "loki-chunks" if request.param == "bucket" else root / "loki" / "objects"
    try:
        made.start()
        for tenant in ("default", "other"):
            fill(made, tenant)
        made.stop()
        settle(objects)
        made.start()
        yield Stack(made, settings, environment, objects)
    finally:
        made.kill()


def test_a_day_that_is_brought_back_has_every_line_that_it_had(
    stack: Stack, tmp_path: Path, part: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    archive = FileStore(tmp_path / "archive", create=True)
    for tenant in ("default", "other"):
        results = list(stack.archiver(archive).archive_days(tenant))
        assert [(result.day, result.state) for result in results] == [
            (DAY - timedelta(days=1), "archived"),
            (DAY, "archived"),
        ]
        assert [result.lines for result in results] == [100, 5_602]
        assert not list(stack.archiver(archive).archive_days(tenant))
    manifests = wanted_manifests(archive, DAY, None)
    assert [manifest.tenant for manifest in manifests] == ["default", "other"]
    lines = manifests[0].lines
    assert lines is not None
    assert {stream.labels: stream.lines for stream in lines.streams} == PER_DAY
    assert manifests[0].loki_version.startswith("3.")

    restored = drill_day(archive, manifests, tmp_path / "scratch", part("loki"))
    assert restored.equal
    assert restored.proved
    assert [one.found.streams for one in restored.tenants] == [m.lines.streams for m in manifests if m.lines]
    # Other lines have other hashes: each tenant's trace ids are its own.
    assert restored.tenants[0].found.sha256 != restored.tenants[1].found.sha256
    assert not (tmp_path / "scratch").exists()


@pytest.mark.parametrize("stack", ["disk"], indirect=True)
def test_a_chunk_over_midnight_gives_each_day_its_own_lines(stack: Stack, tmp_path: Path, part: Any) -> None:
    archive = FileStore(tmp_path / "archive", create=True)
    list(stack.archiver(archive).archive_days("default", [DAY - timedelta(days=1)]))
    [manifest] = wanted_manifests(archive, DAY - timedelta(days=1), "default")
    restored = drill_day(archive, [manifest], tmp_path / "scratch", part("loki"))
    assert restored.equal
    assert restored.lines == 100


@pytest.mark.parametrize("stack", ["bucket"], indirect=True)
def test_by_the_command_line_from_first_copy_to_the_end_of_the_restored_loki(stack: Stack, tmp_path: Path) -> None:
    url = f"s3://archive/{tmp_path.name}-{stack.settings.loki.store}"
    unset = stack.run("archive", "--to", "s3://no-such-bucket")
    assert unset.returncode == 2
    assert "expected the bucket no-such-bucket" in unset.stderr or "NoSuchBucket" in unset.stderr
    assert "Traceback" not in unset.stderr

    done = stack.run("archive", "--to", url)
    assert done.returncode == 0, done.stderr
    assert f"{DAY} default   archived r1" in done.stdout
    assert "5,602 lines" in done.stdout
    again = stack.run("archive", "--to", url, "--json")
    assert json.loads(again.stdout)["days"] == []
    held = json.loads(stack.run("archive", "--list", "--to", url, "--json").stdout)["days"]
    assert [(row["day"], row["tenant"], row["lines"]) for row in held if row["day"] == DAY.isoformat()] == [
        (DAY.isoformat(), "default", 5_602),
        (DAY.isoformat(), "other", 5_602),
    ]
    assert stack.run("archive", DAY.isoformat(), "--verify", "--to", url).returncode == 0
    open_day = stack.run("archive", datetime.now(UTC).date().isoformat(), "--to", url)
    assert open_day.returncode == 2
    assert "is not closed before" in open_day.stderr

    folder = tmp_path / "restored"
    back = stack.run("restore", DAY.isoformat(), "--from", url, "--folder", str(folder))
    try:
        assert back.returncode == 0, back.stderr
        assert f"✓ {DAY} default r1" in back.stdout
        assert "all 4 streams as archived" in back.stdout
        scratch = running_scratch(folder)
        assert scratch is not None
        process = psutil.Process(scratch.pid)
        # The two lines that it prints, as they are pasted.
        ask = back.stdout[back.stdout.index("curl") : back.stdout.index("\nStop")]
        rows = json.loads(subprocess.run(ask, shell=True, capture_output=True, text=True, check=True).stdout)
        assert rows["status"] == "success"
        assert sum(len(stream["values"]) for stream in rows["data"]["result"]) == 10
        taken = stack.run("restore", DAY.isoformat(), "--from", url, "--folder", str(folder))
        assert taken.returncode == 2
        assert "expected no folder or an empty one" in taken.stderr
    finally:
        stopped = stack.run("restore", "--stop", str(folder))
    assert stopped.returncode == 0
    assert not folder.exists()
    assert has_ended(process)


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """A state folder whose Loki has a closed day of 60 chunks; no process."""
    from tests.unit.archive_worlds import World

    root = tmp_path / "state"
    root.mkdir()
    world = World(root)
    (root / "loki").rename(root / "objects")
    (root / "loki").mkdir()
    (root / "objects").rename(root / "loki" / "objects")
    world.source = FileStore(root / "loki" / "objects")
    for number in range(60):
        world.chunk(b"%d" % number * 5_000, DAY, on_disk=True)
    world.index("1-host.tsdb.gz", day=DAY)
    settle(root / "loki" / "objects")
    return root


@pytest.mark.parametrize("where", ["disk", "bucket"])
def test_an_archiver_that_is_killed_anywhere_is_finished_by_the_next_with_the_same_bytes(
    many: Path, tmp_path: Path, server: S3Server, where: str
) -> None:
    prefix = f"{tmp_path.name}-kills"

    def store(name: str) -> tuple[str, ObjectStore]:
        if where == "bucket":
            return f"s3://archive/{prefix}/{name}", server.store("archive", f"{prefix}/{name}")
        return str(tmp_path / name), FileStore(tmp_path / name, create=True)

    environment = {**os.environ, **ENVIRONMENT, "ONECOLLECTOR_STATE_DIR": str(many)}
    environment |= {"ONECOLLECTOR_ARCHIVE__S3__ENDPOINT": server.url, "ONECOLLECTOR_CONFIG": str(many / "none.yaml")}
    (many / "none.yaml").write_text("{}")

    def command(url: str) -> list[str]:
        return [sys.executable, "-m", "onecollector.cli.main", "archive", DAY.isoformat(), "--no-proof", "--to", url]

    whole_url, whole = store("whole")
    done = subprocess.run(command(whole_url), env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    expected = {info.key: whole.get(info.key) for info in whole.list()}
    assert len(expected) == 62
    for kill_at in (1, 40):
        url, broken = store(f"killed-{kill_at}")
        running = subprocess.Popen(command(url), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            wait_until("it copies", partial(_at_least, broken, kill_at), 120, 0.002)
        finally:
            running.send_signal(signal.SIGKILL)
            running.communicate()
        there = len(list(broken.list()))
        assert list(broken.list("manifests/")) == [] or there == 62
        again = subprocess.run(command(url), env=environment, capture_output=True, text=True, timeout=200)
        assert again.returncode == 0, again.stderr
        assert {info.key: broken.get(info.key) for info in broken.list()} == expected


def test_a_day_without_its_index_is_named_and_holds_no_other_up(many: Path, tmp_path: Path) -> None:
    from tests.unit.archive_worlds import chunk_of

    before = DAY - timedelta(days=1)
    FileStore(many / "loki" / "objects").put(chunk_of(b"lost", before).file_key, b"lost")
    settle(many / "loki" / "objects")
    (many / "none.yaml").write_text("{}")
    environment = {**os.environ, "ONECOLLECTOR_STATE_DIR": str(many), "ONECOLLECTOR_CONFIG": str(many / "none.yaml")}
    command = [sys.executable, "-m", "onecollector.cli.main", "archive", "--no-proof", "--to", str(tmp_path / "to")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 1, done.stderr
    assert f"{before} default   not archived:" in done.stdout
    assert "expected the index of" in done.stdout
    assert f"{DAY} default   archived r1" in done.stdout
    assert [info.key for info in FileStore(tmp_path / "to").list("manifests/")] == [
        f"manifests/default/{DAY}/000001.json"
    ]


def _at_least(store: ObjectStore, count: int) -> bool:
    return any(number >= count for number, _ in enumerate(store.list("objects/"), 1))


def test_a_bucket_that_goes_half_way_is_said_and_leaves_no_manifest(many: Path, server: S3Server) -> None:
    from tests.unit.archive_worlds import World

    archive = server.bucket("vanishing")
    world = World.__new__(World)
    world.source = FileStore(many / "loki" / "objects")
    seen: list[Any] = []

    def vanish(_: object) -> None:
        seen.append(1)
        if len(seen) == 30:
            # In one step: others write into it meanwhile.
            (server.root / "vanishing").rename(server.root / "elsewhere")

    archiver = Archiver(world.source, archive, _schema(), told=vanish, workers=4)
    with pytest.raises(StoreGone, match="vanishing"):
        list(archiver.archive_days("default"))
    server.client.create_bucket(Bucket="vanishing")
    assert list(archive.list("manifests/")) == []
    [result] = Archiver(world.source, archive, _schema()).archive_days("default")
    assert (result.state, result.objects) == ("archived", 61)


def _schema() -> dict[str, Any]:
    from tests.unit.archive_worlds import SCHEMA

    return SCHEMA


@pytest.fixture
def shelf(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FileStore:
    """An archive on disk with the day in it."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    archive = FileStore(tmp_path / "shelf", create=True)
    list(stack.archiver(archive).archive_days("default", [DAY]))
    return archive


@pytest.mark.parametrize("stack", ["disk"], indirect=True)
def test_one_flipped_bit_is_found_and_named_and_the_rest_can_be_had(
    stack: Stack, shelf: FileStore, tmp_path: Path
) -> None:
    manifest = newest_manifest(shelf, "default", DAY)
    assert manifest is not None
    chunk = max(manifest.chunks, key=lambda one: one.size)
    path = shelf.root / object_key("default", DAY, chunk.key)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    url, folder = shelf.url, str(tmp_path / "restored")
    found = stack.run("restore", DAY.isoformat(), "--from", url, "--folder", folder, "--drill")
    assert found.returncode == 2
    assert f"1 of {len(manifest.objects)} objects of {DAY} are not as the manifest says" in found.stderr
    assert f"{chunk.key}: expected sha256 {chunk.sha256}" in found.stderr
    assert not Path(folder).exists()
    verified = stack.run("archive", DAY.isoformat(), "--verify", "--to", url)
    assert verified.returncode == 1
    assert chunk.key in verified.stdout

    rest = stack.run(
        "restore", DAY.isoformat(), "--from", url, "--folder", folder, "--drill", "--with-damage", "--json"
    )
    assert rest.returncode == 1, rest.stderr
    told = json.loads(rest.stdout)
    assert [damage["key"] for damage in told["damages"]] == [chunk.key]
    assert told["equal"] is False
    assert len(told["tenants"][0]["differences"]) == 1
    assert 0 < told["lines"] < 5_602

    mended = stack.run("archive", DAY.isoformat(), "--force", "--tenant", "default", "--to", url)
    assert mended.returncode == 0, mended.stderr
    assert stack.run("archive", DAY.isoformat(), "--verify", "--to", url).returncode == 0


@pytest.mark.parametrize("stack", ["disk"], indirect=True)
def test_lines_that_are_not_the_archived_ones_are_told_by_stream(shelf: FileStore, tmp_path: Path, part: Any) -> None:
    from dataclasses import replace

    [manifest] = wanted_manifests(shelf, DAY, "default")
    assert manifest.lines is not None
    first, *others = manifest.lines.streams
    claimed = StreamProof(first.labels, first.lines + 1, first.sha256)
    other = replace(manifest, lines=replace(manifest.lines, streams=(claimed, *others)))
    restored = drill_day(shelf, [other], tmp_path / "s", part("loki"))
    assert not restored.equal
    assert restored.tenants[0].differences == (
        f"{first.labels}: expected {first.lines + 1} lines, found {first.lines}",
    )


@pytest.mark.parametrize("stack", ["bucket"], indirect=True)
def test_late_lines_come_into_the_day_by_a_new_revision(
    stack: Stack, shelf: FileStore, tmp_path: Path, part: Any
) -> None:
    push(stack.loki, "default", {"service_name": "late"}, [[str(MIDNIGHT_NS + 20 * HOUR), "a late line"]])
    stack.loki.restart()
    settle(stack.objects)
    [result] = stack.archiver(shelf).archive_days("default", [DAY])
    assert (result.state, result.revision, result.late, result.lines) == ("revised", 2, 1, 5_603)
    [manifest] = wanted_manifests(shelf, DAY, "default")
    assert drill_day(shelf, [manifest], tmp_path / "s", part("loki")).equal
    [first] = wanted_manifests(shelf, DAY, "default", revision=1)
    assert first.lines is not None
    assert first.lines.lines == 5_602


@pytest.mark.parametrize("stack", ["disk"], indirect=True)
def test_in_dagster_a_day_is_archived_and_a_drill_says_how_long_a_gigabyte_takes(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, server: S3Server
) -> None:
    import dagster as dg

    from onecollector_assets.archive import archive, archive_restores, drill_job
    from onecollector_resources.dagster_resources import OneCollectorResource

    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    resources = {
        "onecollector": OneCollectorResource(config_file=stack.environment["ONECOLLECTOR_CONFIG"]),
        "io_manager": dg.mem_io_manager,
    }
    with dg.DagsterInstance.ephemeral() as instance:
        run = dg.materialize([archive], instance=instance, resources=resources, partition_key=DAY.isoformat())
        assert run.success
        [check] = run.get_asset_check_evaluations()
        assert check.passed, check.metadata
        event = instance.get_latest_materialization_event(dg.AssetKey("archive"))
        assert event is not None
        assert event.asset_materialization is not None
        metadata = event.asset_materialization.metadata
        assert metadata["lines"].value == 2 * 5_602
        assert str(metadata["manifest"].value).startswith("s3://archive/days/manifests/default/")

        drilled = dg.materialize(
            [archive, archive_restores], selection=[archive_restores], instance=instance, resources=resources
        )
        assert drilled.success
        [equal] = drilled.get_asset_check_evaluations()
        assert equal.passed, equal.description
        event = instance.get_latest_materialization_event(dg.AssetKey("archive_restores"))
        assert event is not None
        assert event.asset_materialization is not None
        found = event.asset_materialization.metadata
        assert found["day"].value == DAY.isoformat()
        assert found["lines"].value == 2 * 5_602
        assert float(found["seconds per GB"].value) > 0  # pyright: ignore
        assert not list(stack.settings.layout.restores.glob("*"))
    assert drill_job.name == "restore_drill"


def test_stopping_what_is_no_scratch_loki_ends_nothing(tmp_path: Path) -> None:
    from onecollector_resources.archive.scratch import RECORD, Scratch, ScratchMissing

    with pytest.raises(ScratchMissing, match="expected a folder of a restore"):
        stop_scratch(tmp_path)
    sleeper = subprocess.Popen(["sleep", "60"])
    try:
        folder = tmp_path / "old"
        folder.mkdir()
        record = Scratch(str(folder), "http://127.0.0.1:1", sleeper.pid, ("2026-11-01",), ("default",))
        (folder / RECORD).write_text(json.dumps(asdict(record)))
        # Its number belongs to another process by now.
        assert stop_scratch(folder) is False
        assert sleeper.poll() is None
        assert not folder.exists()
    finally:
        sleeper.kill()
        sleeper.wait()


def test_days_are_drilled_in_turn() -> None:
    from onecollector_assets.archive import next_day

    days = [date(2026, 11, number) for number in (1, 2, 5)]
    seen, last = [], None
    for _ in range(5):
        last = next_day(days, last)
        seen.append(last.day)
    assert seen == [5, 2, 1, 5, 2]
