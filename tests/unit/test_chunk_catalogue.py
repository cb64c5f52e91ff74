"""The catalogue of chunks: what a listing shows, and nothing that it does not."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onecollector_resources.loki.chunks.catalogue import HEAD_BYTES, MS, ChunkCatalogue, Refreshed
from onecollector_resources.loki.logql import Matcher
from onecollector_resources.storage.objects import ObjectInfo, StoreGone
from tests.unit.chunk_model import TENANT, Made, MemoryStore, make_chunk

ALL: list[Matcher] = []
EVER = (0, 1 << 60)


def chunk(service: str, first_ms: int, last_ms: int, line: bytes = b"x") -> Made:
    return make_chunk({"service_name": service}, [[(first_ms * MS, line, ()), (last_ms * MS, line, ())]])


@pytest.fixture
def ticks() -> Iterator[int]:
    return count(1_000)


def catalogue(path: Path, store: MemoryStore, ticks: Iterator[int]) -> ChunkCatalogue:
    return ChunkCatalogue(path / "catalogue.sqlite", store, lambda: float(next(ticks)))  # pyright: ignore[reportArgumentType]


def keys(found: ChunkCatalogue, *matchers: Matcher, span: tuple[int, int] = EVER) -> list[str]:
    return [ref.key for ref in found.chunks(TENANT, matchers, *span)]


def test_new_chunks_appear_gone_ones_disappear_others_are_left_alone(tmp_path: Path, ticks: Iterator[int]) -> None:
    a, b, c = chunk("a", 1, 2), chunk("a", 3, 4), chunk("c", 2, 9)
    store = MemoryStore().put_all([a, b, c])
    store.objects |= {f"{TENANT}/not-a-chunk": b"", "other/ab/1:2:3": b"", "index/x": b""}
    one = catalogue(tmp_path, store, ticks)
    assert one.refresh(TENANT) == Refreshed(listed=3, added=3, gone=0, foreign=1, unreadable=0)
    assert keys(one) == [a.key, c.key, b.key]
    assert keys(one, Matcher("service_name", "=", "a")) == [a.key, b.key]
    ref = one.chunks(TENANT, [Matcher("service_name", "=~", "c|d")], *EVER)[0]
    assert (ref.labels, ref.size, ref.from_ms, ref.through_ms) == ({"service_name": "c"}, len(c.data), 2, 9)

    del store.objects[a.key], store.objects[c.key]
    new = chunk("a", 7, 7)
    store.put_all([new])
    assert one.refresh(TENANT) == Refreshed(listed=2, added=1, gone=2, foreign=1, unreadable=0)
    assert keys(one) == [b.key, new.key]
    one.close()

    # What is kept is there for the next process, which does not read labels again.
    store.asked.clear()
    again = catalogue(tmp_path, store, ticks)
    assert keys(again) == [b.key, new.key]
    assert again.refresh(TENANT) == Refreshed(listed=2, added=0, gone=0, foreign=1, unreadable=0)
    assert store.asked == []


def test_labels_are_read_once_for_a_stream_from_a_few_kilobytes(tmp_path: Path, ticks: Iterator[int]) -> None:
    large = random.Random(1).randbytes(100_000)
    store = MemoryStore().put_all([chunk("a", n, n, large) for n in range(5)] + [chunk("b", 1, 1, large)])
    catalogue(tmp_path, store, ticks).refresh(TENANT)
    assert len(store.asked) == 2
    assert max(size for _, size in store.asked) <= HEAD_BYTES


def test_labels_that_are_longer_than_that(tmp_path: Path, ticks: Iterator[int]) -> None:
    labels = {f"label_{n}": random.Random(n).randbytes(500).hex() for n in range(20)}
    made = make_chunk(labels, [[(1, b"x", ())]])
    one = catalogue(tmp_path, MemoryStore().put_all([made]), ticks)
    one.refresh(TENANT)
    assert one.chunks(TENANT, ALL, *EVER)[0].labels == labels


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=8),
    st.integers(0, 35 * MS),
    st.integers(0, 35 * MS),
)
def test_chunks_of_a_range_are_those_that_overlap_it(
    tmp_path_factory: pytest.TempPathFactory, spans: list[tuple[int, int]], start: int, end: int
) -> None:
    made = {one.key: one for one in (chunk("a", min(span), max(span)) for span in spans)}
    store = MemoryStore().put_all(made.values())
    one = catalogue(tmp_path_factory.mktemp("c"), store, count(1))  # pyright: ignore[reportArgumentType]
    one.refresh(TENANT)
    # A chunk's last ms is rounded down, so it can hold lines until the next.
    expected = {
        key
        for key, made in made.items()
        if start < end and made.entries[0][0] < end and made.entries[-1][0] + MS > start
    }
    assert set(keys(one, span=(start, end))) == expected
    one.close()


class Failing(MemoryStore):
    """A listing that ends in the middle."""

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        found = list(super().list(prefix))
        yield from found[: len(found) // 2]
        raise StoreGone("the network went")


def test_a_listing_that_fails_takes_nothing_away(tmp_path: Path, ticks: Iterator[int]) -> None:
    made = [chunk(name, 1, 2) for name in "abcd"]
    one = catalogue(tmp_path, MemoryStore().put_all(made), ticks)
    one.refresh(TENANT)
    before = keys(one)
    one.close()
    broken = catalogue(tmp_path, Failing().put_all(made), ticks)
    with pytest.raises(StoreGone):
        broken.refresh(TENANT)
    assert keys(broken) == before


def test_what_another_process_has_just_found_is_not_gone(tmp_path: Path, ticks: Iterator[int]) -> None:
    old, new = chunk("a", 1, 1), chunk("a", 2, 2)
    store = MemoryStore().put_all([old])
    mine = catalogue(tmp_path, store, ticks)

    class Between(MemoryStore):
        """Another process refreshes while this one lists."""

        def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
            found = list(super().list(prefix))
            store.put_all([new])
            mine.refresh(TENANT)
            yield from found

    other = catalogue(tmp_path, Between(store.objects), ticks)
    assert other.refresh(TENANT).gone == 0
    assert keys(other) == keys(mine) == [old.key, new.key]


def test_a_catalogue_of_another_store_is_begun_anew(tmp_path: Path, ticks: Iterator[int]) -> None:
    one = catalogue(tmp_path, MemoryStore().put_all([chunk("a", 1, 1)]), ticks)
    one.refresh(TENANT)
    one.close()
    assert keys(catalogue(tmp_path, MemoryStore(url="memory:other"), ticks)) == []


def test_a_stream_whose_first_chunk_has_no_readable_head_is_known_by_another(
    tmp_path: Path, ticks: Iterator[int]
) -> None:
    good, bad, alone = chunk("a", 2, 2), chunk("a", 1, 1), chunk("b", 5, 6)
    store = MemoryStore().put_all([good, bad, alone])
    for key in (bad.key, alone.key):
        store.objects[key] = b"\0" * 500
    one = catalogue(tmp_path, store, ticks)
    assert one.refresh(TENANT).unreadable == 1
    assert keys(one, Matcher("service_name", "=", "a")) == [bad.key, good.key]
    # Nobody knows whose lines the other one holds: it is told apart, for its time only.
    assert [ref.key for ref in one.unreadable(TENANT, 5 * MS, 6 * MS)] == [alone.key]
    assert one.unreadable(TENANT, 8 * MS, 9 * MS) == []
    store.put_all([alone])
    assert one.refresh(TENANT).unreadable == 0
    assert alone.key in keys(one)


def test_a_hundred_thousand_chunks_are_listed_without_holding_them(tmp_path: Path, ticks: Iterator[int]) -> None:
    class Large(MemoryStore):
        def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
            moment = next(super().list()).modified
            for stream in range(100):
                for n in range(1_000):
                    yield ObjectInfo(f"{prefix}{stream:03x}/{n:06x}:{n + 5:06x}:{n:x}", 9, moment, "")

        def get_range(self, key: str, start: int, length: int) -> bytes:
            return some.data[start : start + length]

    some = chunk("a", 1, 1)
    one = catalogue(tmp_path, Large().put_all([some]), ticks)
    assert one.refresh(TENANT).added == 100_000
    assert one.refresh(TENANT) == Refreshed(100_000, 0, 0, 0, 0)
    assert len(one.chunks(TENANT, [Matcher("service_name", "=", "a")], 100 * MS, 101 * MS)) == 600
