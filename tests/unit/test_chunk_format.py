"""A chunk's lines come out as they went in, and a chunk that is not what Loki wrote is never read as if it were."""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable, Sequence
from typing import Any

import crc32c
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from onecollector_resources.loki.chunks import kernels  # Compiled before the first test is timed.
from onecollector_resources.loki.chunks.blocks import Columns, decode_symbols, inflated
from onecollector_resources.loki.chunks.faults import ChunkDamaged, ChunkUnsupported
from onecollector_resources.loki.chunks.format import parse, read_labels
from onecollector_resources.loki.chunks.keys import parse_key
from tests.unit.chunk_model import FINGERPRINTS, Entry, Made, answered, make_chunk

TEXTS = st.one_of(st.sampled_from([b"", b"line", "ü".encode(), b"\xff", b"cut \xe2\x82"]), st.binary(max_size=300))
NAMES = st.sampled_from([b"a", b"b", b"trace_id", b"service_name", b"__error__", b"\xff", "ü".encode()])
PAIRS = st.lists(st.tuples(NAMES, TEXTS), max_size=5).map(tuple)
TIMES = st.one_of(st.integers(0, 50), st.just(1_800_000_000_000_000_000))
ENTRIES = st.tuples(TIMES, TEXTS, PAIRS)
BLOCKS = st.lists(st.lists(ENTRIES, min_size=1, max_size=8), min_size=1, max_size=4)
LABELS = {"service_name": "a", "host_name": "ü", "__stream_shard__": "1"}
EVER = (0, 1 << 62)

Row = tuple[int, str, str, tuple[tuple[str, str], ...]]


def rows(made: Made, start_ns: int = 0, end_ns: int = 1 << 62) -> list[Row]:
    """The lines of [start_ns, end_ns). Raises ChunkDamaged for the first thing that is wrong."""
    layout = parse(made.key, made.data)
    view = memoryview(made.data)
    columns = Columns()
    columns.begin(start_ns, end_ns, 0, 0)
    touched = [block for block in layout.blocks if block.touches(start_ns, end_ns)]
    symbols = decode_symbols(layout, view)
    for damage in columns.add(layout, symbols, touched, lambda block: inflated(layout, view, block)):
        raise damage
    block = columns.block()
    block.line.validate(full=True)
    block.metadata.validate(full=True)
    streams = [block.streams[number] for number in block.stream.tolist()]
    return list(
        zip(
            block.time_ns.tolist(),
            streams,
            block.line.to_pylist(),
            [tuple(pairs) for pairs in block.metadata.to_pylist()],
            strict=True,
        )
    )


@given(BLOCKS, st.sampled_from(sorted(FINGERPRINTS)))
def test_every_line_of_every_encoding_as_loki_answers_it(blocks: Sequence[Sequence[Entry]], encoding: str) -> None:
    made = make_chunk(LABELS, blocks, encoding=encoding)
    assert sorted(rows(made)) == sorted(answered(LABELS, entry) for entry in made.entries)
    assert parse(made.key, made.data).entries == len(made.entries)


@given(BLOCKS, st.integers(0, 52), st.integers(0, 52))
def test_only_lines_of_the_range_in_order_of_time(blocks: Sequence[Sequence[Entry]], start: int, end: int) -> None:
    made = make_chunk(LABELS, blocks)
    found = rows(made, start, end)
    assert sorted(found) == sorted(answered(LABELS, entry) for entry in made.entries if start <= entry[0] < end)
    assert [time_ns for time_ns, *_ in found] == sorted(time_ns for time_ns, *_ in found)


def test_labels_are_read_from_the_head_alone_which_says_how_long_it_is() -> None:
    made = make_chunk({"long": "x" * 100_000, "b": "1"}, [[(1, b"x", ())]])
    needed = read_labels(made.key, made.data[:100])
    assert isinstance(needed, int)
    assert read_labels(made.key, made.data[:needed]) == {"long": "x" * 100_000, "b": "1"}


SMALL = make_chunk(LABELS, [[(1, b"one", ((b"a", b"1"),)), (2, b"two", ())], [(3, b"three", ((b"b", b"2"),))]])
"""Of two blocks."""


def changed(data: bytes) -> Made:
    return Made(SMALL.key, data, SMALL.labels, SMALL.entries)


@given(st.integers(0, len(SMALL.data) - 1))
def test_a_chunk_that_was_cut_off_is_damaged(length: int) -> None:
    with pytest.raises(ChunkDamaged, match=SMALL.key):
        rows(changed(SMALL.data[:length]))


def places() -> dict[str, tuple[int, str]]:
    """A byte of each part, and how an error names the part."""
    layout = parse(SMALL.key, SMALL.data)
    metas_at = struct.unpack_from(">Q", SMALL.data, len(SMALL.data) - 8)[0]
    return {
        "length of the header": (3, "header"),
        "header": (20, "header"),
        "magic number": (layout.start, r"magic number 012ee56a, found 112ee56a|magic number 012ee56a"),
        "symbols": (layout.start + layout.symbols.offset + 3, "symbols: expected crc32c"),
        "block": (layout.start + layout.blocks[1].offset + 2, "block 2 of 2 .1 lines, 3 to 3 ns.: expected crc32c"),
        "checksum": (layout.start + layout.blocks[0].offset + layout.blocks[0].length, "block 1 of 2"),
        "list of blocks": (layout.start + metas_at + 1, "list of blocks: expected crc32c"),
        "footer": (len(SMALL.data) - 1, "list of blocks|footer"),
    }


@pytest.mark.parametrize("part", list(places()))
@pytest.mark.parametrize("bit", [0, 4, 7])
def test_one_wrong_bit_is_named_with_the_part_it_is_in(part: str, bit: int) -> None:
    at, named = places()[part]
    data = bytearray(SMALL.data)
    data[at] ^= 1 << bit
    with pytest.raises(ChunkDamaged, match=named) as error:
        rows(changed(bytes(data)))
    assert str(error.value).startswith(SMALL.key)


def test_versions_and_encodings_that_are_not_read_here_are_no_damage() -> None:
    with pytest.raises(ChunkUnsupported, match="version 4, found version 3"):
        rows(make_chunk(LABELS, [[(1, b"x", ())]], version=3))
    with pytest.raises(ChunkUnsupported, match=r"4 \(snappy\).*, found 2"):
        rows(make_chunk(LABELS, [[(1, b"x", ())]], number=2))


@settings(max_examples=300)
@given(st.data())
@example(None)
def test_nonsense_with_right_checksums_is_damage_and_nothing_worse(data: st.DataObject | None) -> None:
    """The loops check no bounds but their own, so whatever lies in a block must not lead them out of it."""

    def inner(place: int, raw: bytes) -> bytes:
        if data is None:
            return b"\x02" + b"\xff" * 9 + b"\x01" + raw
        at = data.draw(st.integers(0, len(raw)))
        return raw[:at] + data.draw(st.binary(max_size=12)) + raw[at + data.draw(st.integers(0, 4)) :]

    entries: list[Entry] = [(n, b"line", ((b"a", b"b"),)) for n in range(4)]
    made = make_chunk(LABELS, [entries], encoding="none", inner=inner)
    try:
        found = rows(made)
    except ChunkDamaged:
        return
    assert len(found) <= 4


@given(
    st.integers(0, 2**64 - 1), st.integers(0, 2**44), st.integers(0, 2**44), st.integers(0, 2**32 - 1), st.booleans()
)
def test_keys_of_buckets_and_of_file_systems(fingerprint: int, first: int, last: int, crc: int, on_disk: bool) -> None:
    name = f"{first:x}:{last:x}:{crc:x}"
    name = base64.b64encode(name.encode()).decode() if on_disk else name
    key = parse_key(f"t/{fingerprint:x}/{name}")
    assert key is not None
    assert (key.fingerprint, key.name) == (f"{fingerprint:x}", name)
    assert (key.from_ms, key.through_ms, key.crc) == (first, last, crc)


@pytest.mark.parametrize(
    "key", ["t", "t/", "t/ab", "t/ab/", "t/ab/x", "t/ab/1:2", "t/zz/1:2:3", "t/ab/c/1:2:3", "t/ab/AAAA"]
)
def test_other_objects_are_no_chunks(key: str) -> None:
    assert parse_key(key) is None


def test_the_key_has_the_checksum_of_the_whole_object() -> None:
    key = parse_key(SMALL.key)
    assert key is not None
    assert key.crc == crc32c.crc32c(SMALL.data)


def test_where_nothing_can_be_kept_the_loops_are_compiled_for_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A read-only installation whose user has no home, and a cache that a full disk broke."""
    njit = kernels.numba.njit
    for error in (RuntimeError("cannot cache function: no locator available"), OSError("no space left"), EOFError()):

        def refusing(signature: object, error: Exception = error, **options: bool) -> Callable[..., Any]:
            if options.get("cache"):
                raise error
            return njit(signature, **options)

        monkeypatch.setattr(kernels.numba, "njit", refusing)
        assert kernels.compiled(kernels.numba.int64(kernels.numba.int64))(lambda number: number + 1)(2) == 3
