"""Objects as files: the store behaves as a dictionary does, a put is whole or not there, conditions hold between writers,
and every failure says what to do. The same promises are tried on a real S3 server in tests/real/test_storage.py."""

from __future__ import annotations

import os
import tempfile
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onecollector_resources.storage.file_store import FileStore
from onecollector_resources.storage.objects import (
    ObjectKeyError,
    ObjectMissing,
    PutConflict,
    StoreDenied,
    StoreError,
    StoreGone,
    open_store,
)
from onecollector_resources.storage.preflight import judge_skew, judge_trailing, preflight
from onecollector_resources.storage.s3_errors import store_error
from onecollector_resources.storage.trailing import framed
from tests.unit.racing import raced

PARTS = st.text(st.sampled_from("ab-.:1é "), min_size=1, max_size=3).filter(lambda part: part not in (".", ".."))
KEYS = st.lists(PARTS, min_size=1, max_size=3).map("/".join)
STEPS = st.lists(st.tuples(st.sampled_from(["put", "delete"]), KEYS, st.binary(max_size=8)), max_size=25)


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "store", create=True)


@settings(max_examples=60, deadline=None)
@given(STEPS, st.text(st.sampled_from("ab-./"), max_size=3))
def test_a_store_holds_what_a_dictionary_would(steps: list[tuple[str, str, bytes]], prefix: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store, model = FileStore(Path(folder)), dict[str, bytes]()
        for do, key, data in steps:
            if do == "delete":
                store.delete(key)
                model.pop(key, None)
                continue
            above = any(key.startswith(f"{other}/") or other.startswith(f"{key}/") for other in model)
            try:
                store.put(key, data)
                model[key] = data
            except ObjectKeyError:
                # On disk a name is a file or a folder.
                assert above
                continue
            assert not above
        assert {key: store.get(key) for key in model} == model
        assert [info.key for info in store.list()] == sorted(model)
        if prefix.rpartition("/")[0].strip("./") == prefix.rpartition("/")[0] and "//" not in prefix:
            assert [info.key for info in store.list(prefix)] == sorted(k for k in model if k.startswith(prefix))
        assert all(info.size == len(model[info.key]) for info in store.list())


@pytest.mark.parametrize(
    "key", ["", "/a", "a/", "a//b", ".", "..", "../a", "a/../../b", "a/./b", "a\0b", "x" * 1025, ".oc-lock"]
)
def test_no_key_leads_out_of_the_root_or_to_the_stores_own_files(store: FileStore, key: str) -> None:
    for do in (store.get, store.delete, store.head, lambda key: store.put(key, b"x")):
        with pytest.raises(ObjectKeyError, match="is no key"):
            do(key)


def test_a_link_in_the_store_leads_nowhere(store: FileStore, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"s")
    (store.root / "way").symlink_to(outside)
    (store.root / "file").symlink_to(outside / "secret")
    with pytest.raises(ObjectKeyError, match="is a link; remove the link"):
        store.put("way/x", b"x")
    with pytest.raises(ObjectKeyError):
        store.get("way/secret")
    with pytest.raises(StoreError):
        store.get("file")
    assert list(store.list()) == []
    assert [path.name for path in outside.iterdir()] == ["secret"]


def test_ranges_end_where_the_object_ends(store: FileStore) -> None:
    store.put("a", b"0123456789")
    assert store.get_range("a", 2, 3) == b"234"
    assert store.get_range("a", 8, 100) == b"89"
    assert store.get_range("a", 10, 1) == b""


def test_of_two_writers_one_wins_and_the_other_is_told(store: FileStore) -> None:
    won = raced(8, lambda mine: store.put("one/key", b"%d" % mine, only_if_absent=True), PutConflict)
    assert [b"%d" % mine for mine in won] == [store.get("one/key")]


def test_no_increment_is_lost_by_a_put_over_the_version_that_was_read(store: FileStore) -> None:
    store.put("count", b"0")

    def add() -> None:
        for _ in range(10):
            while True:
                etag = store.head("count").etag
                number = int(store.get("count"))
                try:
                    store.put("count", b"%d" % (number + 1), only_if_match=etag)
                    break
                except PutConflict:
                    continue

    writers = [threading.Thread(target=add) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert store.get("count") == b"40"


def test_a_conflict_names_both_versions(store: FileStore) -> None:
    first = store.put("a", b"1")
    second = store.put("a", b"2", only_if_match=first)
    with pytest.raises(PutConflict, match=rf"expected version {first}, found {second}; read it and decide anew"):
        store.put("a", b"3", only_if_match=first)
    with pytest.raises(PutConflict, match="found no object"):
        store.put("b", b"3", only_if_match=first)
    assert store.get("a") == b"2"


def test_a_writer_that_breaks_off_leaves_nothing(store: FileStore, tmp_path: Path) -> None:
    folder = tmp_path / "no-file"
    folder.mkdir()
    store.put("a/b", b"old")
    with pytest.raises(OSError):
        store.put_file("a/b", folder)
    assert store.get("a/b") == b"old"
    assert [path.name for path in (store.root / "a").iterdir()] == ["b"]


def test_what_killed_writers_left_is_not_listed_and_is_swept_when_it_is_old(store: FileStore) -> None:
    store.put("a/b", b"x")
    old, new = store.root / "a" / ".oc-1", store.root / "a" / ".oc-2"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (1, 1))
    assert [info.key for info in store.list()] == ["a/b"]
    assert store.sweep(datetime.now(UTC) - timedelta(days=1)) == 1
    assert not old.exists()
    assert new.exists()


def test_a_folder_that_went_is_not_made_anew(store: FileStore) -> None:
    store.root.rename(store.root.with_name("elsewhere"))
    for do in (
        lambda: store.put("a", b""),
        lambda: store.get("a"),
        lambda: list(store.list()),
        lambda: store.delete("a"),
    ):
        with pytest.raises(StoreGone, match="expected the store's folder, found none; is its file system mounted"):
            do()
    assert not store.root.exists()


def test_missing_is_said_with_the_key(store: FileStore) -> None:
    with pytest.raises(ObjectMissing, match="expected the object a/b, found none"):
        store.get("a/b")


def test_urls(tmp_path: Path) -> None:
    with pytest.raises(StoreGone):
        open_store(f"file://{tmp_path}/none")
    made = open_store(f"file://{tmp_path}/a%20b", create=True)
    assert made.url == f"file://{tmp_path}/a%20b"
    assert (tmp_path / "a b").is_dir()
    for url in ("ftp://x/y", "s3:///x", "file://host/x", "relative"):
        with pytest.raises(StoreError, match="expected file:///folder or s3://bucket/prefix"):
            open_store(url)
    with pytest.raises(StoreError, match="expected an S3 access"):
        open_store("s3://bucket/prefix")


def test_keys_that_are_not_set_are_named() -> None:
    from onecollector_resources.settings import S3Settings

    with pytest.raises(StoreDenied, match=r"not set: OC_S3_KEY, OC_S3_SECRET\. Export them"):
        open_store("s3://bucket", S3Settings(endpoint="h:1"), environment={})


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (404, "NoSuchKey", "ObjectMissing"),
        (404, "NoSuchBucket", "StoreGone"),
        (403, "AccessDenied", "StoreDenied"),
        (403, "RequestTimeTooSkewed", "StoreDenied"),
        (400, "InvalidAccessKeyId", "StoreDenied"),
        (412, "PreconditionFailed", "PutConflict"),
        (409, "ConditionalRequestConflict", "PutConflict"),
        (501, "NotImplemented", "ConditionUnsupported"),
        (507, "XMinioStorageFull", "StoreFull"),
        (400, "KeyTooLongError", "ObjectKeyError"),
        (503, "SlowDown", "StoreGone"),
        (400, "Other", "StoreError"),
    ],
)
def test_each_answer_of_a_server_is_one_of_our_errors(status: int, code: str, kind: str) -> None:
    from botocore.exceptions import ClientError

    from onecollector_resources.settings import S3Settings

    answer = {"Error": {"Code": code, "Message": "m"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    found = store_error(ClientError(answer, "PutObject"), "s3://b: k cannot be written", S3Settings(endpoint="h"))  # pyright: ignore
    assert type(found).__name__ == kind
    assert str(found).startswith("s3://b: k cannot be written: ")


class IgnoresConditions(FileStore):
    """As some S3 servers are: 200, and written."""

    def put(self, key: str, data: bytes, *, only_if_absent: bool = False, only_if_match: str | None = None) -> str:
        return super().put(key, data)


class ForgetsToList(FileStore):
    """A listing that lags."""

    def list(self, prefix: str = ""):
        return (info for info in super().list(prefix) if not info.key.endswith("b/10"))


def test_preflight_finds_what_a_store_only_claims_to_do(tmp_path: Path) -> None:
    good = preflight(FileStore(tmp_path / "good", create=True))
    assert {check.level for check in good} == {"ok"}
    bad = {check.name: check for check in preflight(IgnoresConditions(tmp_path / "bad", create=True))}
    assert bad["conditional puts"].level == "fail"
    assert "ignores If-None-Match and If-Match" in bad["conditional puts"].found
    lagging = {check.name: check for check in preflight(ForgetsToList(tmp_path / "lagging", create=True))}
    assert lagging["list after write"].found.startswith("1 of 6 objects are not listed")
    assert list(FileStore(tmp_path / "good").list()) == []


def test_a_store_that_keeps_the_framing_of_an_upload_is_refused() -> None:
    body = b"chunk" * 100
    assert judge_trailing(200, body, body).level == "ok"
    kept = judge_trailing(200, framed(body), body)
    assert kept.level == "fail"
    assert "framing of the upload is kept as content" in kept.found
    assert "Loki 3.7.8 or newer" in kept.fix
    assert judge_trailing(400, None, body).level == "warn"


@pytest.mark.parametrize(("skew", "level"), [(-3, "ok"), (61, "warn"), (-1_000, "fail")])
def test_clocks(skew: float, level: str) -> None:
    assert judge_skew(skew).level == level
