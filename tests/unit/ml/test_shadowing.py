"""A candidate's shadow: alarms are counted as findings are, it survives being kept, and its gate is fair to both models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml.following import Going, Unusual, follow
from ml.model_manifest import ModelRefused
from ml.shadow_gate import shadow_gate
from ml.shadow_store import ShadowStore
from ml.shadowing import SERVED, Alarm, Shadow
from onecollector_resources.findings.records import Judged
from onecollector_resources.storage.file_store import FileStore
from tests.unit.damage import flip_a_bit

BEGAN, DAY = 29_700_000, 1440
SERVING, CANDIDATE = "20261101T000000-aaaaaaaaaaaa", "20261102T000000-bbbbbbbbbbbb"
NEW = Shadow(CANDIDATE, SERVING, BEGAN)
WHOLE = replace(NEW, through=BEGAN + DAY - 1, minutes=DAY, service_minutes=20 * DAY)


@given(st.lists(st.sets(st.sampled_from(["web", "cart"])), max_size=60))
def test_alarms_are_counted_as_the_ledger_counts_findings(unusual: list[set[str]]) -> None:
    shadow, going = NEW, dict[str, Going]()
    for offset, services in enumerate(unusual):
        minute = BEGAN + offset
        shadow = shadow.after(minute, 2, services, set())
        followed = follow(list(going.values()), [Unusual(service, minute, 1.0) for service in services], {})
        going |= {one.key: one for one in followed.extends}
        going |= {
            f"{one.service} {one.minute}": Going(
                f"{one.service} {one.minute}", one.service, one.minute, one.minute, one.minute, 1.0
            )
            for one in followed.opens
        }
    assert sorted((a.service, a.first, a.last) for a in shadow.own) == sorted(
        (g.service, g.first, g.last) for g in going.values()
    )
    assert shadow.minutes == len(unusual) and shadow.others == ()


def test_a_minute_that_is_told_twice_counts_once() -> None:
    once = NEW.after(BEGAN, 4, {"web"}, {"web"}).failed(BEGAN + 1)
    assert once.after(BEGAN, 4, {"cart"}, set()).failed(BEGAN + 1) == once
    assert (once.minutes, once.service_minutes, once.failures, once.alone) == (2, 4, 1, ())


def test_it_is_kept_whole_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    shadows = ShadowStore(FileStore(tmp_path, create=True), "team/50% zürich")
    kept = NEW.after(BEGAN, 4, {"web"}, {"cart"})
    shadows.save(kept)
    assert shadows.read(CANDIDATE) == kept and shadows.open_ones() == [kept] and shadows.read(SERVING) is None
    shadows.end(CANDIDATE, SERVED)
    shadows.end(CANDIDATE, "something else")
    assert shadows.read(CANDIDATE) == replace(kept, ended=SERVED) and shadows.open_ones() == []
    (path,) = tmp_path.rglob(f"{CANDIDATE}.json")
    flip_a_bit(path)
    with pytest.raises(ModelRefused, match="checksum"):
        shadows.read(CANDIDATE)
    assert shadows.open_ones() == []


def alarms(number: int, service: str = "web") -> tuple[Alarm, ...]:
    return tuple(Alarm(service, BEGAN + 30 * n, BEGAN + 30 * n + 3) for n in range(number))


def test_it_passes_where_it_finds_what_the_other_finds() -> None:
    storm = replace(WHOLE, own=alarms(45), others=alarms(45))
    gate = shadow_gate(storm, DAY, 0.5, [])
    assert gate.passed and "45 findings in 20.0 service-days, 0 of them its own" in gate.found
    assert shadow_gate(WHOLE, DAY, 0.5, []).passed


@pytest.mark.parametrize(
    ("shadow", "told"),
    [
        (replace(WHOLE, minutes=DAY - 1), "24.0 of 24 hours"),
        (replace(WHOLE, own=alarms(45)), "2.25 a day are its own, budget 0.5"),
        (replace(WHOLE, failures=15), "15 minutes could not be scored"),
        (replace(WHOLE, service_minutes=0), "0.0 service-days"),
    ],
)
def test_it_does_not_pass_with_too_many_of_its_own_or_unscored_or_unfinished(shadow: Shadow, told: str) -> None:
    gate = shadow_gate(shadow, DAY, 0.5, [])
    assert not gate.passed and told in gate.found and gate.fix


def test_too_few_days_for_a_verdict_are_no_reason_against_it() -> None:
    few = replace(WHOLE, service_minutes=DAY, own=alarms(3))
    assert shadow_gate(few, DAY, 0.5, []).passed


def test_what_people_confirmed_of_that_day_it_has_to_have_found() -> None:
    shadow = replace(WHOLE, own=alarms(1))
    found = Judged("web", BEGAN + 2, BEGAN + 9, "confirmed")
    missed = Judged("cart", BEGAN + 2, BEGAN + 9, "confirmed")
    before = Judged("cart", BEGAN - 900, BEGAN - 890, "confirmed")
    dismissed = Judged("cart", BEGAN + 2, BEGAN + 9, "dismissed")
    assert "1 of 1 confirmed are found" in shadow_gate(shadow, DAY, 0.5, [found, before, dismissed]).found
    gate = shadow_gate(shadow, DAY, 0.5, [found, missed])
    assert not gate.passed and "1 of 2 confirmed are found; missed in cart" in gate.found
