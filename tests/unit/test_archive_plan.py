"""Names in Loki's store, days, manifests and plans: what is to be copied follows from listings, and nothing is lost by it."""

from __future__ import annotations

import base64
import gzip
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onecollector_resources.archive.indexed import unindexed
from onecollector_resources.archive.keys import ChunkKey, day_ms, day_number, index_folder, index_is_of, parse_chunk_key
from onecollector_resources.archive.manifest import (
    ArchivedObject,
    Manifest,
    ManifestError,
    from_bytes,
    manifest_key,
    parse_manifest_key,
    to_bytes,
)
from onecollector_resources.archive.plan import (
    SchemaUnsupported,
    SourceObject,
    index_prefix,
    is_closed,
    listed,
    plan_day,
)
from onecollector_resources.archive.proof import DayProof, StreamProof
from onecollector_resources.storage.objects import ObjectInfo
from tests.unit.archive_worlds import DAY, SCHEMA, chunk_of

HEX = st.text(st.sampled_from("0123456789abcdef"), min_size=1, max_size=16)
TIMES = st.integers(0, 4_000_000_000_000)
CHUNKS = st.builds(
    lambda tenant, fingerprint, first, length, crc: ChunkKey(tenant, fingerprint, first, first + length, crc),
    st.sampled_from(["default", "a.b-c_d"]),
    HEX,
    TIMES,
    st.integers(0, 3 * 86_400_000),
    st.integers(0, 2**32 - 1),
)


@settings(deadline=None)
@given(CHUNKS)
def test_a_chunks_name_is_read_in_both_forms(chunk: ChunkKey) -> None:
    assert parse_chunk_key(chunk.key) == chunk
    assert parse_chunk_key(chunk.file_key) == chunk
    assert "/" not in chunk.file_key.split("/", 2)[2]


@settings(deadline=None)
@given(CHUNKS)
def test_a_chunk_is_of_the_days_that_it_touches_and_of_no_other(chunk: ChunkKey) -> None:
    days = list(chunk.days())
    for day in days:
        first, until = day_ms(day)
        assert chunk.from_ms < until
        assert chunk.through_ms >= first
    assert chunk.through_ms < day_ms(days[-1])[1]
    assert chunk.from_ms >= day_ms(days[0])[0]


@settings(deadline=None)
@given(st.text(max_size=40) | st.tuples(HEX, HEX, HEX).map("/".join))
def test_other_objects_are_no_chunks(key: str) -> None:
    found = parse_chunk_key(key)
    assert found is None or found.key == key or found.file_key == key or ":" in key


@pytest.mark.parametrize(
    "key",
    [
        "index/index_20779/1795612359-vm-1795612359044703211.tsdb.gz",
        "loki_cluster_seed.json",
        "default/ab/2:1:0",
        "default/AB/1:2:0",
        "default/ab/" + base64.b64encode(b"not a span").decode(),
        "default/ab/ffffffffffffffff:ffffffffffffffff:0",
    ],
)
def test_what_only_looks_like_a_chunk(key: str) -> None:
    assert parse_chunk_key(key) is None


def test_index_tables_are_numbered_by_day() -> None:
    # As a Loki of ours named it: lines of 2026-11-22.
    assert index_folder("index_", date(2026, 11, 22)) == "index/index_20779/"
    assert day_number(date(1970, 1, 2)) == 1


def test_index_objects_of_other_tenants_are_not_taken() -> None:
    folder = "index/index_1/"
    assert index_is_of("index/index_1/x.tsdb.gz", folder, "a")
    assert index_is_of("index/index_1/a/x.tsdb.gz", folder, "a")
    assert not index_is_of("index/index_1/ab/x.tsdb.gz", folder, "a")
    assert not index_is_of("index/index_11/x.tsdb.gz", folder, "a")


@pytest.mark.parametrize(
    ("period", "found"),
    [
        ({"store": "boltdb-shipper"}, "boltdb-shipper"),
        ({"index": {"prefix": "i_", "period": "168h"}}, "168h"),
        ({"index": {}}, "None"),
    ],
)
def test_an_index_that_is_not_cut_by_days_is_refused_with_another_way(period: dict[str, object], found: str) -> None:
    schema = {"configs": [{**SCHEMA["configs"][0], **period}]}
    with pytest.raises(SchemaUnsupported, match=f"{found}.*onecollector export"):
        index_prefix(schema, DAY)


def test_the_period_that_was_in_force_counts() -> None:
    newer = {**SCHEMA["configs"][0], "from": "2026-11-02", "index": {"prefix": "new_", "period": "24h"}}
    schema = {"configs": [newer, *SCHEMA["configs"]]}
    assert index_prefix(schema, date(2026, 11, 1)) == "index_"
    assert index_prefix(schema, date(2026, 11, 2)) == "new_"
    with pytest.raises(SchemaUnsupported, match="names no period that 2023-01-01 is in"):
        index_prefix(schema, date(2023, 1, 1))


def test_a_day_is_closed_hours_after_its_end() -> None:
    after = timedelta(hours=4)
    assert not is_closed(DAY, datetime(2026, 11, 3, 3, 59, tzinfo=UTC), after)
    assert is_closed(DAY, datetime(2026, 11, 3, 4, tzinfo=UTC), after)


def info(chunk: ChunkKey, modified: datetime) -> ObjectInfo:
    return ObjectInfo(chunk.key, 1, modified, "e")


def test_a_listing_leaves_chunks_that_are_too_new_for_their_index() -> None:
    before = datetime(2026, 11, 3, tzinfo=UTC)
    old, new = chunk_of(b"old"), chunk_of(b"new", hours=(23, 25))
    found = listed(
        [info(old, before - timedelta(seconds=1)), info(new, before), ObjectInfo("x", 1, before, "e")],
        "default",
        before,
    )
    assert [one.chunk for one in found.days[DAY]] == [old]
    assert found.fresh == {DAY: 1, DAY + timedelta(days=1): 1}
    assert found.others == 1


NAMES = st.sets(st.sampled_from("abcdefgh"))


def sources(names: set[str], folder: str) -> tuple[SourceObject, ...]:
    return tuple(SourceObject(f"{folder}/{name}", f"{folder}/{name}", 1, "e") for name in sorted(names))


def manifest_of(chunks: set[str], index: set[str], revision: int = 1, lines: DayProof | None = None) -> Manifest:
    def archived(names: set[str], folder: str) -> tuple[ArchivedObject, ...]:
        return tuple(ArchivedObject(f"{folder}/{name}", 1, "0" * 64, "e", revision) for name in sorted(names))

    return Manifest(
        "default", DAY, revision, "s3://b", "3.7.8", SCHEMA, archived(chunks, "chunk"), archived(index, "index"), lines
    )


@settings(deadline=None)
@given(NAMES, NAMES, NAMES, NAMES, st.booleans())
def test_a_revision_holds_all_that_was_and_all_that_is_and_is_made_only_for_late_chunks(
    old: set[str], old_index: set[str], new: set[str], new_index: set[str], force: bool
) -> None:
    last = manifest_of(old, old_index, revision=3)
    plan = plan_day(sources(new, "chunk"), sources(new_index, "index"), last, force=force)
    held = {one.key for one in plan.copy} | {one.key for one in plan.carried}
    if new - old or (force and new):
        assert plan.revision == 4
        assert held == {one.key for one in (*last.objects, *sources(new, "chunk"), *sources(new_index, "index"))}
        assert plan.late == len(new - old)
        assert not {one.key for one in plan.copy} & {one.key for one in plan.carried}
    else:
        assert plan.nothing
        assert held == {one.key for one in last.objects}


@settings(deadline=None)
@given(NAMES, NAMES)
def test_a_replacement_keeps_nothing_else_and_never_replaces_a_day_by_nothing(old: set[str], new: set[str]) -> None:
    plan = plan_day(sources(new, "chunk"), sources({"i"}, "index"), manifest_of(old, {"j"}), replace=True)
    if new:
        assert {one.key for one in plan.copy} == {f"chunk/{name}" for name in new} | {"index/i"}
        assert plan.carried == ()
    else:
        assert plan.nothing


PROOFS = st.none() | st.builds(
    lambda rows: DayProof(
        "query", sum(rows.values()), "f" * 64, tuple(StreamProof(k, v, "e" * 64) for k, v in sorted(rows.items()))
    ),
    st.dictionaries(st.text(max_size=5), st.integers(0, 10**12)),
)


@settings(deadline=None)
@given(NAMES, NAMES, st.integers(1, 999_999), PROOFS)
def test_a_manifest_comes_back_as_it_was(
    chunks: set[str], index: set[str], revision: int, lines: DayProof | None
) -> None:
    made = manifest_of(chunks, index, revision, lines)
    assert from_bytes(to_bytes(made), "here") == made
    assert parse_manifest_key(made.key) == ("default", DAY, revision)


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 7))
def test_any_flipped_bit_of_a_manifest_is_found(place: int, bit: int) -> None:
    data = bytearray(to_bytes(manifest_of({"a"}, {"b"}, lines=DayProof("query", 1, "0" * 64, ()))))
    data[place % len(data)] ^= 1 << bit
    with pytest.raises(ManifestError, match=r"here: expected a manifest that has the checksum.*--force"):
        from_bytes(bytes(data), "here")


@pytest.mark.parametrize("data", [b"", b"{}", to_bytes(manifest_of({"a"}, set()))[:-20]])
def test_half_a_manifest_is_none(data: bytes) -> None:
    with pytest.raises(ManifestError):
        from_bytes(data, "here")


def test_revisions_sort_as_numbers() -> None:
    keys = [manifest_key("default", DAY, revision) for revision in (1, 2, 9, 10, 100)]
    assert keys == sorted(keys)


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=20, unique=True), st.integers(0, 20), st.booleans())
def test_chunks_that_the_index_does_not_name_are_told_from_those_that_it_does(
    checksums: list[int], named: int, packed: bool
) -> None:
    keys = [f"default/ab12/19a0c2d1000:19a0c2d2000:{checksum:x}" for checksum in checksums]
    text = b"\x00series".join([b"index", *(checksum.to_bytes(4, "big") for checksum in checksums[:named])])
    found = unindexed(keys, [gzip.compress(text) if packed else text])
    if not named:
        # An index of another kind says nothing of any.
        assert found == frozenset()
    else:
        by_chance = {key for key, c in zip(keys, checksums, strict=True) if c.to_bytes(4, "big") in text}
        assert found == set(keys) - by_chance
        assert not found & set(keys[:named])
