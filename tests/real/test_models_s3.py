"""Models in a bucket: pointers that move by the store's own conditions, and damage that the bucket does not tell of."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ml.model_channels import MovedMeanwhile
from ml.model_store import ModelStore
from ml.tally_store import Coverage, DayWriter, TallyStore
from tests.real.conftest import Finder
from tests.real.s3_server import S3Server, s3_server
from tests.unit.damage import flip_a_bit
from tests.unit.ml.test_tally_store import DAY, a_day
from tests.unit.ml.trained import written

pytestmark = [pytest.mark.real]


@pytest.fixture(scope="module")
def server(part: Finder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(part("versitygw"), tmp_path_factory.mktemp("models")) as running:
        yield running


def test_of_many_who_promote_at_once_one_does_and_the_way_back_is_right(server: S3Server) -> None:
    server.bucket("models")
    models = ModelStore(server.store("models", "prefix"), "team/50% zürich")
    first, *others = (written(models, seed=1, parent=f"p{n}").model_id for n in range(6))
    models.channels.promote(first, "first", over="")

    def promote(model_id: str) -> str:
        # A client of its own, as another process has.
        channels = ModelStore(server.store("models", "prefix"), models.tenant).channels
        try:
            return channels.promote(model_id, "race", over=first).model_id
        except MovedMeanwhile:
            return ""

    with ThreadPoolExecutor(len(others)) as pool:
        won = [model_id for model_id in pool.map(promote, others) if model_id]
    assert won == [models.channels.current()]
    serving = models.serving()
    assert serving.model is not None and serving.model.model_id == won[0] and not serving.problems
    assert models.channels.roll_back("and back").model_id == first
    assert models.channels.current("previous") == won[0]


def test_of_two_first_promotions_one_does(server: S3Server) -> None:
    server.bucket("fresh")
    ids = [written(ModelStore(server.store("fresh"), "shop"), parent=f"p{n}").model_id for n in range(4)]

    def promote(model_id: str) -> str:
        try:
            return ModelStore(server.store("fresh"), "shop").channels.promote(model_id, "race", over="").model_id
        except MovedMeanwhile:
            return ""

    with ThreadPoolExecutor(len(ids)) as pool:
        won = [model_id for model_id in pool.map(promote, ids) if model_id]
    assert won == [ModelStore(server.store("fresh"), "shop").channels.current()]


def test_a_damaged_model_is_refused_and_the_one_before_serves(server: S3Server) -> None:
    server.bucket("damaged")
    models = ModelStore(server.store("damaged"), "shop")
    first, second = written(models, seed=1), written(models, seed=2)
    models.channels.promote(first.model_id, "first")
    models.channels.promote(second.model_id, "second")
    path = server.root / "damaged" / second.prefix / "shard-0000.npz"
    flip_a_bit(path)
    serving = models.serving()
    assert serving.model is not None and serving.model.model_id == first.model_id
    assert "shard-0000.npz" in serving.problems[0] and "train again" in serving.problems[0]


def test_tallies_of_a_day_are_replaced_as_a_whole(server: S3Server, tmp_path: Path) -> None:
    server.bucket("tallies")
    store = TallyStore(server.store("tallies"), "shop")
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        writer = DayWriter(folder)
        writer.add("web", a_day("web", kinds=2 + number))
        kept = store.save(DAY, f"source {number}", writer, Coverage())
        found = store.tally(kept, "web")
        assert found is not None and found["template"].n_unique() == 2 + number
    assert len(list(store.store.list("tallies/shop/2026-11-03/"))) == 1
