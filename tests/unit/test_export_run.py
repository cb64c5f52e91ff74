"""A partition is replaced as a whole, is the same when it is made again, and is not called complete when it is not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onecollector_resources.exports.partitions import Hole, Partition, manifest_of, partition_of
from onecollector_resources.exports.run import Exporter
from onecollector_resources.exports.sources import Selection
from onecollector_resources.loki.lines import LineBlock, label_text
from onecollector_resources.storage.file_store import FileStore
from tests.unit.lines_model import Line, block_of, rows_of

HOUR = datetime(2026, 11, 3, 14, tzinfo=UTC)
PARTITION = Partition("default", "web", HOUR)
SELECTION = Selection(PARTITION, '{service_name="web"}', PARTITION.start_ns, PARTITION.end_ns)
LABELS = label_text({"service_name": "web"})


def lines_of(count: int, first: int = 0) -> list[Line]:
    return [(PARTITION.start_ns + n, LABELS, f"line {n}", ()) for n in range(first, first + count)]


@dataclass
class Source:
    """Holds these lines; ``changes`` says how often they change while they are read."""

    lines: Sequence[Line]
    troubles: tuple[str, ...] = ()
    changes: int = 0
    breaks_after: int | None = None
    name: Any = "chunks"
    reads: int = 0

    def read(self, selection: Selection) -> Source:
        self.reads += 1
        return self

    def blocks(self) -> Iterator[LineBlock]:
        for index, begin in enumerate(range(0, len(self.lines), 10)):
            if index == self.breaks_after:
                raise OSError("the store went away")
            yield block_of(self.lines[begin : begin + 10])
        if self.changes:
            self.changes -= 1
            self.lines = [*self.lines, *lines_of(1, len(self.lines))]

    def problems(self) -> tuple[str, ...]:
        return self.troubles

    def fingerprint(self, selection: Selection) -> str:
        return str(len(self.lines))


@dataclass
class Place:
    folder: Path
    store: FileStore = field(init=False)

    def __post_init__(self) -> None:
        self.store = FileStore(self.folder / "out", create=True)

    def exporter(self, **options: Any) -> Exporter:
        return Exporter(self.store, self.folder / "scratch", **options)

    def files(self) -> dict[str, bytes]:
        return {info.key: self.store.get(info.key) for info in self.store.list()}

    def rows(self) -> list[Line]:
        names = manifest_of(self.store.get(PARTITION.manifest_key), "m").files
        tables = [pq.ParquetFile(self.folder / "out" / PARTITION.prefix / file.name).read() for file in names]
        return rows_of(pa.concat_tables(tables))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_what_is_written_is_what_was_read_and_the_manifest_says_so(place: Place) -> None:
    lines = lines_of(35)
    manifest = place.exporter().export(SELECTION, Source(sorted([*lines, *lines[:5]])), settled=True)
    assert place.rows() == lines
    assert (manifest.rows, manifest.entries, manifest.duplicates, manifest.complete) == (35, 40, 5, True)
    assert (manifest.first_ns, manifest.last_ns) == (lines[0][0], lines[-1][0])
    assert manifest_of(place.store.get(PARTITION.manifest_key), "m") == manifest


def test_made_again_it_has_the_same_bytes_and_changed_it_is_replaced_whole(place: Place) -> None:
    exporter = place.exporter()
    exporter.export(SELECTION, Source(lines_of(20)), settled=True)
    before = place.files()
    exporter.export(SELECTION, Source(lines_of(20)), settled=True)
    assert place.files() == before
    exporter.export(SELECTION, Source(lines_of(30)), settled=True)
    assert place.rows() == lines_of(30)
    assert len(place.files()) == 2, "files of the old partition were left"


def test_a_run_that_breaks_leaves_the_partition_of_before_and_nothing_besides(place: Place) -> None:
    exporter = place.exporter()
    exporter.export(SELECTION, Source(lines_of(20)), settled=True)
    before = place.files()
    with pytest.raises(OSError, match="went away"):
        exporter.export(SELECTION, Source(lines_of(40), breaks_after=2), settled=True)
    assert place.files() == before
    assert list((place.folder / "scratch").iterdir()) == []


def test_a_source_that_changes_meanwhile_is_read_again_and_one_that_never_rests_is_not_called_complete(
    place: Place,
) -> None:
    calm = Source(lines_of(20), changes=1)
    assert place.exporter().export(SELECTION, calm, settled=True).complete
    assert (calm.reads, place.rows()) == (2, lines_of(21))
    restless = place.exporter().export(SELECTION, Source(lines_of(20), changes=9), settled=True)
    assert not restless.complete
    assert "changed" in restless.problems[0]


def test_only_what_is_complete_settled_and_of_the_same_source_is_up_to_date(place: Place) -> None:
    exporter, source = place.exporter(), Source(lines_of(20))
    assert exporter.up_to_date(SELECTION, source) is None
    exporter.export(SELECTION, source, settled=False)
    assert exporter.up_to_date(SELECTION, source) is None
    exporter.export(SELECTION, source, settled=True)
    assert exporter.up_to_date(SELECTION, source) is not None
    assert exporter.up_to_date(replace(SELECTION, query='{service_name="web"} |= "x"'), source) is None
    assert exporter.up_to_date(replace(SELECTION, end_ns=SELECTION.end_ns - 1), source) is None
    assert exporter.up_to_date(SELECTION, Source(lines_of(21))) is None, "late lines were not noticed"
    exporter.export(SELECTION, Source(lines_of(20), troubles=("chunk x is damaged",)), settled=True)
    assert exporter.up_to_date(SELECTION, source) is None


def test_files_that_are_missing_damaged_or_left_over_are_mended(place: Place) -> None:
    exporter, source = place.exporter(), Source(lines_of(20))
    exporter.export(SELECTION, source, settled=True)
    whole = place.files()
    (data,) = (key for key in whole if key.endswith(".parquet"))
    place.store.delete(data)
    assert exporter.up_to_date(SELECTION, source) is None
    exporter.export(SELECTION, source, settled=True)
    place.store.put(PARTITION.prefix + "part-00000-0123456789ab.parquet", b"of a run that was killed")
    assert exporter.up_to_date(SELECTION, source) is None
    place.store.put(data, bytes(len(whole[data])))
    exporter.export(SELECTION, source, settled=True)
    assert place.files() == whole


def test_a_service_without_a_line_leaves_no_trace(place: Place) -> None:
    place.exporter().export(SELECTION, Source(lines_of(20)), settled=True)
    assert place.exporter().export(SELECTION, Source([]), settled=True).complete
    assert place.files() == {}


def test_a_hole_that_nobody_knows_of_makes_it_incomplete(place: Place) -> None:
    def numbered(*numbers: int) -> list[Line]:
        return [
            (PARTITION.start_ns + n, LABELS, "x", (("container_id", "c"), ("log_file_record_number", str(n))))
            for n in numbers
        ]

    explained = place.exporter(explain=lambda _, holes: [replace(hole, known="gap on record") for hole in holes])
    manifest = explained.export(SELECTION, Source(numbered(1, 2, 5)), settled=True)
    assert (manifest.complete, manifest.holes) == (True, (Hole("c", 0, 3, 4, "gap on record"),))
    manifest = place.exporter(explain=lambda _, holes: holes).export(SELECTION, Source(numbered(1, 2, 5)), settled=True)
    assert not manifest.complete
    assert "3 to 4" in manifest.problems[0]


def test_an_hour_without_lines_is_a_valid_file(place: Place) -> None:
    nobody = replace(SELECTION, partition=Partition("default", "", HOUR))
    manifest = place.exporter().export(nobody, Source([]), settled=True)
    assert manifest.complete
    (file,) = manifest.files
    assert pq.ParquetFile(place.folder / "out" / nobody.partition.prefix / file.name).read().num_rows == 0


NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)


@given(NAMES, st.one_of(st.just(""), NAMES))
def test_a_folder_leads_back_to_its_partition_whatever_it_is_called(tenant: str, service: str) -> None:
    partition = Partition(tenant, service, HOUR)
    assert partition_of(partition.prefix + "part-00000-0.parquet") == partition
    assert not {"", ".", ".."} & set(partition.prefix.rstrip("/").split("/"))
