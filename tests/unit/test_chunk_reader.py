"""Reading a range out of chunks: every line, in order of time, in blocks that fit, and a word for all that is missing."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

# Compiled before the first test is timed.
import onecollector_resources.loki.chunks.kernels  # noqa: F401
from onecollector_resources.loki.chunks.blocks import inflated
from onecollector_resources.loki.chunks.catalogue import MS, ChunkCatalogue
from onecollector_resources.loki.chunks.engine import ChunkEngine, ChunkReading
from onecollector_resources.loki.chunks.faults import ChunkUnsupported
from onecollector_resources.loki.chunks.format import parse
from onecollector_resources.loki.chunks.reader import Limits
from onecollector_resources.loki.lines import ordered
from onecollector_resources.loki.logql import Matcher
from onecollector_resources.storage.objects import StoreGone
from tests.unit.chunk_model import TENANT, Entry, Made, MemoryStore, answered, make_chunk
from tests.unit.lines_model import Line, rows_of

EVER = (0, 1 << 60)
SMALL = Limits(block_bytes=400, kept_bytes=1_000, inflated_bytes=1_000, fetchers=3)
"""So small that every test has many windows, and chunks that are read several times."""


class World:
    """A store, a catalogue of it, an engine."""

    def __init__(self, folder: Path, chunks: Sequence[Made], limits: Limits = SMALL) -> None:
        self.store = MemoryStore().put_all(chunks)
        ticks = count(1)
        self.catalogue = ChunkCatalogue(folder / "catalogue.sqlite", self.store, lambda: float(next(ticks)))
        self.catalogue.refresh(TENANT)
        self.engine = ChunkEngine(self.store, self.catalogue, TENANT, limits)

    def read(self, *matchers: Matcher, span: tuple[int, int] = EVER) -> tuple[list[Line], ChunkReading]:
        """All rows in order, each once, and the reading; blocks that overlap in time fail."""
        reading = self.engine.read(matchers, *span)
        rows: list[Line] = []
        for block in reading.blocks():
            assert not rows or rows[-1][0] < block.time_ns.min()
            assert (block.time_ns[1:] >= block.time_ns[:-1]).all()
            rows += rows_of(ordered(block).table)
        return rows, reading


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("world")


def expected(chunks: Sequence[Made], start_ns: int = 0, end_ns: int = 1 << 60) -> list[Line]:
    """Every line of the range once, in order."""
    return sorted({answered(one.labels, e) for one in chunks for e in one.entries if start_ns <= e[0] < end_ns})


def stream(
    service: str, times: Sequence[int], blocks: int = 3, encoding: str = "snappy", *, text: bytes = b"line %d of %d"
) -> Made:
    """A chunk with a line of its own at each time."""
    entries: list[Entry] = [
        (time_ns, text % (place, time_ns), ((b"n", b"%d" % place),) if place % 3 == 0 else ())
        for place, time_ns in enumerate(sorted(times))
    ]
    step = -(-len(entries) // blocks)
    cut = [entries[first : first + step] for first in range(0, len(entries), step)]
    return make_chunk({"service_name": service}, cut, encoding=encoding)


STREAMS = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.lists(st.integers(0, 40).map(lambda n: n * MS // 4), min_size=1, max_size=30),
        st.integers(1, 4),
        st.sampled_from(["snappy", "gzip", "zstd"]),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=8, deadline=None)
@given(STREAMS, st.integers(0, 45), st.integers(0, 45), st.sampled_from([1, 200, 100_000]))
def test_every_line_of_the_range_once_in_order(
    tmp_path_factory: pytest.TempPathFactory, streams: list[tuple[str, list[int], int, str]], a: int, b: int, size: int
) -> None:
    chunks = [stream(*one) for one in streams]
    world = World(
        tmp_path_factory.mktemp("world"),
        chunks,
        Limits(block_bytes=size, kept_bytes=size, inflated_bytes=size, fetchers=2),
    )
    start, end = a * MS // 4, b * MS // 4
    rows, reading = world.read(span=(start, end))
    assert rows == expected(chunks, start, end)
    unique = {one.key: one for one in chunks}.values()
    assert reading.report.entries == sum(start <= e[0] < end for one in unique for e in one.entries)
    assert reading.problems() == ()
    some, _ = world.read(Matcher("service_name", "=~", "a|b"), span=(start, end))
    assert some == [row for row in rows if '"c"' not in row[1]]
    world.catalogue.close()


def test_lines_of_replicas_stay_to_be_counted_and_are_there_once(folder: Path) -> None:
    times = [n * MS for n in range(40)]
    # Two ingesters got the same lines and cut their chunks elsewhere.
    chunks = [stream("a", times), stream("a", times, 2), stream("a", times[20:])]
    rows, reading = World(folder, chunks[:2]).read()
    assert rows == expected(chunks[:1])
    assert reading.report.entries == 80
    assert (reading.report.chunks, reading.report.damaged) == (2, [])


def test_shards_of_a_stream_are_one_stream(folder: Path) -> None:
    entries: list[Entry] = [(n * MS, b"x", ()) for n in range(10)]
    labels = {"service_name": "a"}
    chunks = [
        make_chunk(labels, [entries]),
        make_chunk({**labels, "__time_shard__": "1_2"}, [entries[5:]]),
        make_chunk({**labels, "__stream_shard__": "0"}, [entries[:5]]),
    ]
    rows, reading = World(folder, chunks).read(Matcher("service_name", "=", "a"))
    assert [row[0] for row in rows] == [n * MS for n in range(10)]
    assert {row[1] for row in rows} == {'{"service_name":"a"}'}
    assert reading.report.entries == 20


def test_more_lines_in_one_instant_than_fit_are_one_block(folder: Path) -> None:
    chunks = [stream(name, [5 * MS] * 200, 4) for name in "ab"]
    chunks += [stream("c", [n * MS for n in range(10)])]
    world = World(folder, chunks)
    rows, _ = world.read()
    assert rows == expected(chunks)


def test_an_empty_range_and_a_selector_that_nothing_fits(folder: Path) -> None:
    world = World(folder, [stream("a", [1 * MS, 2 * MS])])
    for span in ((5, 5), (9, 3), (100 * MS, 200 * MS)):
        assert world.read(span=span)[0] == []
    assert world.read(Matcher("service_name", "=", "b"))[0] == []
    assert world.store.asked[1:] == []


def flipped(data: bytes, bit: int) -> bytes:
    at, mask = divmod(bit, 8)
    return data[:at] + bytes([data[at] ^ 1 << mask]) + data[at + 1 :]


VICTIM = stream("a", [n * MS for n in range(30)])
BYSTANDER = stream("b", [n * MS for n in range(30)])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 8 * len(VICTIM.data) - 1))
def test_whatever_bit_is_wrong_it_is_told_and_no_line_is_made_up(
    tmp_path_factory: pytest.TempPathFactory, bit: int
) -> None:
    world = World(tmp_path_factory.mktemp("world"), [VICTIM, BYSTANDER])
    world.store.objects[VICTIM.key] = flipped(VICTIM.data, bit)
    rows, reading = world.read()
    assert set(expected([BYSTANDER])) <= set(rows) <= set(expected([VICTIM, BYSTANDER]))
    assert reading.problems()
    assert {found.key for found in reading.report.damaged} == {VICTIM.key}
    world.catalogue.close()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, len(VICTIM.data) - 1))
def test_a_cut_off_object_is_told_and_the_others_are_read(
    tmp_path_factory: pytest.TempPathFactory, length: int
) -> None:
    world = World(tmp_path_factory.mktemp("world"), [VICTIM, BYSTANDER])
    world.store.objects[VICTIM.key] = VICTIM.data[:length]
    rows, reading = world.read()
    assert rows == expected([BYSTANDER])
    assert [found.key for found in reading.report.damaged] == [VICTIM.key]
    world.catalogue.close()


def test_of_a_chunk_with_one_damaged_block_the_others_are_read_and_the_lost_lines_are_counted(folder: Path) -> None:
    world = World(folder, [VICTIM])
    at = VICTIM.data.index(b"line 0") + 2  # In the first block: snappy leaves new text as it is.
    world.store.objects[VICTIM.key] = flipped(VICTIM.data, 8 * at)
    rows, reading = world.read()
    assert rows == expected([VICTIM])[10:]
    (problem,) = reading.problems()
    assert "block 1 of 3 (10 lines, 0 to 9000000 ns): expected crc32c" in problem
    # A range that the damage does not touch is complete.
    rows, reading = world.read(span=(10 * MS, 1 << 60))
    assert (len(rows), reading.problems()) == (20, ())


def test_a_chunk_of_another_version_is_left_to_the_api(folder: Path) -> None:
    world = World(folder, [BYSTANDER, make_chunk({"a": "b"}, [[(1, b"x", ())]], version=3)])
    with pytest.raises(ChunkUnsupported, match="version 4, found version 3"):
        world.read()


def test_one_wrong_bit_in_the_version_is_damage_and_no_version(folder: Path) -> None:
    world = World(folder, [VICTIM])
    at = VICTIM.data.index(bytes.fromhex("012ee56a")) + 4
    world.store.objects[VICTIM.key] = flipped(VICTIM.data, 8 * at)
    rows, reading = world.read()
    assert rows == []
    assert "version 4, found version 5" in reading.problems()[0]


def test_chunks_of_a_stream_that_nobody_can_name_are_told(folder: Path) -> None:
    world = World(folder, [VICTIM, BYSTANDER])
    world.store.objects[VICTIM.key] = b"\0" * 100
    (folder / "new").mkdir()
    blind = ChunkCatalogue(folder / "new" / "catalogue.sqlite", world.store, lambda: 1.0)
    blind.refresh(TENANT)
    reading = ChunkEngine(world.store, blind, TENANT, SMALL).read([Matcher("service_name", "=", "b")], *EVER)
    assert sum(map(len, reading.blocks())) == 30
    assert VICTIM.key in reading.problems()[0]


def test_a_chunk_that_is_gone_is_looked_for_once_more_and_then_told(folder: Path) -> None:
    world = World(folder, [VICTIM, BYSTANDER])
    del world.store.objects[VICTIM.key]
    rows, reading = world.read()
    assert rows == expected([BYSTANDER])
    assert reading.report.vanished == [VICTIM.key]
    assert reading.problems() == (f"{VICTIM.key} was listed and is gone; read it again",)
    # It was listed anew, so the next reading knows.
    assert world.read()[1].problems() == ()


def test_a_chunk_that_was_written_anew_is_read_in_its_new_form(folder: Path) -> None:
    world = World(folder, [VICTIM, BYSTANDER])
    # Loki's compactor does that: without the lines of a delete request.
    shorter = stream("a", [n * MS for n in range(30) if n != 7], 2)
    del world.store.objects[VICTIM.key]
    world.store.put_all([shorter])
    rows, reading = world.read()
    assert rows == expected([shorter, BYSTANDER])
    assert (reading.report.replaced, reading.problems()) == ([VICTIM.key], ())


def test_an_object_that_is_there_again_is_read(folder: Path) -> None:
    world = World(folder, [VICTIM])
    del world.store.objects[VICTIM.key]
    listed = world.store.list

    def back(prefix: str = "") -> Iterator[object]:
        world.store.put_all([VICTIM])
        return listed(prefix)

    world.store.list = back  # pyright: ignore[reportAttributeAccessIssue]
    rows, reading = world.read()
    assert (rows, reading.problems()) == (expected([VICTIM]), ())


def test_a_store_that_fails_ends_the_reading(folder: Path) -> None:
    world = World(folder, [VICTIM, BYSTANDER])
    asked = count()

    def fail(key: str) -> None:
        if next(asked) == 3:
            raise StoreGone("the network went")

    world.store.on_get = fail
    with pytest.raises(StoreGone, match="the network went"):
        world.read()
    assert quiet()


def quiet() -> bool:
    """No thread of a reading is left."""
    return not [thread for thread in threading.enumerate() if thread.name.startswith("chunk-")]


def test_whoever_stops_in_the_middle_leaves_nothing_running(folder: Path) -> None:
    world = World(folder, [stream(name, [n * MS for n in range(500)], 20) for name in "abcd"])
    blocks = world.engine.read([], *EVER).blocks()
    next(blocks)
    blocks.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert quiet()


def test_a_slow_consumer_does_not_fill_memory(folder: Path) -> None:
    """With the first block in hand and the threads at rest, no more of the store was read than the limits allow."""
    chunks = [stream("a", [(500 * part + n) * MS for n in range(500)]) for part in range(40)]
    limits = Limits(block_bytes=8_000, kept_bytes=8_000, decoders=2, fetchers=2)
    world = World(folder, chunks, limits)
    world.store.asked.clear()
    blocks = world.engine.read([], *EVER).blocks()
    first = next(blocks)
    rested, before = threading.Event(), -1
    while before != len(world.store.asked):
        before = len(world.store.asked)
        rested.wait(0.3)
    read = {key for key, _ in world.store.asked}
    assert len(read) < 20
    rest = [len(block) for block in blocks]
    assert len(first) + sum(rest) == 40 * 500
    assert len(rest) > 40


def test_each_object_is_read_and_each_block_inflated_once_where_there_is_room(folder: Path) -> None:
    chance = random.Random(3)
    chunks = [stream(name, sorted(chance.sample(range(10_000 * MS), 300)), 6) for name in "abcdef"]
    world = World(folder, chunks, Limits(block_bytes=20_000, kept_bytes=1 << 20, decoders=1))
    world.store.asked.clear()
    rows, reading = world.read()
    assert rows == expected(chunks)
    assert reading.report.objects == reading.report.chunks == len(world.store.asked) == 6
    layouts = [(parse(one.key, one.data), memoryview(one.data)) for one in chunks]
    every = [len(inflated(layout, data, block)) for layout, data in layouts for block in layout.blocks]
    assert reading.report.inflated_bytes == sum(every)


def test_how_many_lines_a_chunk_holds(folder: Path) -> None:
    world = World(folder, [VICTIM])
    assert world.engine.entries_of(world.engine.read([], *EVER).chunks[0]) == 30
