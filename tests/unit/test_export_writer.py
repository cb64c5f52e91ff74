"""Parquet files whose bytes depend on the lines alone."""

from __future__ import annotations

import tempfile
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onecollector_resources.exports import writer as writing
from onecollector_resources.exports.writer import PartitionWriter
from onecollector_resources.loki.lines import label_text, ordered
from tests.unit.lines_model import Line, block_of, rows_of

SERVICES = [label_text({"service_name": name}) for name in "abc"]


@pytest.fixture(autouse=True)
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "GROUP_ROWS", 7)
    monkeypatch.setattr(writing, "GROUP_BYTES", 60)
    monkeypatch.setattr(writing, "FILE_ROWS", 20)


def lines_of(count: int) -> list[Line]:
    return [
        (n, SERVICES[n * 7 % 3], f"line {n}" * (1 + n % 4), (("severity_text", "ERROR"),) if n % 5 == 0 else ())
        for n in range(count)
    ]


def written(tables: list[pa.Table], folder: Path) -> dict[str, bytes]:
    out = PartitionWriter(folder)
    for table in tables:
        out.write(table)
    files = out.close()
    assert sum(file.rows for file in files) == out.rows
    return {file.name: (folder / file.name).read_bytes() for file in files}


@given(st.integers(0, 120), st.lists(st.integers(0, 120), max_size=6))
@settings(max_examples=40, deadline=None)
def test_where_blocks_begin_does_not_show_in_the_bytes(count: int, cuts: list[int]) -> None:
    lines = lines_of(count)
    borders = sorted({0, count, *(cut for cut in cuts if cut < count)})
    blocks = [ordered(block_of(lines[a:b])).table for a, b in pairwise(borders)]
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        whole = written([ordered(block_of(lines)).table], Path(one))
        assert written(blocks, Path(other)) == whole
        read = pa.concat_tables(pq.read_table(Path(one) / name) for name in sorted(whole))
    assert rows_of(read) == sorted(lines)


def test_a_partition_without_lines_is_one_valid_file(tmp_path: Path) -> None:
    (name,) = written([], tmp_path)
    table = pq.read_table(tmp_path / name)
    assert (table.num_rows, table.column_names) == (0, ["timestamp", "line", "severity", "labels", "metadata"])


def test_a_long_line_is_a_row_group_of_its_own_and_keeps_its_bytes(tmp_path: Path) -> None:
    lines: list[Line] = [(n, SERVICES[0], "x" * 500, ()) for n in range(4)]
    (name,) = written([ordered(block_of(lines)).table], tmp_path)
    assert pq.ParquetFile(tmp_path / name).num_row_groups == 4
    assert rows_of(pq.read_table(tmp_path / name)) == lines
