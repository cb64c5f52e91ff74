"""Hours of people: the clocks on their walls, also on the nights when these are set."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml import detectors
from ml.evaluation.baselines import fixed_threshold
from ml.features import choose_vocabulary, frame_of
from ml.shard_arrays import BadShard, from_arrays, to_arrays
from ml.signals import HISTORY
from ml.zones import on_the_wall
from onecollector_resources.settings_models import ModelSettings
from onecollector_resources.time_zones import check_zone

DAY = 1440
EPOCH = datetime(1970, 1, 1)
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Apia")


@given(st.sampled_from(ZONES), st.integers(10_000_000, 40_000_000), st.integers(1, 200))
def test_minutes_are_those_of_the_zones_clocks(zone: str, first: int, number: int) -> None:
    minutes = np.arange(first, first + number)
    for minute, wall in zip(minutes.tolist(), on_the_wall(minutes, zone).tolist(), strict=True):
        told = datetime.fromtimestamp(minute * 60, UTC).astimezone(ZoneInfo(zone)).replace(tzinfo=None)
        assert EPOCH + timedelta(minutes=wall) == told


@pytest.mark.parametrize("name", ["Europe/Nowhere", "", "../etc/passwd", "/etc/passwd", "\0"])
def test_what_is_no_zone_is_refused_with_what_is_expected(name: str) -> None:
    with pytest.raises(ValueError, match="expected a time zone such as Europe/Berlin"):
        check_zone(name)
    with pytest.raises(ValueError, match="expected a time zone such as Europe/Berlin"):
        ModelSettings(time_zone=name)


def test_office_hours_stay_usual_when_clocks_are_set() -> None:
    # Two weeks before the night of 25 October 2026, and three days from then on.
    start = int(datetime(2026, 10, 11, tzinfo=UTC).timestamp()) // 60
    minutes, chance = np.arange(start, start + 17 * DAY), np.random.default_rng(2)
    wall = on_the_wall(minutes, "Europe/Berlin")
    hour, weekend = wall % DAY / 60, (wall // DAY + 3) % 7 >= 5
    rate = 8 + np.where(weekend, 4, 92) * np.exp(-(((hour - 13) / 3.5) ** 2))
    rows = [(int(m), "a", int(n), 0) for m, n in zip(minutes, chance.poisson(rate), strict=True) if n]
    table = pl.DataFrame(rows, schema=["minute", "template", "lines", "errors"], orient="row")
    border = start + 14 * DAY
    vocabulary = choose_vocabulary(table)
    learned = frame_of("s", table, vocabulary, start, border)
    since = border - HISTORY
    test = frame_of(
        "s",
        table,
        vocabulary,
        since,
        start + 17 * DAY,
        sightings=learned.sightings,
        earlier=learned.quarters_before(since),
    )
    found = {}
    for zone in ("UTC", "Europe/Berlin"):
        shard = detectors.join([detectors.fit_service(learned, vocabulary, zone)])
        arrays, names = to_arrays(shard)
        kept = from_arrays(arrays, names)
        assert kept.zone == zone
        found[zone] = len(detectors.episodes(kept, detectors.score(kept, [test]), detectors.thresholds(kept)))
        with pytest.raises(BadShard, match="time zone"):
            from_arrays(arrays, {**names, "zone": "Europe/Nowhere"})
    # The rules that a model is held against have the same clocks.
    by_rule = {zone: len(fixed_threshold(learned, test, 0.5, zone)) for zone in found}
    assert by_rule["Europe/Berlin"] < by_rule["UTC"] / 2, by_rule
    assert found["UTC"] >= 4
    assert found["Europe/Berlin"] <= 2
