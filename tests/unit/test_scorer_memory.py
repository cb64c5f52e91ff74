"""What a scorer remembers of the last day: the same whether it ran on, was started again, or another model came."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ml.drift import MOST_STRANGERS
from ml.live_window import FOLDED, KEPT, Blind, KeptMinute, LiveWindow
from ml.minute_tally import MinuteTally, schema
from ml.quarters import QUARTER, Quarters
from onecollector.scorer.state import ScorerState, Told
from tests.unit.scorer_world import FIRST, NOW, SERVICES, models

START = NOW
MINUTES = 400
GAP = range(150, 190)


def kept(model, minute: int, hidden: bool) -> KeptMinute:
    """Every service writes three lines of a known template in every seventh minute, and two of an unknown one."""
    rows = []
    for shard in model.shards:
        for service, vocabulary in zip(shard.shard.services, shard.shard.vocabularies, strict=True):
            if minute % 7 == 0:
                for template, lines in ((vocabulary.templates[0], 3), ("never seen", 2)):
                    rows.append({"service": service, "template": template, "minute": minute, "lines": lines})
    table = pl.DataFrame(rows, schema=schema()).with_columns(pl.col("errors", "bytes", "took_lines").fill_null(0))
    blind = Blind("", {"web": "a gap"}) if hidden else Blind()
    return KeptMinute(MinuteTally(minute, table.sort("service", "template"), dict.fromkeys(SERVICES, 5)), blind)


def remembered(window: LiveWindow, service: str) -> np.ndarray:
    return window.frames[service].quarters_before(window.end).ending((window.end - 1) // QUARTER)


@pytest.mark.parametrize("service", ["web", "cart"])
def test_a_day_is_remembered_over_folds_restarts_and_models(tmp_path: Path, service: str) -> None:
    model = models(tmp_path / "models").serving().model
    assert model is not None
    minutes = [kept(model, START + n, n in GAP) for n in range(MINUTES)]
    window, state = LiveWindow(model, START), ScorerState(tmp_path / "state")
    state.save_before(START, window.before)
    for one in minutes:
        window.append(one)
        state.save_minute(one)
        if window.fold():
            state.save_before(window.start, window.before)
    assert window.start > START + GAP.stop
    lines = np.array([5 * ((START + n) % 7 == 0) for n in range(MINUTES)])
    observed = np.array([service != "web" or n not in GAP for n in range(MINUTES)])
    whole = Quarters().followed_by(START, lines, lines * 2 // 5, observed).ending((window.end - 1) // QUARTER)
    assert np.array_equal(remembered(window, service), whole)
    assert np.array_equal(window.sightings()[service].quarters.ending((window.end - 1) // QUARTER), whole)

    state.save_told(Told(model.model_id, window.end - 1))
    found = state.load()
    assert found is not None
    again = LiveWindow(model, found.start, found.before)
    again.load(found.minutes)
    assert np.array_equal(remembered(again, service), whole)
    for one, other in zip(window.score(), again.score(), strict=True):
        assert np.allclose(one[2].digits, other[2].digits, atol=1e-4)

    late = window.at(window.end - 5)
    assert late is not None
    window.replace(replace(late, blind=Blind("", {service: "found out later"})), {service})
    assert remembered(window, service)[2].sum() == whole[2].sum() - 1


def test_what_an_earlier_version_kept_is_read_and_the_day_is_not_known(tmp_path: Path) -> None:
    model = models(tmp_path / "models").serving().model
    assert model is not None
    state = ScorerState(tmp_path / "state")
    window = LiveWindow(model, FIRST)
    state.save_before(FIRST, window.before)
    import hashlib

    import orjson

    path = tmp_path / "state" / "before.json"
    body = orjson.loads(path.read_bytes().split(b"\n", 1)[1])
    del body["quarters"]
    text = orjson.dumps(body)
    path.write_bytes(hashlib.sha256(text).hexdigest().encode() + b"\n" + text)
    state.save_told(Told(model.model_id, FIRST - 1))
    found = state.load()
    assert found is not None
    assert found.before["web"].last
    assert found.before["web"].quarters.ending(FIRST // QUARTER).sum() == 0


def test_ever_new_templates_are_not_remembered_without_end(tmp_path: Path) -> None:
    model = models(tmp_path / "models").serving().model
    assert model is not None
    window, state = LiveWindow(model, START), ScorerState(tmp_path / "state")
    usual = kept(model, START + (-START) % 7, hidden=False).tally.table
    sizes, remembered_of, every = [], [], 1_500
    for n in range(KEPT + 2 * FOLDED):
        minute = START + n
        ids = [f"{n:08x}{number:08x}" for number in range(every)]
        news = pl.DataFrame({"template": ids}).with_columns(service=pl.lit("web"), lines=pl.lit(1, pl.Int64))
        table = pl.concat([usual, news], how="diagonal").with_columns(
            pl.col("errors", "bytes", "took_lines").fill_null(0), minute=pl.lit(minute, pl.Int64)
        )
        window.append(KeptMinute(MinuteTally(minute, table.sort("service", "template"), {"web": every}), Blind()))
        remembered_of.append(len(window.frames["web"].sightings.last))
        if window.fold():
            state.save_before(window.start, window.before)
            sizes.append((tmp_path / "state" / "before.json").stat().st_size)
    assert max(remembered_of) <= MOST_STRANGERS + 50 and len(sizes) == 2 and max(sizes) < 500_000
    frame = window.frames["web"]
    known = frame.templates[0]
    # What is usual is remembered, and what came in the last minutes.
    assert frame.sightings.last[known] == window.end - 1 and ids[0] in frame.sightings.last
    assert frame.fresh_kinds[-1] == every and known in window.before["web"].last
