"""Chunks that a real Loki wrote, read from its store: the rows that Loki itself answers, whatever the encoding."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cramjam
import httpx
import pytest

from bench.stack import wait_until
from onecollector_resources.loki.chunks.catalogue import ChunkCatalogue
from onecollector_resources.loki.chunks.engine import ChunkEngine, ChunkReading
from onecollector_resources.loki.chunks.faults import ChunkDamaged
from onecollector_resources.loki.chunks.format import parse
from onecollector_resources.loki.chunks.reader import Limits
from onecollector_resources.loki.lifecycle import LokiLifecycle
from onecollector_resources.loki.lines import label_text, ordered
from onecollector_resources.loki.logql import plain_matchers
from onecollector_resources.settings import LokiSettings, Settings
from onecollector_resources.storage.objects import ObjectStore, open_store
from tests.real.conftest import Finder
from tests.real.lokis import TENANT, new_loki
from tests.real.s3_server import s3_server
from tests.unit.lines_model import Line, rows_of

pytestmark = [pytest.mark.real]

Pushed = tuple[int, bytes, Sequence[tuple[bytes, bytes]]]
SECOND = 10**9
SMALL = Limits(block_bytes=100_000, kept_bytes=200_000)


def message(field: int, content: bytes | int) -> bytes:
    """A field of a protobuf message: what is no UTF-8 does not go through JSON."""

    def number(value: int) -> bytes:
        out = bytearray()
        while value > 127:
            out.append(value & 127 | 128)
            value >>= 7
        return bytes([*out, value])

    if isinstance(content, int):
        return number(field << 3) + number(content)
    return number(field << 3 | 2) + number(len(content)) + content


def push(loki: LokiLifecycle, labels: str, lines: Sequence[Pushed]) -> None:
    entries = b""
    for time_ns, line, pairs in lines:
        metadata = b"".join(message(3, message(1, name) + message(2, value)) for name, value in pairs)
        stamp = message(1, time_ns // SECOND) + message(2, time_ns % SECOND)
        entries += message(2, message(1, stamp) + message(2, line) + metadata)
    answer = httpx.post(
        f"{loki.url}/loki/api/v1/push",
        content=bytes(cramjam.snappy.compress_raw(message(1, message(1, labels.encode()) + entries))),
        headers={**TENANT, "Content-Type": "application/x-protobuf"},
        timeout=60,
    )
    assert answer.status_code == 204, answer.text


ODD: list[tuple[bytes, Sequence[tuple[bytes, bytes]]]] = [
    (b"", []),
    (b"a\xffb", [(b"k", b"a\xffb")]),
    (b"cut \xe2\x82", []),
    (b"cut \xe2\x82 within \xf0\x9f\x98 it", []),
    (b"surrogate \xed\xa0\x80, too long \xc0\xaf, too high \xf4\x90\x80\x80", []),
    ('ünï \U0001f600 \ufffd \u2028 <&>"\\ \0 \x01 \x7f'.encode(), [(b"k", "ü".encode())]),
    (b"two of a name", [(b"k", b"2"), (b"k", b"1")]),
    (b"two of a name", [(b"k", b"1"), (b"k", b"2")]),
    (b"nothing in it", [(b"k", b"")]),
    (b"a label's name", [(b"service_name", b"b"), (b"place", b"x")]),
    (b"a label's name", [(b"service_name", b"b"), (b"service_name_extracted", b"c")]),
    (b"an error's name", [(b"__error__", b"x"), (b"__error_details__", b"y"), (b"__preserve_error__", b"z")]),
    (b"a shard's name", [(b"__time_shard__", b"x"), (b"__name__", b"y")]),
    (b"out of order", [(b"z", b"1"), (b"a", b"2"), (b"Z", b"3"), (b"trace.id", b"4")]),
]


@dataclass
class Place:
    """A Loki with lines in it, all of them in its store."""

    loki: LokiLifecycle
    folder: Path
    now_ns: int
    pushed: int
    """Different lines of the selector ``QUERY``."""

    @property
    def objects(self) -> Path:
        return self.loki.data_dir / "objects"

    @property
    def span(self) -> tuple[int, int]:
        return self.now_ns - 3600 * SECOND, self.now_ns + SECOND


QUERY = '{service_name=~"plain|odd", place!="elsewhere"}'


def fill(loki: LokiLifecycle, now_ns: int) -> int:
    """Lines in every shape; answers how many different ones ``QUERY`` means."""
    chance = random.Random(5)

    def lines(first_ns: int, step_ns: int, count: int) -> list[Pushed]:
        return [
            (
                first_ns + n * step_ns,
                b"level=info msg=handled path=/api/orders/%d bytes=%d " % (chance.randrange(10**6), n) + b"." * 60,
                [(b"trace_id", b"%032x" % chance.getrandbits(128)), (b"severity_text", b"INFO")] if n % 5 == 0 else [],
            )
            for n in range(count)
        ]

    # Several blocks of 256 kB each; two streams side by side; some of it pushed again.
    first = lines(now_ns - 1_800 * SECOND, SECOND // 10, 7_000)
    push(loki, '{service_name="plain", place="here"}', first)
    push(loki, '{service_name="plain", place="here"}', first[3_000:3_500])
    push(loki, '{service_name="plain", place="there"}', lines(now_ns - 1_700 * SECOND, SECOND // 10, 3_000))
    push(loki, '{service_name="plain", place="elsewhere"}', lines(now_ns - 1_700 * SECOND, SECOND, 100))
    # Older than 40 minutes: shards of time.
    push(loki, '{service_name="plain", place="here"}', lines(now_ns - 3_500 * SECOND, SECOND, 500))
    odd = [(now_ns - 600 * SECOND + n, line, pairs) for n, (line, pairs) in enumerate(ODD)]
    push(loki, '{service_name="odd", place="here"}', odd)
    # Many in one nanosecond.
    burst = [(now_ns - 500 * SECOND, b"burst %d" % n, []) for n in range(2_000)]
    push(loki, '{service_name="odd", place="there"}', burst)
    loki.flush()
    return 7_000 + 3_000 + 500 + len(ODD) + 2_000


@pytest.fixture(scope="module", params=["snappy", "gzip", "lz4", "zstd", "flate"])
def place(request: pytest.FixtureRequest, part: Finder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp(f"chunks-{request.param}")
    # A chunk that is closed on the hour would keep what was pushed twice in two chunks.
    overrides = {"ingester": {"chunk_encoding": request.param, "sync_period": "0s"}}
    loki = new_loki(part("loki"), folder, Settings(state_dir=folder, loki=LokiSettings(overrides=overrides)))
    try:
        loki.start()
        now_ns = time.time_ns()
        made = Place(loki, folder, now_ns, fill(loki, now_ns))
        wait_until("everything is in the store", lambda: stored(made) == made.pushed + 100 or loki.flush(), 150, 1)
        yield made
    finally:
        loki.kill()


def stored(place: Place) -> int:
    """Lines in all chunks that are written whole: Loki's folder store writes in place, so a look may find half of one."""
    lines = 0
    for path in (place.objects / "default").rglob("*"):
        if path.is_file():
            with suppress(ChunkDamaged):
                lines += parse(path.name, path.read_bytes()).entries
    return lines


def engine(store: ObjectStore, folder: Path, limits: Limits = SMALL) -> ChunkEngine:
    catalogue = ChunkCatalogue(folder / "catalogue.sqlite", store, time.time)
    assert catalogue.refresh("default").unreadable == 0
    return ChunkEngine(store, catalogue, "default", limits)


def rows(found: ChunkEngine, query: str, span: tuple[int, int]) -> tuple[list[Line], int, ChunkReading]:
    """Rows in order, how many were left out because they were there already, and the reading."""
    matchers = plain_matchers(query)
    assert matchers is not None
    reading = found.read(matchers, *span)
    out: list[Line] = []
    duplicates = 0
    for block in reading.blocks():
        assert not out or out[-1][0] < block.time_ns.min()
        lines = ordered(block)
        duplicates += lines.duplicates
        out += rows_of(lines.table)
    return out, duplicates, reading


def answered(loki: LokiLifecycle, query: str, span: tuple[int, int]) -> list[Line]:
    """What Loki says, asked for in pages of whole minutes."""
    found: list[Line] = []
    step = 300 * SECOND
    with httpx.Client(headers={**TENANT, "X-Loki-Response-Encoding-Flags": "categorize-labels"}, timeout=60) as http:
        for start in range(span[0], span[1], step):
            answer = http.get(
                f"{loki.url}/loki/api/v1/query_range",
                params={"query": query, "start": start, "end": min(start + step, span[1]), "limit": 50_000},
            )
            streams = answer.raise_for_status().json()["data"]["result"]
            assert sum(len(stream["values"]) for stream in streams) < 50_000
            for stream in streams:
                found += [line_of(stream["stream"], value) for value in stream["values"]]
    return sorted(found)


def line_of(labels: Mapping[str, str], value: Sequence[Any]) -> Line:
    metadata = value[2].get("structuredMetadata", {})
    return int(value[0]), label_text(labels), value[1], tuple(sorted(metadata.items()))


def test_the_rows_are_those_that_loki_answers(place: Place, tmp_path: Path) -> None:
    found, duplicates, reading = rows(engine(open_store(str(place.objects)), tmp_path), QUERY, place.span)
    assert len(found) == place.pushed
    assert found == answered(place.loki, QUERY, place.span)
    assert (duplicates, reading.problems()) == (0, ())
    assert reading.report.entries == place.pushed
    assert sum("\ufffd" in line for _, _, line, _ in found) == 5


def test_a_range_within_chunks_has_its_lines_and_no_others(place: Place, tmp_path: Path) -> None:
    reader = engine(open_store(str(place.objects)), tmp_path)
    every, _, _ = rows(reader, QUERY, place.span)
    times = sorted({time_ns for time_ns, *_ in every})
    chance = random.Random(1)
    for _ in range(5):
        start, end = sorted(chance.sample(times, 2))
        found, _, reading = rows(reader, QUERY, (start, end))
        assert found == [row for row in every if start <= row[0] < end]
        assert reading.report.entries == len(found)
    some = times[len(times) // 2]
    assert rows(reader, QUERY, (some, some))[0] == []
    assert rows(reader, QUERY, (some + 1, some + 2))[0] == []
    assert len(rows(reader, QUERY, (some, some + 1))[0]) >= 1
    late = place.span[1] + 10**12
    assert rows(reader, QUERY, (late, late + 10**12))[0] == []


@pytest.mark.parametrize("part_of", ["header", "magic number", "symbols", "block", "list of blocks", "footer", "end"])
def test_damage_is_told_and_what_is_whole_is_read(place: Place, tmp_path: Path, part_of: str) -> None:
    objects = tmp_path / "objects"
    shutil.copytree(place.objects / "default", objects / "default")
    reader = engine(open_store(str(objects)), tmp_path)
    every, _, _ = rows(reader, QUERY, place.span)
    victim = max((ref for ref in reader.read([], *place.span).chunks), key=lambda ref: ref.size)
    path = objects / victim.key
    data = bytearray(path.read_bytes())
    layout = parse(victim.key, bytes(data))
    at = {
        "header": 30,
        "magic number": layout.start,
        "symbols": layout.start + layout.symbols.offset + 20,
        "block": layout.start + layout.blocks[1].offset + 100,
        "list of blocks": len(data) - 32 - 4 - 3,
        "footer": len(data) - 5,
        "end": len(data) - 1,
    }[part_of]
    path.write_bytes(data[:at] if part_of == "end" else data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
    found, _, reading = rows(reader, QUERY, place.span)
    (damage,) = reading.report.damaged
    assert damage.key == victim.key
    lost = layout.blocks[1].entries if part_of == "block" else layout.entries
    assert len(every) - len(found) == lost
    assert set(found) < set(every)


def test_lines_that_lie_in_several_chunks_are_there_once_and_counted(place: Place, tmp_path: Path) -> None:
    labels, first = '{service_name="again"}', place.now_ns - 1_000 * SECOND
    lines: list[Pushed] = [(first + n, b"line %d" % n, [(b"n", b"%d" % n)] if n % 2 else []) for n in range(2_000)]
    before = stored(place)
    # As from replicas: each has most of the lines, in chunks of its own.
    for part_of in (lines, lines[:1_500], lines[500:]):
        push(place.loki, labels, part_of)
        place.loki.flush()
        before += len(part_of)
        wait_until("the lines are in the store", lambda wanted=before: stored(place) == wanted, 120, 0.2)
    span = (first, first + SECOND)
    found, duplicates, reading = rows(engine(open_store(str(place.objects)), tmp_path), labels, span)
    assert [line for _, _, line, _ in found] == [f"line {n}" for n in range(2_000)]
    assert (duplicates, reading.report.entries, reading.report.chunks) == (3_000, 5_000, 3)
    assert found == answered(place.loki, labels, span)


def test_from_a_bucket(part: Finder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_server(part("versitygw"), tmp_path) as server:
        for name in ("loki-chunks", "loki-rules"):
            server.bucket(name)
        settings = Settings(state_dir=tmp_path, loki=LokiSettings(store="s3", s3=server.access))
        loki = new_loki(part("loki"), tmp_path, settings, server.environment)
        try:
            loki.start()
            now_ns = time.time_ns()
            pushed = fill(loki, now_ns)
            # A stop leaves everything in the store.
            loki.stop()
        finally:
            loki.kill()
        store = open_store("s3://loki-chunks", server.access, environment=server.environment)
        found, _, reading = rows(engine(store, tmp_path), QUERY, (now_ns - 3600 * SECOND, now_ns + SECOND))
        assert len(found) == pushed
        assert reading.problems() == ()
        assert all(":" in ref.key for ref in reading.chunks)
