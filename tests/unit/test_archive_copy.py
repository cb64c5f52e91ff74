"""Days into the archive: whole or not there, the same bytes however often a run is broken off, and nothing unnoticed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from onecollector_resources.archive.copy import DayOpen, SourceMoves
from onecollector_resources.archive.manifest import object_key
from onecollector_resources.archive.restore import RestoreFailed, file_key, lay_out, restore_day
from onecollector_resources.archive.shelf import NotArchived, archived_days, damages, newest_manifest, wanted_manifests
from onecollector_resources.storage.chunk_storage import ChunkMetadata, ChunkStorageBackend
from onecollector_resources.storage.file_store import FileStore
from onecollector_resources.storage.objects import ObjectCorrupt, ObjectKeyError, StoreError, StoreGone
from tests.unit.archive_worlds import DAY, Tripwire, World, later


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def filled(world: World) -> World:
    for number in range(3):
        world.chunk(b"chunk %d" % number)
    world.chunk(b"over midnight", hours=(23, 25))
    world.chunk(b"of another", tenant="other")
    world.index("1-host.tsdb.gz")
    world.index("default/2-compactor.tsdb.gz")
    world.index("other/2-compactor.tsdb.gz")
    world.index("1-host.tsdb.gz", day=DAY + timedelta(days=1))
    return world


def test_a_day_is_its_chunks_and_its_index_and_no_other_tenants(world: World) -> None:
    results = list(filled(world).archiver().archive_days("default"))
    # The chunk over midnight belongs to two days.
    assert [(r.day, r.state, r.objects) for r in results] == [
        (DAY, "archived", 6),
        (DAY + timedelta(days=1), "archived", 2),
    ]
    manifest = newest_manifest(world.archive, "default", DAY)
    assert manifest is not None
    assert [one.key for one in manifest.index] == [
        "index/index_20759/1-host.tsdb.gz",
        "index/index_20759/default/2-compactor.tsdb.gz",
    ]
    for one in manifest.objects:
        assert world.archive.get(object_key("default", DAY, one.key)) == world.source.get(one.key)
    assert damages(world.archive, manifest) == []
    written = json.loads(world.archive.get(manifest.key))["manifest"]
    assert written["totals"] == {"objects": 6, "chunks": 4, "index": 2, "bytes": manifest.bytes}
    assert written["schema_config"]["configs"][0]["schema"] == "v13"


def test_a_second_run_finds_nothing_to_do_and_changes_nothing(world: World) -> None:
    archiver = filled(world).archiver()
    list(archiver.archive_days("default"))
    before = {info.key: info.etag for info in world.archive.list()}
    assert list(archiver.archive_days("default")) == []
    assert archiver.archive_day("default", DAY, archiver.listing("default")).state == "unchanged"
    assert {info.key: info.etag for info in world.archive.list()} == before


def test_whenever_a_run_is_broken_off_the_next_one_ends_with_the_same_bytes(world: World, tmp_path: Path) -> None:
    whole = filled(World(tmp_path / "whole"))
    assert len(list(whole.archiver().archive_days("default"))) == 2
    expected = {info.key: whole.archive.get(info.key) for info in whole.archive.list("objects/")}
    steps = 0
    for fails_at in range(1_000):
        broken = World(tmp_path / f"broken-{fails_at}")
        # The same objects, inode for inode, so that etags are the same.
        broken.source = whole.source
        wire = Tripwire(broken.archive.root, fails_at)
        try:
            _run(broken, wire)
        except StoreGone:
            steps += 1
        else:
            break
        # A manifest is there only with everything that it names.
        for one in archived_days(broken.archive):
            manifest = newest_manifest(broken.archive, one.tenant, one.day)
            assert manifest is not None
            assert damages(broken.archive, manifest) == []
        _run(broken, broken.archive)
        assert broken.manifests() == whole.manifests()
        assert {info.key: broken.archive.get(info.key) for info in broken.archive.list("objects/")} == expected
    assert steps > 30


def _run(world: World, archive: FileStore) -> None:
    archiver = world.archiver()
    archiver.archive = archive
    list(archiver.archive_days("default"))


def test_late_chunks_make_a_new_revision_that_names_them(world: World) -> None:
    filled(world)
    list(world.archiver().archive_days("default"))
    first = newest_manifest(world.archive, "default", DAY)
    late = world.chunk(b"late", hours=(5, 6))
    new_index = world.index("9-host.tsdb.gz")
    [result] = world.archiver().archive_days("default")
    assert (result.state, result.revision, result.late, result.copied) == ("revised", 2, 1, 2)
    second = newest_manifest(world.archive, "default", DAY)
    assert first is not None
    assert second is not None
    assert second.added == (late.key, new_index)
    assert set(second.objects) > set(first.objects)


def test_a_revision_keeps_what_lokis_retention_has_removed_since(world: World) -> None:
    chunk = world.chunk(b"old")
    index = world.index("1.tsdb.gz")
    list(world.archiver().archive_days("default"))
    world.source.delete(chunk.key)
    world.source.delete(index)
    assert list(world.archiver().archive_days("default")) == []
    late = world.chunk(b"late")
    world.index("2.tsdb.gz")
    assert [result.revision for result in world.archiver().archive_days("default")] == [2]
    manifest = newest_manifest(world.archive, "default", DAY)
    assert manifest is not None
    assert {one.key for one in manifest.chunks} == {chunk.key, late.key}
    assert len(manifest.index) == 2
    assert damages(world.archive, manifest) == []


def test_force_mends_what_rotted_in_the_archive(world: World) -> None:
    filled(world)
    list(world.archiver().archive_days("default"))
    manifest = newest_manifest(world.archive, "default", DAY)
    assert manifest is not None
    broken = manifest.chunks[1]
    world.archive.put(object_key("default", DAY, broken.key), b"rotten!")
    assert [damage.key for damage in damages(world.archive, manifest)] == [broken.key]
    archiver = world.archiver()
    assert archiver.archive_day("default", DAY, archiver.listing("default"), force=True).state == "revised"
    assert damages(world.archive, manifest) == []


def test_replace_removes_what_loki_no_longer_holds(world: World) -> None:
    secret, kept = world.chunk(b"deleted later"), world.chunk(b"kept")
    world.index("1.tsdb.gz")
    list(world.archiver().archive_days("default"))
    world.source.delete(secret.key)
    archiver = world.archiver()
    result = archiver.archive_day("default", DAY, archiver.listing("default"), replace=True)
    assert result.revision == 2
    assert {info.key for info in world.archive.list("objects/")} == {
        object_key("default", DAY, kept.key),
        object_key("default", DAY, "index/index_20759/1.tsdb.gz"),
    }
    assert list(world.manifests()) == ["manifests/default/2026-11-02/000002.json"]


def test_a_day_that_is_open_is_refused_with_the_hour_that_it_closes(world: World) -> None:
    archiver = filled(world).archiver()
    today = later().date()
    with pytest.raises(DayOpen, match=r"is not closed before .* 04:00 UTC"):
        archiver.archive_day("default", today, archiver.listing("default"))


def test_chunks_too_new_to_have_an_index_wait_and_are_not_in_the_proof(world: World) -> None:
    class Reader:
        method, reads_keys = "test", False

        def tables(self, tenant: str, day: date, keys: Sequence[str]) -> Iterator[Any]:
            raise AssertionError("lines of the new chunk would be counted")

    filled(world)
    hour = timedelta(hours=1)
    listing = world.archiver(settled=2 * hour).listing("default")
    assert listing.days == {}
    archiver = world.archiver(reader=Reader())
    fresh = world.archiver().listing("default")
    result = archiver.archive_day("default", DAY, type(fresh)(fresh.days, {DAY: 1}, 0))
    assert (result.state, result.fresh, result.lines) == ("archived", 1, None)


def test_a_day_without_chunks_is_empty_and_has_no_manifest(world: World) -> None:
    archiver = world.archiver()
    assert archiver.archive_day("default", DAY, archiver.listing("default")).state == "empty"
    assert world.manifests() == {}


def test_chunks_without_an_index_are_not_archived_as_if_they_could_be_read(world: World) -> None:
    world.chunk(b"x")
    with pytest.raises(
        StoreError, match="expected the index of 2026-11-02 under index/index_20759/, found none for 1 chunks"
    ):
        list(world.archiver().archive_days("default"))
    assert world.manifests() == {}


def test_a_chunk_that_is_damaged_in_lokis_store_is_named_and_keeps_nobody_back(world: World) -> None:
    filled(world)
    chunk = world.chunk(b"right")
    world.source.put(chunk.key, b"wrong")
    [result, _] = world.archiver().archive_days("default")
    assert result.damaged == 1
    manifest = newest_manifest(world.archive, "default", DAY)
    assert manifest is not None
    assert [one.key for one in manifest.chunks if one.damaged] == [chunk.key]


def test_an_index_that_the_compactor_rewrites_meanwhile_is_taken_as_it_is_at_the_end(world: World) -> None:
    world.chunk(b"x")
    old = world.index("1-host.tsdb.gz")

    def compact(_: object) -> None:
        if old in [info.key for info in world.source.list("index/")]:
            world.index("default/compacted.tsdb.gz", b"compacted")
            world.source.delete(old)

    archiver = world.archiver(told=compact)
    [result] = archiver.archive_days("default")
    manifest = newest_manifest(world.archive, "default", DAY)
    assert manifest is not None
    assert [one.key for one in manifest.index] == ["index/index_20759/default/compacted.tsdb.gz"]
    assert result.revision == 1


def test_a_store_that_never_stands_still_is_said_so(world: World) -> None:
    world.chunk(b"x")
    world.index("0.tsdb.gz")
    count = iter(range(1, 1_000))
    archiver = world.archiver(told=lambda _: world.index(f"{next(count)}.tsdb.gz"))
    with pytest.raises(SourceMoves, match="changed at each of 5 tries; run it again later"):
        list(archiver.archive_days("default"))
    assert world.manifests() == {}


def test_a_store_that_gives_back_other_bytes_is_refused_at_once(world: World) -> None:
    class Framing(FileStore):
        def put(self, key: str, data: bytes, **_: Any) -> str:
            return super().put(key, b"400\r\n" + data)

    filled(world)
    archiver = world.archiver()
    archiver.archive = Framing(world.archive.root)
    with pytest.raises(ObjectCorrupt, match="right after they were written; this store cannot be trusted"):
        list(archiver.archive_days("default"))
    assert world.manifests() == {}


def test_of_two_archivers_one_writes_the_manifest_and_both_end_well(world: World) -> None:
    filled(world)
    second: list[str] = []

    def meanwhile(_: object) -> None:
        if not second:
            second.append("ran")
            list(world.archiver().archive_days("default"))

    results = list(world.archiver(told=meanwhile).archive_days("default"))
    assert [result.revision for result in results] == [1, 1]
    assert len(world.manifests()) == 2


def test_laying_out_names_what_is_missing_and_what_is_damaged(world: World, tmp_path: Path) -> None:
    filled(world)
    list(world.archiver().archive_days("default"))
    manifest = newest_manifest(world.archive, "default", DAY)
    assert manifest is not None
    gone, flipped = manifest.chunks[0], manifest.chunks[2]
    world.archive.delete(object_key("default", DAY, gone.key))
    data = bytearray(world.archive.get(object_key("default", DAY, flipped.key)))
    data[0] ^= 1
    world.archive.put(object_key("default", DAY, flipped.key), bytes(data))
    found = lay_out(world.archive, manifest, tmp_path / "out")
    assert {damage.key for damage in found} == {gone.key, flipped.key}
    laid = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert laid == {file_key(one.key) for one in manifest.objects if one not in (gone, flipped)}
    with pytest.raises(
        RestoreFailed, match=r"2 of 6 objects of 2026-11-02 (?s:.)*--force(?s:.)*--with-damage"
    ) as error:
        restore_day(world.archive, [manifest], tmp_path / "scratch", Path("/no/loki"))
    assert gone.key in str(error.value)
    assert not (tmp_path / "scratch").exists()


def test_a_folder_in_use_is_never_restored_into_or_removed(world: World, tmp_path: Path) -> None:
    filled(world)
    list(world.archiver().archive_days("default"))
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "data").write_text("precious")
    with pytest.raises(RestoreFailed, match="expected no folder or an empty one, found files"):
        restore_day(world.archive, wanted_manifests(world.archive, DAY, None), mine, Path("/no/loki"))
    assert (mine / "data").read_text() == "precious"


def test_a_day_that_is_not_there_says_which_are(world: World) -> None:
    with pytest.raises(NotArchived, match="found no day at all"):
        wanted_manifests(world.archive, DAY, None)
    filled(world)
    list(world.archiver().archive_days("default"))
    with pytest.raises(
        NotArchived, match=r"expected 2020-01-01 of default, found days from 2026-11-02 to 2026-11-03 \(2\)"
    ):
        wanted_manifests(world.archive, date(2020, 1, 1), "default")


def test_chunks_come_back_as_they_were_put_and_a_second_put_is_the_first(world: World) -> None:
    backend = ChunkStorageBackend(world.source)
    about = ChunkMetadata("default", 10, 20, {"app": "a"})
    name = backend.upload_chunk(b"data", about)
    assert backend.upload_chunk(b"data", about) == name
    assert backend.download_chunk(name) == b"data"
    assert [(one.chunk_id, one.size, one.tenant, one.from_ms) for one in backend.list_chunks("default/")] == [
        (name, 4, "default", 10)
    ]
    world.source.put(name, b"flip")
    with pytest.raises(ObjectCorrupt, match=r"expected crc32c .*, found .*bring it back from an archive"):
        backend.download_chunk(name)
    with pytest.raises(ObjectCorrupt, match="found other bytes under its name"):
        backend.upload_chunk(b"data", about)
    with pytest.raises(ObjectKeyError, match="names no chunk"):
        backend.upload_chunk(b"data", ChunkMetadata("a/b", 1, 2))
    with pytest.raises(ObjectKeyError, match="names no chunk"):
        backend.upload_chunk(b"data", ChunkMetadata("a", 2, 1))


def test_rotation_removes_only_what_is_whole_in_the_archive_on_all_its_days(world: World) -> None:
    filled(world)
    world.chunk(b"today", later().date(), hours=(0, 1))
    backend = ChunkStorageBackend(world.source)
    results = backend.rotate_or_archive_old_chunks(world.archiver(), ["default"])
    assert [result.state for result in results] == ["archived", "archived"]
    assert len(list(backend.list_chunks("default/"))) == 5
    broken = next(iter(world.archive.list("objects/default/2026-11-02/default")))
    world.archive.put(broken.key, b"rotten")
    backend.rotate_or_archive_old_chunks(world.archiver(), ["default"], remove=True)
    left = [chunk.chunk_id for chunk in backend.list_chunks("default/")]
    assert len(left) == 2
    assert broken.key.removeprefix("objects/default/2026-11-02/") in left
    assert [chunk.tenant for chunk in backend.list_chunks("other/")] == ["other"]
