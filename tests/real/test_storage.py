"""Object stores where it hurts: a real S3 server and real file systems that refuse, go away and fill up."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bench.stack import wait_until
from onecollector_resources.storage.file_store import FileStore
from onecollector_resources.storage.objects import (
    ObjectCorrupt,
    ObjectKeyError,
    ObjectMissing,
    ObjectStore,
    PutConflict,
    StoreDenied,
    StoreFull,
    StoreGone,
)
from onecollector_resources.storage.preflight import preflight
from onecollector_resources.storage.s3_store import S3Store
from tests.real.mounts import mounted, tmpfs
from tests.real.s3_server import ENVIRONMENT, S3Server, s3_server
from tests.unit.racing import raced

pytestmark = [pytest.mark.real]

KEYS = ["a-b", "a.b/c", "a/b", "b/1", "b/10", "b/2", "x y+z%25/ü:1", "ä/ö", "k" * 200]


@pytest.fixture(scope="module")
def server(part: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(part("versitygw"), tmp_path_factory.mktemp("s3")) as started:
        started.add_nobody()
        yield started


@pytest.fixture
def bucket(server: S3Server, request: pytest.FixtureRequest) -> str:
    """A bucket of the test's own."""
    name = f"b{abs(hash(request.node.nodeid)):x}"
    server.bucket(name)
    return name


@pytest.fixture(params=["bucket", "prefix", "folder"])
def store(request: pytest.FixtureRequest, server: S3Server, bucket: str, tmp_path: Path) -> ObjectStore:
    if request.param == "folder":
        return FileStore(tmp_path / "store", create=True)
    return server.store(bucket, "some/where" if request.param == "prefix" else "")


def test_every_store_keeps_the_same_promises(store: ObjectStore, tmp_path: Path) -> None:
    for key in KEYS:
        store.put(key, key.encode())
    assert [info.key for info in store.list()] == sorted(KEYS)
    assert [info.key for info in store.list("b/1")] == ["b/1", "b/10"]
    assert list(store.list("nothing/")) == []
    assert {key: store.get(key) for key in KEYS} == {key: key.encode() for key in KEYS}
    now = datetime.now(UTC)
    for info in store.list():
        assert info == store.head(info.key)
        assert info.size == len(info.key.encode())
        assert abs(info.modified - now) < timedelta(minutes=1)
    store.put("r", b"0123456789")
    assert (store.get_range("r", 2, 3), store.get_range("r", 8, 9), store.get_range("r", 10, 1)) == (b"234", b"89", b"")
    store.get_file("r", tmp_path / "r")
    assert (tmp_path / "r").read_bytes() == b"0123456789"
    store.put("empty", b"")
    assert (store.get("empty"), store.get_range("empty", 0, 5)) == (b"", b"")

    for ask in (
        store.get,
        store.head,
        lambda key: store.get_range(key, 0, 1),
        lambda key: store.get_file(key, tmp_path / "x"),
    ):
        with pytest.raises(ObjectMissing, match="none"):
            ask("none")
    assert not (tmp_path / "x").exists()
    store.delete("b/1")
    store.delete("b/1")
    assert [info.key for info in store.list("b/")] == ["b/10", "b/2"]
    with pytest.raises(ObjectKeyError):
        store.put("b", b"a folder, on a server that keeps files")
    with pytest.raises(ObjectKeyError):
        store.put("x" * 300, b"")


def test_conditions_hold_between_writers(store: ObjectStore) -> None:
    won = raced(6, lambda mine: store.put("one/key", b"%d" % mine, only_if_absent=True), PutConflict)
    assert [b"%d" % mine for mine in won] == [store.get("one/key")]

    first = store.head("one/key").etag
    second = store.put("one/key", b"second", only_if_match=first)
    with pytest.raises(PutConflict):
        store.put("one/key", b"third", only_if_match=first)
    with pytest.raises(PutConflict, match="found no object"):
        store.put("none", b"x", only_if_match=second)
    assert store.get("one/key") == b"second"


def test_two_processes_race_for_one_key(server: S3Server, bucket: str, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    program = (
        "import sys\n"
        "from onecollector_resources.settings import S3Settings\n"
        "from onecollector_resources.storage.objects import PutConflict, open_store\n"
        "url, endpoint, mine = sys.argv[1:]\n"
        "store = open_store(url, S3Settings(endpoint=endpoint))\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "won = []\n"
        "for n in range(20):\n"
        "    try: store.put(f'k/{n}', mine.encode(), only_if_absent=True); won.append(n)\n"
        "    except PutConflict: pass\n"
        "print(won)\n"
    )
    for url in (folder.as_uri(), f"s3://{bucket}"):
        racers = [
            subprocess.Popen(
                [sys.executable, "-c", program, url, server.url, mine],
                env={**os.environ, **ENVIRONMENT},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for mine in ("a", "b")
        ]
        try:
            for racer in racers:
                assert racer.stdout is not None
                assert racer.stdout.readline() == "ready\n"
            wins = [eval(racer.communicate("go\n", timeout=200)[0]) for racer in racers]
        finally:
            for racer in racers:
                racer.kill()
                racer.wait()
        assert sorted(wins[0] + wins[1]) == list(range(20)), url


def test_large_files_go_in_parts_and_come_back_checked(server: S3Server, bucket: str, tmp_path: Path) -> None:
    store = server.store(bucket, multipart_bytes=6 << 20, part_bytes=5 << 20)
    file = tmp_path / "large"
    file.write_bytes(os.urandom(12 << 20))
    etag = store.put_file("large", file)
    assert etag.endswith("-3")
    store.get_file("large", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == file.read_bytes()
    assert store.get_range("large", (10 << 20) - 2, 4) == file.read_bytes()[(10 << 20) - 2 : (10 << 20) + 2]
    # One bit in the server's own folder.
    kept = server.root / bucket / "large"
    with kept.open("r+b") as raw:
        raw.seek(7 << 20)
        byte = raw.read(1)[0]
        raw.seek(7 << 20)
        raw.write(bytes([byte ^ 1]))
    for read in (lambda: store.get("large"), lambda: store.get_file("large", tmp_path / "other")):
        with pytest.raises(ObjectCorrupt, match=r"large: expected sha256 .*, found .*bring it back from a copy"):
            read()
    assert not (tmp_path / "other").exists()


def test_an_upload_that_was_killed_shows_nothing_and_is_swept(server: S3Server, bucket: str) -> None:
    store = server.store(bucket)
    upload = server.client.create_multipart_upload(Bucket=bucket, Key="half")["UploadId"]
    server.client.upload_part(Bucket=bucket, Key="half", UploadId=upload, PartNumber=1, Body=b"x" * (5 << 20))
    assert list(store.list()) == []
    assert store.sweep(datetime.now(UTC) - timedelta(days=1)) == 0
    assert store.sweep(datetime.now(UTC) + timedelta(days=1)) == 1
    assert not server.client.list_multipart_uploads(Bucket=bucket).get("Uploads")


Do = Callable[[ObjectStore], object]
EVERYTHING: list[Do] = [
    lambda store: store.put("a", b"x"),
    lambda store: store.get("a"),
    lambda store: store.head("a"),
    lambda store: store.get_range("a", 0, 1),
    lambda store: list(store.list()),
    lambda store: store.delete("a"),
]


def test_a_user_without_rights_is_told_which_keys_to_look_at(server: S3Server, bucket: str) -> None:
    store = server.store(bucket, access=server.nobody)
    for do in EVERYTHING:
        with pytest.raises(StoreDenied, match=r"check the keys in \$OC_NOBODY_KEY and \$OC_NOBODY_SECRET"):
            do(store)
    found = {check.name: check for check in preflight(store)}
    assert {name for name, check in found.items() if check.level == "fail"} == {"put", "get", "head", "list", "delete"}
    assert found["list"].fix == "give the user of these keys the right to list objects in the bucket"


def test_a_wrong_secret_is_no_rights(server: S3Server, bucket: str) -> None:
    wrong = S3Store(bucket, "", server.access, environment={"OC_S3_KEY": "tests", "OC_S3_SECRET": "wrong"})
    with pytest.raises(StoreDenied, match="SignatureDoesNotMatch"):
        wrong.get("a")


def test_a_bucket_that_goes_is_gone_and_is_not_made_anew(server: S3Server, bucket: str) -> None:
    store = server.store(bucket)
    store.put("a", b"x")
    shutil.rmtree(server.root / bucket)
    for do in EVERYTHING:
        with pytest.raises(StoreGone, match=rf"{bucket}.*make"):
            do(store)
    assert [check.name for check in preflight(store) if check.level == "fail"] == ["reach"]
    assert not (server.root / bucket).exists()


def test_a_server_that_is_down_is_said_within_seconds_and_up_again_it_goes_on(part: Any, tmp_path: Path) -> None:
    with s3_server(part("versitygw"), tmp_path) as server:
        store = server.bucket("bucket")
        store.put("a", b"x")
        server.stop()
        began = time.monotonic()
        for do in EVERYTHING:
            with pytest.raises(StoreGone, match=r"no answer from http://127.0.0.1"):
                do(store)
        assert time.monotonic() - began < 60
        server.start()
        assert store.get("a") == b"x"


def test_a_full_disk_keeps_the_old_object_and_shows_no_half_one(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "small", "1m") as folder:
        store = FileStore(folder)
        store.put("a/kept", b"x" * 100_000)
        big = tmp_path / "big"
        big.write_bytes(b"y" * 2_000_000)
        for write in (
            lambda: store.put("a/kept", b"y" * 2_000_000),
            lambda: store.put_file("a/new", big),
            lambda: store.put("new/folder", b"y" * 2_000_000),
        ):
            with pytest.raises(StoreFull, match="nothing was written; make room and run it again"):
                write()
        assert [(info.key, info.size) for info in store.list()] == [("a/kept", 100_000)]
        assert store.get("a/kept") == b"x" * 100_000
        # And no remains that fill it.
        store.put("b", b"z" * 500_000)


def test_a_full_disk_behind_a_bucket_shows_no_half_object(part: Any, tmp_path: Path) -> None:
    # A file system with extended attributes, in which the server keeps what S3 knows of an object.
    image = tmp_path / "disk.img"
    with image.open("wb") as file:
        file.truncate(16 << 20)
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("mkfs.ext4 is missing")
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
    with mounted(tmp_path / "small", "-o", "loop", str(image)) as disk:
        with s3_server(part("versitygw"), disk) as server:
            store = server.bucket("bucket", attempts=2)
            store.put("kept", b"x" * 1_000_000)
            with pytest.raises((StoreFull, StoreGone), match=r"disk is full|make room"):
                store.put("new", b"y" * 30_000_000)
            big = tmp_path / "big"
            big.write_bytes(b"y" * 30_000_000)
            with pytest.raises((StoreFull, StoreGone), match=r"disk is full|make room"):
                store.in_parts(5 << 20).put_file("parts", big)
            assert [info.key for info in store.list()] == ["kept"]
            assert store.get("kept") == b"x" * 1_000_000
            assert not server.client.list_multipart_uploads(Bucket="bucket").get("Uploads")


def test_a_read_only_folder_is_denied(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "ro", "1m") as folder:
        FileStore(folder).put("a", b"x")
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        store = FileStore(folder)
        assert store.get("a") == b"x"
        with pytest.raises(StoreDenied, match="Read-only file system; give this user the right"):
            store.put("b", b"x")
        with pytest.raises(StoreDenied):
            store.delete("a")


def test_preflight_of_a_good_bucket_is_all_ok_and_leaves_nothing(server: S3Server, bucket: str) -> None:
    store = server.store(bucket, "deep/er")
    checks = preflight(store)
    assert {check.level for check in checks} == {"ok"}, checks
    assert {"trailing checksums", "multipart", "conditional puts", "clock", "range reads"} <= {
        check.name for check in checks
    }
    assert list(server.store(bucket).list()) == []
    off = {check.name: check for check in preflight(store, now=lambda: time.time() - 3600)}
    assert off["clock"].level == "fail"
    told = re.search(r"is \+(\d+) s off", off["clock"].found)
    assert told and 3_590 <= int(told[1]) <= 3_600


def test_a_writer_that_is_killed_leaves_the_old_object(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    store = FileStore(folder, create=True)
    store.put("a", b"old")
    program = (
        "import sys, pathlib\n"
        "from onecollector_resources.storage.file_store import FileStore\n"
        "FileStore(pathlib.Path(sys.argv[1])).put_file('a', pathlib.Path('/dev/zero'))\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", program, str(folder)])
    try:
        wait_until("it writes", lambda: any(path.stat().st_size for path in folder.glob(".oc-*")), 60)
    finally:
        writer.kill()
        writer.wait()
    assert [info.key for info in store.list()] == ["a"]
    assert store.get("a") == b"old"
    assert store.sweep(datetime.now(UTC) + timedelta(days=1)) == 1
    assert sorted(path.name for path in folder.iterdir()) == [".oc-lock", "a"]
