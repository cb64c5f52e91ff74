"""Exported lines are read back out of a bucket."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from onecollector_resources.exports.dataset import ExportDataset
from onecollector_resources.exports.partitions import Partition
from tests.real.conftest import Finder
from tests.real.s3_server import S3Server, s3_server
from tests.unit.exported import HOUR, exported, some_lines
from tests.unit.lines_model import rows_of

pytestmark = [pytest.mark.real]


@pytest.fixture(scope="module")
def server(part: Finder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(part("versitygw"), tmp_path_factory.mktemp("dataset")) as running:
        yield running


def test_a_service_whose_name_is_no_path_is_found_read_and_checked_in_a_bucket(
    server: S3Server, tmp_path: Path
) -> None:
    server.bucket("exports")
    store = server.store("exports", "logs")
    written = []
    for hour in range(2):
        for service in ("team/50% zürich", "", "web"):
            partition = Partition("default", service, HOUR + timedelta(hours=hour))
            lines = some_lines(partition, 500)
            exported(store, tmp_path, partition, lines)
            written += lines if service.startswith("team") else []
    dataset = ExportDataset.find(store, tenant="default", service="team/50% zürich")
    assert rows_of(dataset.table(["timestamp", "line", "severity", "labels", "metadata"])) == written
    assert ExportDataset.find(store).to_pandas(["service"]).value_counts().to_dict() == {
        ("team/50% zürich",): 1000,
        ("",): 1000,
        ("web",): 1000,
    }
    assert dataset.files()[0].startswith("s3://exports/logs/tenant=default/service=team%2F50%25%20z%C3%BCrich/")
    assert list(ExportDataset.find(store).verify()) == []
    store.put(dataset.manifests[0].partition.prefix + "part-00000-0.parquet", b"left behind")
    (fault,) = dataset.verify()
    assert "no manifest names it" in fault
