"""Exported lines are read back as they were written, by our reader and by bare pandas and polars."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onecollector.cli.errors import KNOWN
from onecollector_resources.exports import writer as writing
from onecollector_resources.exports.dataset import DatasetError, ExportDataset
from onecollector_resources.exports.partitions import Partition, partition_of
from onecollector_resources.loki.lines import SCHEMA_VERSION
from onecollector_resources.storage.file_store import FileStore
from tests.unit.damage import flip_a_bit
from tests.unit.exported import HOUR, SECOND_NS, exported, shop, small_dataset, some_lines
from tests.unit.lines_model import rows_of

ODD = ["web", "a b", "50%", "x%2Fy", "team/api", "zürich", "日本", "..", "a=b", "q[1]*?", "null", "007", '"', "\\"]
START_NS = Partition("default", "", HOUR).start_ns
HOUR_NS = 3600 * SECOND_NS


def services_of(column: Any) -> set[str]:
    return set(column)


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> FileStore:
    """Services with any name, lines without one, and an hour in which nothing was."""
    folder = tmp_path_factory.mktemp("odd")
    store = small_dataset(folder, [*ODD, ""])
    exported(store, folder / "scratch", Partition("default", "", HOUR + timedelta(hours=5)), [])
    return store


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that is damaged now and then."""
    return small_dataset(tmp_path_factory.mktemp("damaged"), ["web"], hours=1).root


# What any other tool sees.


def test_bare_pandas_reads_the_folder_with_the_partitions_as_columns(odd: FileStore) -> None:
    frame: Any = pd.read_parquet(odd.root)
    assert len(frame) == 12 * (len(ODD) + 1)
    assert services_of(frame.service) == {*ODD, ""}
    assert {str(value) for value in frame.date} == {"2026-11-03"}
    assert {int(value) for value in frame.hour} == {14, 15}
    web = frame[(frame.service == "web") & (frame.hour == 14)].sort_values("timestamp")
    assert list(web.line) == [f"line {n}" for n in range(6)]
    assert list(web.severity.astype(object).where(web.severity.notna(), None)) == ["error", None, None] * 2
    assert web.timestamp.iloc[1].value == START_NS + SECOND_NS
    assert dict(web.metadata.iloc[3]) == {"severity_text": "ERROR", "trace_id": "t3"}


def test_bare_polars_reads_the_folder_with_the_partitions_as_columns(odd: FileStore) -> None:
    pattern = f"{odd.root}/**/*.parquet"
    assert pl.read_parquet(pattern).height == 12 * (len(ODD) + 1)
    frame = pl.read_parquet(pattern, hive_partitioning=True)
    assert services_of(frame["service"]) == {*ODD, ""}
    web = frame.filter(pl.col("service") == "web", pl.col("hour") == 14).sort("timestamp")
    assert web["line"].to_list() == [f"line {n}" for n in range(6)]
    assert web["severity"].cast(pl.String).to_list() == ["error", None, None] * 2
    assert web["timestamp"].dtype == pl.Datetime("ns", "UTC")
    lazy = pl.scan_parquet(pattern, hive_partitioning=True).filter(pl.col("service") == "team/api")
    assert lazy.select(pl.len()).collect().item() == 12


def test_names_of_digits_alone_stay_texts_where_the_reader_is_told_so(tmp_path: Path) -> None:
    store = small_dataset(tmp_path, ["007", "42"])
    kinds = pa.schema([("tenant", pa.string()), ("service", pa.string()), ("date", pa.date32()), ("hour", pa.int32())])
    frame = pd.read_parquet(store.root, partitioning=ds.partitioning(kinds, flavor="hive"))
    assert services_of(frame.service) == {"007", "42"}
    told = {"tenant": pl.String, "service": pl.String, "date": pl.Date, "hour": pl.Int32}
    lazy = pl.scan_parquet(f"{store.root}/**/*.parquet", hive_partitioning=True, hive_schema=told)
    assert services_of(lazy.collect()["service"]) == {"007", "42"}


def test_the_readers_files_are_what_others_can_open(odd: FileStore) -> None:
    files = ExportDataset.find(odd, service="x%2Fy").files()
    assert len(files) == 2
    frame = pl.read_parquet(list(files), hive_partitioning=True, glob=False)
    assert (frame.height, services_of(frame["service"])) == (12, {"x%2Fy"})


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40), st.text("ab.%=/ _", min_size=1, max_size=8))
def test_a_folders_name_leads_back_to_its_partition(service: str, tenant: str) -> None:
    partition = Partition(tenant, service, HOUR)
    assert partition_of(partition.manifest_key) == partition
    assert all(part not in ("", ".", "..") for part in partition.manifest_key.split("/"))


# Our reader.


def test_pandas_and_polars_get_the_same_rows_in_order(odd: FileStore) -> None:
    dataset = ExportDataset.find(odd)
    panda, polar = dataset.to_pandas(), dataset.to_polars()
    assert dataset.rows == len(panda) == polar.height == 12 * (len(ODD) + 1)
    assert list(panda.columns) == polar.columns
    assert panda.columns[-4:].tolist() == ["tenant", "service", "date", "hour"]
    assert list(panda.service) == polar["service"].cast(pl.String).to_list()
    assert list(panda.line) == polar["line"].to_list()
    assert polar.select(pl.struct("service", "timestamp")).to_series().is_sorted()
    assert panda.metadata.iloc[3] == {"severity_text": "ERROR", "trace_id": "t3"}
    assert polar["date"].dtype == pl.Date
    assert panda.date.dt.day.unique().tolist() == [3]


def test_a_service_and_no_service_are_found_each_for_itself(odd: FileStore) -> None:
    for service in [*ODD, ""]:
        found = ExportDataset.find(odd, tenant="default", service=service)
        assert set(found.to_polars(["service"])["service"].cast(pl.String)) == {service}
        assert found.rows == 12
    assert ExportDataset.find(odd, tenant="other").table().num_rows == 0
    assert ExportDataset.find(odd, tenant="other").to_pandas().columns[-1] == "hour"


@given(st.integers(-2, 9), st.integers(-2, 9))
@settings(max_examples=25, deadline=None)
def test_a_range_takes_its_start_and_leaves_its_end(odd: FileStore, first: int, length: int) -> None:
    start_ns = START_NS + first * SECOND_NS
    end_ns = start_ns + length * SECOND_NS
    found = ExportDataset.find(odd, tenant="default", service="web", start_ns=start_ns, end_ns=end_ns)
    expected = [line for line in some_lines(Partition("default", "web", HOUR), 6) if start_ns <= line[0] < end_ns]
    assert rows_of(found.table(["timestamp", "line", "severity", "labels", "metadata"])) == expected


def test_hours_outside_the_range_are_not_looked_at(odd: FileStore) -> None:
    found = ExportDataset.find(odd, service="web", start_ns=START_NS + HOUR_NS, end_ns=START_NS + 2 * HOUR_NS)
    assert [manifest.partition.hour for manifest in found.manifests] == [HOUR + timedelta(hours=1)]


def test_columns_that_are_not_asked_for_are_not_fetched(odd: FileStore) -> None:
    dataset = ExportDataset.find(odd, service="web")
    assert dataset.table(["hour", "line"]).column_names == ["hour", "line"]
    assert dataset.table(["service"]).num_rows == 12
    with pytest.raises(DatasetError, match=r"columns of timestamp, line, .*, hour, found lines"):
        dataset.table(["lines"])


def test_partitions_that_lack_lines_are_told(tmp_path: Path) -> None:
    store = small_dataset(tmp_path, ["web"])
    partition = Partition("default", "db", HOUR)
    exported(store, tmp_path / "scratch", partition, some_lines(partition, 2), ("a chunk cannot be read",))
    (lacking,) = ExportDataset.find(store).incomplete
    assert (lacking.partition, lacking.problems) == (partition, ("a chunk cannot be read",))


# While an export is at work.


class Interfering:
    """A store where something happens before the given reads of data files."""

    def __init__(self, store: FileStore, before: Callable[[int], None]) -> None:
        self._store, self._before, self.reads = store, before, 0

    def get_range(self, key: str, start: int, length: int) -> bytes:
        self.reads += 1
        self._before(self.reads)
        return self._store.get_range(key, start, length)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


@pytest.mark.parametrize("at", [1, 2, 3, 5, 8])
def test_a_partition_that_is_replaced_while_it_is_read_is_seen_whole(tmp_path: Path, at: int) -> None:
    store = FileStore(tmp_path / "out", create=True)
    partition = Partition("default", "web", HOUR)
    old, new = some_lines(partition, 40, "old"), some_lines(partition, 60, "new")
    with patch.multiple(writing, GROUP_ROWS=5, FILE_ROWS=10):
        exported(store, tmp_path / "scratch", partition, old)

        def replace(reads: int) -> None:
            if reads == at:
                exported(store, tmp_path / "scratch", partition, new)

        changing = Interfering(store, replace)
        dataset = ExportDataset.find(changing)  # type: ignore[arg-type]
        assert len(dataset.manifests[0].files) == 4
        ((manifest, table),) = dataset.tables(["line"])
    assert changing.reads >= at
    assert table["line"].to_pylist() == [line for _, _, line, _ in new]
    assert manifest.rows == 60


def test_files_that_are_gone_are_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    store = small_dataset(tmp_path, ["web"], hours=1)
    dataset = ExportDataset.find(store)
    Path(dataset.files()[0]).unlink()
    with pytest.raises(DatasetError, match=r"default/web 2026-11-03 14:00: expected the files .* --force"):
        dataset.table()


@given(st.integers(0), st.binary(min_size=1, max_size=30), st.booleans())
@settings(deadline=None)
def test_a_damaged_file_is_read_or_named_with_what_to_do(damaged: Path, at: int, bytes_: bytes, cut: bool) -> None:
    (file,) = map(Path, ExportDataset.find(FileStore(damaged)).files())
    sound = file.read_bytes()
    at %= len(sound)
    file.write_bytes(sound[:at] + bytes_ + (b"x" * len(sound) if cut else sound[at + len(bytes_) :]))
    os.truncate(file, len(sound))
    try:
        ExportDataset.find(FileStore(damaged)).table()
    except DatasetError as error:
        assert file.name in str(error) and "export the hour again with --force" in str(error)
        assert isinstance(error, KNOWN())
    finally:
        file.write_bytes(sound)


# Checking.


def test_a_sound_dataset_has_no_faults(odd: FileStore) -> None:
    assert list(ExportDataset.find(odd).verify()) == []


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (flip_a_bit, r"expected sha256 [0-9a-f]{12}…, found [0-9a-f]{12}…"),
        (lambda file: file.write_bytes(file.read_bytes()[:-1]), r"expected [\d,]+ bytes, found [\d,]+"),
        (lambda file: file.unlink(), "is gone"),
        (lambda file: file.with_name("part-00000-0.parquet").write_bytes(b"old"), "no manifest names it"),
    ],
    ids=["a bit", "cut", "gone", "left behind"],
)
def test_what_is_not_as_the_manifest_says_is_named(tmp_path: Path, harm: Callable[[Path], object], told: str) -> None:
    store = small_dataset(tmp_path, ["50%"])
    dataset = ExportDataset.find(store)
    harm(Path(dataset.files()[1]))
    (fault,) = dataset.verify()
    assert "hour=15/part-00000-" in fault
    assert re.search(told, fault), fault


def test_a_partition_that_was_replaced_since_is_checked_as_it_is(tmp_path: Path) -> None:
    store = small_dataset(tmp_path, ["web"], hours=1)
    dataset = ExportDataset.find(store)
    partition = dataset.manifests[0].partition
    exported(store, tmp_path / "scratch", partition, some_lines(partition, 9))
    assert list(dataset.verify()) == []


def test_another_schema_is_not_read_as_if_it_were_this_one(tmp_path: Path) -> None:
    store = small_dataset(tmp_path, ["web"], hours=1)
    dataset = ExportDataset.find(store)
    with (
        patch("onecollector_resources.exports.dataset.SCHEMA_VERSION", 2),
        pytest.raises(DatasetError, match="expected lines of schema 2, found 1"),
    ):
        dataset.table()
    assert dataclasses.replace(dataset, manifests=()).table().num_rows == 0


# The page about it.

EXPORT_PAGE = Path(__file__).parents[2] / "docs" / "export.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```", EXPORT_PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=[text.splitlines()[-1][:30] for text in EXAMPLES])
def test_the_pages_examples_run_as_they_stand(example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shop(tmp_path).root.rename(tmp_path / "exports")
    names: dict[str, Any] = {}
    exec(example, names)
    sizes = {name: len(names[name]) for name in ("frame", "errors", "per_minute", "faults") if name in names}
    payments = "week" in names
    expected = {"frame": 1120 if payments else 3281, "errors": 41, "per_minute": 180, "faults": 0}
    assert sizes and sizes == {name: expected[name] for name in sizes}


def test_the_page_names_every_column_and_every_field_of_the_manifest(tmp_path: Path) -> None:
    text = EXPORT_PAGE.read_text(encoding="utf-8")
    dataset = ExportDataset.find(small_dataset(tmp_path, ["web"], hours=1))
    written = json.loads(dataset.manifests[0].to_json())
    fields = {*written, *written["partition"], *written["files"][0]}
    assert [name for name in [*dataset.table().column_names, *fields] if f"`{name}`" not in text] == []
    assert f"schema version {SCHEMA_VERSION}." in text
