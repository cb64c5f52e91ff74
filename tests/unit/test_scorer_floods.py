"""A service that writes ten million different lines in a minute: its lines are counted, and all others are looked at as ever."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from ml.minute_tally import MinuteCounter
from ml.service_templates import Bounds
from ml.signals import HISTORY
from ml.templates import TemplateMiner
from onecollector.scorer import counting, late_lines
from onecollector.scorer.reader import MINUTE_NS
from onecollector.scorer.tenant import TenantScorer
from onecollector.scorer.watch import Watch
from tests.unit.floods import FloodedLoki, distinct
from tests.unit.scorer_world import NOW, REFUSALS, SERVICES, World, models, written

FLOOD = 10_000_000


@pytest.fixture
def flooded(tmp_path: Path) -> World:
    """A tenant of which one service floods a minute, with caps as they are."""
    loki = FloodedLoki(service="mailer", minute=NOW + 3, flood=FLOOD)
    return World(tmp_path, loki=loki, now=NOW * 60.0)


def test_ten_million_lines_of_one_service_hide_no_finding_of_another(flooded: World) -> None:
    flooded.failing("cart", NOW + 3, 4)
    scorer = flooded.scorer()
    flooded.run(scorer, 5)
    loki = flooded.loki
    assert isinstance(loki, FloodedLoki)
    minute = NOW + 3
    assert scorer.status.minute == minute
    usual = sum(len(loki.held(service, minute)) for service in SERVICES)
    assert scorer.status.lines == usual + FLOOD
    assert FLOOD - counting.FLOODED_LINES <= scorer.status.overflow <= FLOOD
    assert loki.handed_out <= counting.FLOODED_LINES, "a flood was read"
    flooded.run(scorer, 5)
    assert scorer.status.minute == minute + 5 and scorer.status.overflow == 0
    assert "cart" in flooded.found() and set(flooded.found()) <= {"cart", "mailer"}


def test_a_minute_below_the_caps_is_read_whole_and_one_above_only_where_it_floods() -> None:
    lines = {"a": 1_500_000, "b": 300_000, "c": 200_000}
    assert sum(lines.values()) == counting.MOST_LINES and counting.flooding(lines) == []
    lines["d"] = 1
    assert counting.flooding(lines) == ["a"]
    # Many that are busy, none of them more than the share of a flood: nobody is cut.
    assert counting.flooding({str(n): 200_000 for n in range(20)}) == []
    assert counting.flooding({str(n): 300_000 for n in range(20)}) == sorted(map(str, range(20)))


@pytest.mark.parametrize("named", [5, 0])
def test_late_lines_of_a_flood_leave_its_count_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: int
) -> None:
    monkeypatch.setattr(counting, "MOST_LINES", 20_000)
    monkeypatch.setattr(counting, "FLOODED_LINES", 2_000)
    monkeypatch.setattr(late_lines, "NAMED", named)
    loki = FloodedLoki(service="mailer", minute=NOW + 1, flood=50_000, page=1_000)
    world = World(tmp_path, loki=loki, now=NOW * 60.0)
    scorer = world.scorer()
    while scorer.status.minute < NOW + 1:
        world.run(scorer, 1)
    window = scorer._serving.watch.window  # pyright: ignore[reportPrivateUsage]

    def lines() -> int:
        kept = window.at(NOW + 1)
        assert kept is not None
        return sum(kept.tally.lines.values())

    before = lines()
    loki.extra["mailer", NOW + 1] = written("mailer", NOW + 1)[:7]
    loki.extra["cart", NOW + 1] = written("cart", NOW + 1)[:3]
    world.run(scorer, 1)
    assert before > loki.flood and lines() == before + 10
    assert loki.handed_out <= 4 * counting.FLOODED_LINES


def test_what_is_learned_in_a_minute_is_bounded_however_its_lines_come() -> None:
    counter = MinuteCounter(TemplateMiner(), {"loud", "quiet"}, NOW)
    batches, rows = 6, 5_000
    for batch in range(batches):
        loud = pl.DataFrame({"line": distinct(batch, rows)}).with_columns(service=pl.lit("loud"))
        quiet = pl.DataFrame({"line": [text for _, _, text, _ in written("web", NOW)]})
        lines = pl.concat([loud, quiet.with_columns(service=pl.lit("quiet"))])
        counter.add(lines.with_columns(timestamp=pl.lit(NOW * MINUTE_NS), is_error=pl.lit(False)))
    tally = counter.done()
    assert tally.lines["loud"] == batches * rows and tally.table["lines"].sum() == sum(tally.lines.values())
    of_loud = tally.table.filter(service="loud")
    assert of_loud.height <= Bounds().learned_per_minute + 1
    assert tally.overflow >= batches * rows - Bounds().learned_per_minute
    assert "overflow" not in tally.table.filter(service="quiet")["template"].to_list()


def test_a_service_that_flooded_is_known_again_when_the_flood_is_over(tmp_path: Path) -> None:
    world = World(tmp_path, now=NOW * 60.0)
    world.models = models(tmp_path / "refusing", refusals=True)
    flood = range(NOW + 3, NOW + 5)
    for minute in range(NOW - HISTORY - 5, NOW + 40):
        world.loki.extra["mailer", minute] = written("mailer", minute, REFUSALS, error=True)
    for minute in flood:
        lines = distinct(minute, 2_500).to_list()
        world.loki.extra["mailer", minute] += [
            (minute * MINUTE_NS + n, "mailer", t, False) for n, t in enumerate(lines)
        ]
    scorer = world.scorer()
    world.run(scorer, 3)
    known = errors_of_mailer(scorer)
    assert known and known <= set(columns_of_mailer(scorer))
    world.run(scorer, 15)
    assert scorer.status.minute > flood.stop + 10 and errors_of_mailer(scorer) == known
    again = world.scorer()
    world.run(again, 5)
    assert errors_of_mailer(again) == known
    assert all("mailer" not in scored.unusual for scored in watch_of(again).score({}))
    # A kind of error that nobody ever saw is still one.
    world.failing("mailer", NOW + 25, 4)
    world.run(again, 8)
    assert world.found()["mailer"].finding.signal == "new_errors"


def watch_of(scorer: TenantScorer) -> Watch:
    return scorer._serving.watch  # pyright: ignore[reportPrivateUsage]


def errors_of_mailer(scorer: TenantScorer) -> set[str]:
    """Ids of the errors of the last minutes."""
    tables = [kept.tally.table for kept in watch_of(scorer).window.minutes[-3:]]
    return set(pl.concat(tables).filter(pl.col("errors") > 0, service="mailer")["template"].to_list())


def columns_of_mailer(scorer: TenantScorer) -> tuple[str, ...]:
    return watch_of(scorer).window.frames["mailer"].templates
