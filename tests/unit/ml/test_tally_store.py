"""Kept tallies: what goes in comes out, service by service, and what was touched is refused."""

from __future__ import annotations

from datetime import date
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml.features import tally
from ml.model_store import unpacked
from ml.tally_store import (
    BUCKETS,
    Coverage,
    DayWriter,
    TallyRefused,
    TallyStore,
    bucket_of,
    day_start_minute,
    joined,
    without,
)
from ml.tenant_training import TrainingPlan, fit_group, fit_groups, groups_of, learnt_services
from onecollector_resources.storage.file_store import FileStore
from onecollector_resources.storage.objects import open_store

DAY = date(2026, 11, 3)
START = day_start_minute(DAY)
ranges = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=6)


def minutes_of(some) -> set[int]:
    return {minute for first, end in some for minute in range(first, end)}


@given(ranges, ranges)
@settings(max_examples=300, deadline=None)
def test_ranges_are_sets_of_minutes(one, other) -> None:
    assert minutes_of(joined(one)) == minutes_of(one)
    less = without(joined(one), joined(other))
    assert minutes_of(less) == minutes_of(one) - minutes_of(other)
    assert all(a[1] < b[0] for a, b in pairwise(less))


def a_day(service: str, day: date = DAY, kinds: int = 2) -> pl.DataFrame:
    start = day_start_minute(day) * 60_000_000_000
    lines = [(start + n * 7_000_000_000, f"GET {n % kinds} took {n % 50} ms", f"k{n % kinds}") for n in range(9000)]
    table = pl.DataFrame(lines, schema=["timestamp", "line", "template"], orient="row")
    return tally(table.with_columns(is_error=pl.lit(service == "db")))


def kept(tmp_path: Path, services: list[str], day: date = DAY, covered: Coverage | None = None, source: str = "s"):
    store = TallyStore(FileStore(tmp_path / "store", create=True), "shop")
    folder = tmp_path / f"scratch-{source}-{day}"
    folder.mkdir()
    writer = DayWriter(folder)
    for service in services:
        writer.add(service, a_day(service, day))
    return store, store.save(day, source, writer, covered or Coverage())


def test_a_day_is_read_service_by_service(tmp_path: Path) -> None:
    names = [f"svc-{n}" for n in range(30)] + ["db"]
    store, day = kept(tmp_path, names)
    assert store.load(DAY) == day and store.days() == [DAY] and sorted(day.services) == sorted(names)
    assert {file.bucket for file in day.files} == {bucket_of(name) for name in names}
    found = store.tally(day, "db")
    assert found is not None
    wanted = a_day("db")
    assert found.drop("took_median", "took_p95").equals(wanted.drop("took_median", "took_p95"))
    assert (found["took_p95"] - wanted["took_p95"]).abs().max() < 1e-3  # pyright: ignore[reportOperatorIssue]
    assert store.tally(day, "nobody") is None and store.load(date(2026, 11, 4)) is None


def test_a_day_that_is_counted_again_leaves_nothing_of_the_first(tmp_path: Path) -> None:
    store, first = kept(tmp_path, ["web", "db"])
    _, second = kept(tmp_path, ["web"], source="late lines")
    assert store.load(DAY) == second != first
    assert len(list(store.store.list("tallies/shop/2026-11-03/"))) == len(second.files)


def test_who_reads_a_day_while_it_is_counted_again_reads_the_new_one(tmp_path: Path) -> None:
    store, first = kept(tmp_path, ["web", "db"])
    folder = tmp_path / "again"
    folder.mkdir()
    writer = DayWriter(folder)
    writer.add("web", a_day("web", kinds=3))
    second = store.save(DAY, "late lines", writer, Coverage())
    found, wanted = store.tally(first, "web"), store.tally(second, "web")
    assert found is not None and wanted is not None and found.equals(wanted) and found["template"].n_unique() == 3
    assert store.tally(first, "db") is None
    store.store.delete(store.key(DAY))
    with pytest.raises(TallyRefused, match="counted again"):
        store.tally(first, "web")


@pytest.mark.parametrize("part", ["parquet", "json"])
@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
def test_what_was_touched_is_refused(tmp_path: Path, part: str, damage: str) -> None:
    store, day = kept(tmp_path, ["web"])
    key = store.key(DAY, day.files[0].name if part == "parquet" else "")
    data = store.store.get(key)
    if damage == "gone":
        store.store.delete(key)
    else:
        changed = data[: len(data) // 2] if damage == "cut" else data[:-9] + bytes([data[-9] ^ 4]) + data[-8:]
        store.store.put(key, changed)
    if part == "json" and damage == "gone":
        assert store.load(DAY) is None
        return
    with pytest.raises(TallyRefused, match=r"expected .* found .* counted again"):
        loaded = store.load(DAY)
        assert loaded is not None
        store.tally(loaded, "web")


def test_a_service_is_learned_from_its_first_minute_on_and_gaps_are_no_zeros(tmp_path: Path) -> None:
    gap = Coverage(((START + 600, START + 660),))
    store, first = kept(tmp_path, ["web"], covered=gap)
    _, third = kept(tmp_path, ["web", "late"], day=date(2026, 11, 5))
    plan = TrainingPlan("shop", (first, third), START, START + 3 * 1440, {"web": {"k1": "k0"}}, learning_days=2)
    learnt = {one.frame.service: one for one in learnt_services(store.store, plan, plan.services)}
    web = learnt["web"]
    assert set(web.table["template"]) == {"k0"}
    unknown = ~web.frame.observed
    # The hour of the first day, and the second day, of which nothing was tallied.
    assert unknown[600:660].all() and unknown[1440:2880].all() and unknown.sum() == 60 + 1440
    assert web.facts.missing_share == pytest.approx(1500 / 4320, abs=1e-4)
    late = learnt["late"].frame
    assert late.start == START + 2 * 1440 and late.observed.all() and learnt["late"].facts.learning
    aside = TrainingPlan("shop", (third,), START + 2880, START + 4320, {}, {"web": ((START + 3000, START + 3010),)})
    (spared,) = learnt_services(store.store, aside, ["web"])
    assert (~spared.frame.observed).sum() == 10 + 2 * 15 and spared.facts.missing_share == 0.0


def test_a_group_is_a_shard_that_can_be_read(tmp_path: Path) -> None:
    store, day = kept(tmp_path, ["web", "db"])
    plan = TrainingPlan("shop", (day,), START, START + 1440)
    group = fit_group(lambda: store.store, plan, plan.services)
    trained = unpacked(group.arrays, group.names)
    assert sorted(trained.shard.services) == ["db", "web"] and trained.shard.learning.all()
    assert [one.service for one in group.facts] == list(trained.shard.services)


def test_other_processes_give_the_same_shards(tmp_path: Path) -> None:
    names = ["web", "db", "cart", "mailer"]
    _, day = kept(tmp_path, names)
    plan = TrainingPlan("shop", (day,), START, START + 1440)
    opener = partial(open_store, (tmp_path / "store").as_uri())
    alone, together = (list(fit_groups(opener, plan, workers, size=1)) for workers in (1, 2))
    assert len(alone) > 1 and [group.facts for group in alone] == [group.facts for group in together]
    for one, other in zip(alone, together, strict=True):
        ours, theirs = unpacked(one.arrays, one.names).shard, unpacked(other.arrays, other.names).shard
        assert np.array_equal(ours.tails, theirs.tails) and np.array_equal(ours.episodes, theirs.episodes)


@given(st.sets(st.text(min_size=1, max_size=6), max_size=200), st.integers(1, 60))
@settings(max_examples=50, deadline=None)
def test_groups_are_whole_buckets_and_every_service_is_in_one(services: set[str], size: int) -> None:
    groups = groups_of(sorted(services), size)
    assert sorted(service for group in groups for service in group) == sorted(services)
    assert all(0 <= bucket_of(service) < BUCKETS for service in services)
    owners = [{bucket_of(service) for service in group} for group in groups]
    assert sum(len(owner) for owner in owners) == len(set().union(*owners))
    assert all(len(group) >= size for group in groups[:-1])
