"""What a scorer finds, and that neither kills nor late lines, gaps, outages, clocks or floods make it find anything else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import polars as pl
import pytest

from ml.budgets import Budgets
from onecollector.scorer import counting
from onecollector.scorer.reader import ReadTrouble
from onecollector.scorer.state import ScorerState
from onecollector.scorer.tenant_status import Options
from tests.unit.damage import flip_a_bit
from tests.unit.scorer_world import DAY, NOW, SERVICES, World, models, time_of, written


class Killed(BaseException):
    """The process is no more."""


@pytest.fixture
def world(begun: Path, tmp_path: Path) -> World:
    """A tenant whose scorer has just begun; the next minute to score is ``NOW``."""
    return World.begun(begun, tmp_path)


def test_errors_that_were_never_written_before_are_one_finding_that_closes(world: World) -> None:
    world.failing("cart", NOW + 3, 5)
    scorer = world.scorer()
    world.run(scorer, 8)
    stored = world.found()["cart"]
    found = stored.finding
    assert list(world.found()) == ["cart"]
    assert (found.signal, found.severity, found.model_id) == ("new_errors", "error", scorer.status.model_id)
    assert found.first in (time_of(NOW + 3), time_of(NOW + 4))
    assert "never" in found.sentence or "not written before" in found.sentence
    top = found.templates[0]
    assert top.text == "ERROR db <V> refused by peer" and top.first_seen == time_of(NOW + 3)
    assert len(top.examples) == 3 and all(line.startswith("ERROR db ") for line in top.examples)
    assert found.query == '{service_name="cart"} |> "ERROR db <_> refused by peer"'
    world.run(scorer, 35)
    assert world.found()["cart"].state == "closed"
    assert world.found()["cart"].finding.key == found.key


def test_usual_minutes_are_no_findings_and_a_stranger_is_told_once(world: World) -> None:
    world.loki.others.add("newcomer")
    for minute in range(NOW, NOW + 30):
        world.loki.extra["newcomer", minute] = written("newcomer", minute)
    scorer = world.scorer()
    world.run(scorer, 30)
    assert not world.ledger.findings
    assert scorer.status.learning == 1 and scorer.status.services == len(SERVICES)
    scorer._strangers.add("cart")  # pyright: ignore[reportPrivateUsage]
    world.run(scorer, 1)
    assert scorer.status.learning == 1, "whom the model knows is no stranger any more"


@pytest.mark.parametrize("life", [11, 17, 23])
def test_killed_at_any_step_it_finds_the_same(world: World, life: int, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = 0

    def mortal(call: Callable[..., object]) -> Callable[..., object]:
        def step(*args: object, **kwargs: object) -> object:
            nonlocal steps
            steps += 1
            if steps % life == 0:
                raise Killed
            done = call(*args, **kwargs)
            steps += 1
            if steps % life == 0:
                raise Killed
            return done

        return step

    world.failing("cart", NOW + 2, 4)
    world.failing("web", NOW + 3, 4)
    calm = world.twin()
    calm.run(calm.scorer(), 12)
    monkeypatch.setattr(ScorerState, "_write", mortal(ScorerState._write))
    for port, names in ((world.ledger, ("open", "extend", "close")), (world.loki, ("lines", "counts"))):
        for name in names:
            setattr(port, name, mortal(getattr(port, name)))
    end, scorer, kills = world.now + 12 * 60, world.scorer(), 0
    while world.now < end:
        try:
            world.run(scorer, 1)
        except Killed:
            world.now -= 60
            scorer, kills = world.scorer(), kills + 1
    assert kills > 4
    assert {s: one.finding for s, one in world.found().items()} == {s: one.finding for s, one in calm.found().items()}
    assert set(world.found()) == {"cart", "web"}


def test_lines_that_come_late_are_found_as_if_they_had_been_there(world: World) -> None:
    scorer = world.scorer()
    world.run(scorer, 7)
    assert not world.ledger.findings
    world.failing("cart", NOW + 1, 3)
    world.run(scorer, 5)
    found = world.found()["cart"].finding
    assert found.first in (time_of(NOW + 1), time_of(NOW + 2)) and found.last >= time_of(NOW + 3)
    reads = dict(world.loki.reads)
    world.run(scorer, 5)
    assert set(world.found()) == {"cart"}
    assert all(world.loki.reads[minute] == reads[minute] for minute in range(NOW + 3, NOW + 6)), (
        "read again for nothing"
    )


def test_a_service_that_falls_silent_is_found_unless_a_gap_explains_it(world: World) -> None:
    world.loki.silent |= {(s, minute) for s in ("cart", "web") for minute in range(NOW + 2, NOW + 20)}
    for minute in range(NOW + 2, NOW + 20):
        world.sight.hides[minute] = {"web": "unreadable"}
    world.run(world.scorer(), 18)
    assert set(world.found()) == {"cart"}


def everything_silent(world: World, first: int, minutes: int) -> None:
    world.loki.silent |= {(s, minute) for s in SERVICES for minute in range(first, first + minutes)}


def test_silence_of_everything_is_found_only_where_all_that_was_written_is_known_to_be_there(world: World) -> None:
    scorer = world.scorer()
    world.run(scorer, 4, every_s=20)
    everything_silent(world, NOW + 5, 30)
    world.run(scorer, 8, every_s=20)
    assert not world.ledger.findings and scorer.status.hidden == len(SERVICES)
    # From here on somebody proves it, of all but one that somebody else collects.
    world.sight.collected -= {"mailer"}
    for _ in range(9):
        world.sight.through = int(world.now // 60) - 1
        world.run(scorer, 1, every_s=20)
    found = world.found()
    assert set(found) == set(SERVICES) - {"mailer"}
    assert len({one.finding.incident for one in found.values()}) <= 3
    assert all(one.finding.first >= time_of(NOW + 5) and one.finding.observed == 0 for one in found.values())


def test_a_machine_that_slept_is_no_finding_though_nothing_is_missing(world: World) -> None:
    scorer = world.scorer()
    world.run(scorer, 4, every_s=20)
    everything_silent(world, NOW + 5, 20)
    world.now = (NOW + 25) * 60.0 + 5
    for _ in range(6):
        world.sight.through = int(world.now // 60) - 1
        world.run(scorer, 1, every_s=20)
    assert scorer.status.minute >= NOW + 28 and not world.ledger.findings


def test_silence_is_not_real_where_its_lines_come_with_the_proof(world: World) -> None:
    scorer = world.scorer()
    world.run(scorer, 4, every_s=20)
    everything_silent(world, NOW + 5, 4)
    world.run(scorer, 5, every_s=20)
    assert scorer.status.hidden == len(SERVICES)
    world.loki.silent.clear()
    for _ in range(12):
        world.sight.through = int(world.now // 60) - 1
        world.run(scorer, 1, every_s=20)
    assert not world.ledger.findings


def test_an_outage_of_loki_is_no_finding_though_its_lines_come_late(world: World) -> None:
    scorer = world.scorer()
    world.run(scorer, 2)
    at = NOW + 3
    lost = {(s, minute) for s in SERVICES for minute in range(at, at + 8)}
    world.loki.away = True
    for _ in range(8):
        with pytest.raises(ReadTrouble):
            world.run(scorer, 1)
        scorer.missed(world.now)
    world.loki.away = False
    world.loki.silent |= lost
    world.run(scorer, 0.3, every_s=5)
    assert scorer.status.waits
    for pair in sorted(lost, key=lambda pair: pair[1])[:-10]:
        world.loki.silent.discard(pair)
    world.run(scorer, 0.3, every_s=5)
    world.loki.silent.clear()
    world.run(scorer, 10, every_s=5)
    assert scorer.status.minute >= at + 15 and not scorer.status.waits
    assert not world.ledger.findings


def test_a_collector_that_lags_for_all_services_is_no_finding(world: World) -> None:
    scorer = world.scorer()
    world.run(scorer, 3)
    hidden = {(s, NOW + 3) for s in SERVICES[1:]}
    world.loki.silent |= hidden
    world.now += 60
    while scorer.step(world.now):
        pass
    assert scorer.status.waits and scorer.status.minute == NOW + 2
    world.loki.silent -= hidden
    world.run(scorer, 6, every_s=5)
    assert scorer.status.minute >= NOW + 7 and not world.ledger.findings


def test_a_clock_that_jumps_is_survived(world: World) -> None:
    scorer = world.scorer()
    world.run(scorer, 3)
    world.loki.until = NOW + 4
    world.now += 90 * 60
    world.run(scorer, 7, every_s=10)
    assert scorer.status.minute > NOW + 80 and not world.ledger.findings
    world.loki.until = 1 << 60
    world.now = (NOW + 5) * 60.0
    world.failing("cart", NOW + 7, 4)
    world.run(scorer, 8)
    assert set(world.found()) == {"cart"}
    assert "clock" in scorer.status.problems
    world.run(scorer, 61)
    assert not scorer.status.problems, "what is over is not told of for ever"


def test_after_a_clock_that_was_ahead_a_lag_of_all_is_still_no_finding(world: World) -> None:
    scorer = world.scorer()
    world.run(scorer, 1)
    # Loki was away meanwhile, so the minutes ahead are doubted and stand.
    world.now += 90 * 60
    scorer.missed(world.now)
    world.run(scorer, 7, every_s=10)
    world.now = (NOW + 3) * 60.0
    world.run(scorer, 2)
    lagging = range(NOW + 5, NOW + 7)
    world.loki.silent |= {(service, minute) for service in SERVICES for minute in lagging}
    world.now = (NOW + 6) * 60.0 + 25
    while scorer.step(world.now):
        pass
    assert scorer.status.minute == NOW + 4 and "on their way" in scorer.status.waits


def test_a_flood_is_counted_and_not_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "MOST_LINES", 300)
    monkeypatch.setattr(counting, "FLOODED_LINES", 100)
    flood = [("noise {n} of kind a", 800.0), ("noise {n} of kind b", 700.0)]
    for minute in range(NOW + 1, NOW + 6):
        world.loki.extra["cart", minute] = written("cart", minute, flood)
    scorer = world.scorer()
    world.run(scorer, 5)
    assert scorer.status.overflow > 1000
    assert scorer.status.lines == sum(len(world.loki.held(s, scorer.status.minute)) for s in SERVICES)
    assert set(world.found()) <= {"cart"}


def test_many_at_once_are_one_incident_and_no_more_are_sent_than_the_cap(world: World) -> None:
    world.options = Options(findings_per_hour=2)
    for service in SERVICES:
        world.failing(service, NOW + 3, 5)
    world.run(world.scorer(), 8)
    found = world.found()
    assert set(found) == set(SERVICES)
    assert len({one.finding.incident for one in found.values()}) == 1
    assert sorted(one.announcement for one in found.values()) == ["held_back", "held_back", "sent", "sent"]
    assert list(world.ledger.held.values()) == [2]


def test_a_service_with_a_budget_of_its_own_is_told_by_it(world: World) -> None:
    world.options = Options(budget=Budgets(0.5, {"cart": 4.0}), findings_per_hour=100)
    for service in ("cart", "web"):
        world.failing(service, NOW + 3, 5)
    world.run(world.scorer(), 8)
    assert {service: one.finding.budget for service, one in world.found().items()} == {"cart": 4.0, "web": 0.5}


def test_a_model_that_finds_far_too_much_is_taken_back_by_itself(world: World) -> None:
    first, bad = models(world.folder / "models", days=2).ids()[-2:]
    for number, service in enumerate((*SERVICES, "web")):
        world.failing(service, NOW + 3 + 9 * number, 3, f"ERROR of kind {'abcde'[number]} in {{n}}")
    scorer = world.scorer()
    world.run(scorer, 45)
    found = world.models.channels.read("production")
    assert found is not None and found[1].model_id == first and "incidents within an hour" in found[1].why
    assert bad in scorer.status.problems["roll back"]


def test_another_model_goes_on_with_the_same_minutes(world: World) -> None:
    scorer = world.scorer()
    world.failing("cart", NOW + 2, 4)
    world.run(scorer, 4)
    models(world.folder / "models", days=2)
    world.run(scorer, 4)
    assert scorer.status.model_id == world.models.channels.current()
    assert set(world.found()) == {"cart"}
    again = world.scorer()
    world.run(again, 2)
    assert again.status.model_id == scorer.status.model_id and set(world.found()) == {"cart"}


@pytest.mark.parametrize("name", ["state.json", "before.json", "minutes"])
def test_damaged_state_is_thrown_away_and_told(world: World, name: str) -> None:
    path = world.folder / "state" / name
    file = sorted(path.glob("*"))[3] if path.is_dir() else path
    flip_a_bit(file)
    scorer = world.scorer()
    world.failing("cart", NOW + 4, 3)
    world.run(scorer, 7)
    assert str(file) in scorer.status.problems["state"]
    assert set(world.found()) == {"cart"}


def test_an_hour_that_was_missed_is_caught_up_in_order(world: World) -> None:
    scorer = world.scorer()
    world.run(scorer, 1)
    world.failing("cart", NOW + 30, 4)
    world.now += 60 * 60
    world.run(world.scorer(), 6, every_s=10)
    assert world.found()["cart"].finding.first in (time_of(NOW + 30), time_of(NOW + 31))


def test_kinds_of_lines_that_a_full_disk_did_not_take_are_kept_afterwards(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.failing("cart", NOW, 2)
    scorer, save = world.scorer(), ScorerState.save_templates

    def full(state: ScorerState, table: pl.DataFrame) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ScorerState, "save_templates", full)
    with pytest.raises(OSError, match="No space"):
        world.run(scorer, 3)
    monkeypatch.setattr(ScorerState, "save_templates", save)
    world.run(scorer, 2)
    again = world.scorer()
    world.run(again, 1)
    texts = again._serving.watch.templates.texts("cart").values()  # pyright: ignore[reportPrivateUsage]
    assert any("refused by peer" in text for text in texts)


def test_hours_that_were_missed_wait_once_until_their_lines_stand_still(world: World) -> None:
    world.run(world.scorer(), 1)
    world.now += 4 * 60 * 60
    began, scorer = world.now, world.scorer()
    while scorer.status.minute < NOW + 4 * 60 - 2:
        if not scorer.step(world.now):
            world.now += 1
        assert world.now - began < 35


def test_a_loki_that_cannot_count_hours_at_once_is_asked_for_less(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.run(world.scorer(), 1)
    world.now += 60 * 60
    began, scorer, counts = world.now, world.scorer(), world.loki.counts

    def few(first: int, end: int) -> Mapping[tuple[str, int], int]:
        if end - first > 20:
            raise ReadTrouble("the query took too long")
        return counts(first, end)

    monkeypatch.setattr(world.loki, "counts", few)
    while scorer.status.minute < NOW + 60 - 2:
        try:
            if not scorer.step(world.now):
                world.now += 1
        except ReadTrouble:
            world.now += 5
        assert world.now - began < 600


def test_a_service_with_too_many_findings_in_earlier_weeks_is_asked_for_more(world: World) -> None:
    world.loki.silent |= {("web", minute) for minute in range(NOW + 2, NOW + 5)}
    strict = world.twin()
    week = 7 * DAY
    strict.ledger.earlier = [("web", time_of(NOW // week * week - 60 * n)) for n in range(1, 200)]
    world.run(world.scorer(), 8)
    scorer = strict.scorer()
    strict.run(scorer, 8)
    found = world.found()["web"].finding
    assert scorer.status.raised == 1
    assert "web" not in strict.found() or strict.found()["web"].finding.weight >= found.weight
    assert scorer._serving.watch.unusual("web", found.weight, {"web": 9.0}) is False  # pyright: ignore[reportPrivateUsage]
