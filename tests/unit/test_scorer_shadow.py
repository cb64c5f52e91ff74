"""A candidate beside the model that serves: it sees what that one sees, is remembered, and never gets in its way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ml.model_manifest import Learned
from ml.model_store import ModelStore, ServiceFacts
from ml.shadowing import OVERTAKEN, SERVED, Shadow
from onecollector.scorer import shadow as shadow_module
from onecollector.scorer.tenant_status import Options
from tests.unit.scorer_world import DAY, NOW, SERVICES, World, learned, time_of

WANTED = 30


@pytest.fixture
def world(begun: Path, tmp_path: Path) -> World:
    """A tenant whose scorer has begun, and a candidate."""
    made = World.begun(begun, tmp_path, Options(findings_per_hour=100, shadow_minutes=WANTED))
    candidate(made)
    return made


def candidate(world: World, later: int = 1, passed: bool = True) -> str:
    """Another model that was trained so many minutes later; answers its id."""
    arrays, names, templates = learned()
    store = replace(world.models, clock=lambda: time_of(NOW + later))
    facts = [ServiceFacts(name, 3.0, 20_000, 5, 0.0, False) for name in SERVICES]
    span = Learned("2026-06-20", f"2026-07-{10 + later}", 3 * DAY, 0.0, {}, {})
    gates = [] if passed else [{"name": "data", "found": "", "passed": False, "blocking": True}]
    made = store.write([arrays], [names], facts, {"gates": gates, "passed": passed}, span, "", templates)
    store.channels.point_candidate(made.model_id, "trained")
    return made.model_id


def shadow_of(models: ModelStore, model_id: str) -> Shadow:
    found = models.shadows.read(model_id)
    assert found is not None
    return found


def test_it_finds_what_the_serving_model_finds_and_tells_nobody(world: World) -> None:
    world.failing("cart", NOW + 10, 5)
    calm = world.twin()
    calm.run(calm.scorer(), WANTED + 8)
    scorer, waiting = world.scorer(), world.models.channels.current("candidate")
    world.run(scorer, 15)
    assert scorer.status.shadow.startswith(f"{waiting} is shadowed, 0.2 of 0.5 hours")
    world.run(scorer, WANTED - 7)
    done = shadow_of(world.models, waiting)
    assert done.whole(WANTED) and done.minutes == WANTED and not done.ended and scorer.status.shadow == ""
    assert (done.own, done.alone) == (done.others, ()) and [one.service for one in done.own] == ["cart"]
    assert done.service_minutes == WANTED * len(SERVICES)
    assert {s: one.finding for s, one in world.found().items()} == {s: one.finding for s, one in calm.found().items()}
    assert all(n == 1 for minute, n in world.loki.reads.items() if minute > NOW), "lines are read once for both"


def test_killed_it_goes_on_where_it_was_kept(world: World) -> None:
    waiting = world.models.channels.current("candidate")
    for _ in range(6):
        world.run(world.scorer(), 13)
    done = shadow_of(world.models, waiting)
    assert done.whole(WANTED) and done.began < NOW + 5 and done.through > NOW + WANTED


def test_lines_that_come_late_reach_it_too(world: World) -> None:
    scorer = world.scorer()
    world.run(scorer, 8)
    world.failing("cart", NOW + 6, 2)
    world.run(scorer, 5)
    serving, watched = scorer._serving.watch, scorer._shadow._watch  # pyright: ignore[reportPrivateUsage]
    assert watched is not None
    assert [(one.minute, dict(one.tally.lines)) for one in watched.window.minutes] == [
        (one.minute, dict(one.tally.lines)) for one in serving.window.minutes
    ]
    assert watched.window.frames["cart"].counts.tolist() == serving.window.frames["cart"].counts.tolist()


def test_what_goes_wrong_with_it_is_its_own(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> object:
        raise ValueError("not today")

    waiting = world.models.channels.current("candidate")
    monkeypatch.setattr(shadow_module, "unusual_now", broken)
    world.failing("cart", NOW + 10, 5)
    scorer = world.scorer()
    world.run(scorer, 16)
    done = shadow_of(world.models, waiting)
    assert done.failures == 4 and done.ended == "failed: 4 minutes could not be scored", "it is given up"
    assert set(world.found()) == {"cart"} and not scorer.status.problems


def test_a_damaged_candidate_is_refused_and_the_next_one_has_its_turn(world: World) -> None:
    bad = world.models.channels.current("candidate")
    (path,) = (world.folder / "models").rglob(f"{bad}/shard-0000.npz")
    path.write_bytes(path.read_bytes()[:-9])
    scorer = world.scorer()
    world.run(scorer, 8)
    assert "expected" in scorer.status.problems["candidate"]
    assert shadow_of(world.models, bad).ended.startswith("refused: ")
    good = candidate(world, later=2)
    world.run(scorer, 6)
    assert good in scorer.status.shadow and not scorer.status.problems


def test_a_newer_candidate_waits_for_its_turn_and_one_that_failed_a_gate_has_none(world: World) -> None:
    first = world.models.channels.current("candidate")
    scorer = world.scorer()
    world.run(scorer, 8)
    second = candidate(world, later=2)
    world.run(scorer, WANTED)
    assert shadow_of(world.models, first).whole(WANTED) and world.models.shadows.read(second) is None
    world.models.shadows.end(first, "failed: too many")
    world.run(scorer, 17)
    assert shadow_of(world.models, second).minutes > 5
    world.models.shadows.end(second, "failed: too many")
    third = candidate(world, later=3, passed=False)
    world.run(world.scorer(), 10)
    assert world.models.shadows.read(third) is None


def test_when_another_model_serves_it_begins_again_beside_that_one(world: World) -> None:
    waiting = world.models.channels.current("candidate")
    scorer = world.scorer()
    world.run(scorer, 16)
    assert shadow_of(world.models, waiting).minutes > 5
    # Trained earlier, as the one that somebody goes back to.
    other = candidate(world, later=-5)
    world.models.channels.promote(other, "by hand")
    world.run(scorer, WANTED + 5)
    done = shadow_of(world.models, waiting)
    assert done.beside == other and done.whole(WANTED) and done.began > NOW + 14


def test_one_that_is_older_than_what_serves_has_no_turn(world: World) -> None:
    waiting = world.models.channels.current("candidate")
    scorer = world.scorer()
    world.run(scorer, 16)
    newer = candidate(world, later=2)
    world.models.channels.promote(newer, "by hand")
    world.run(scorer, 10)
    assert shadow_of(world.models, waiting).ended == OVERTAKEN and scorer.status.shadow == ""
    world.models.channels.point_candidate(waiting, "again")
    world.run(scorer, 10)
    assert scorer.status.shadow == ""


def test_when_it_serves_itself_its_shadow_ends(world: World) -> None:
    waiting = world.models.channels.current("candidate")
    scorer = world.scorer()
    world.run(scorer, 16)
    world.models.channels.promote(waiting, "by hand")
    world.run(scorer, 7)
    assert shadow_of(world.models, waiting).ended == SERVED and scorer.status.shadow == ""
