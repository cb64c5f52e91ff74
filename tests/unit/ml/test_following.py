"""Which findings go on, begin, belong together and wake somebody."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from ml.calibration import MERGE_MINUTES
from ml.detectors import LONGEST_EPISODE
from ml.following import Going, Unusual, follow, forgotten
from ml.incidents import CROWD, NEAR_MINUTES, Begun, announced, incident_of
from ml.rolling_back import at_least, too_noisy

minutes = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 200)), unique=True, max_size=60)


def told(pairs: list[tuple[str, int]]) -> dict[str, Going]:
    """Minute after minute, as a scorer tells them; each minute twice, as after a kill."""
    going: dict[str, Going] = {}
    for minute in range(201):
        unusual = [Unusual(service, at, 3.0 + at % 7) for service, at in pairs if at == minute]
        for _ in range(2):
            done = follow([g for g in going.values() if minute - g.last <= MERGE_MINUTES], unusual, {})
            going |= {one.key: one for one in done.extends}
            for one in done.opens:
                key = f"{one.service}{one.minute}"
                assert key not in going
                going[key] = Going(key, one.service, one.minute, one.minute, one.minute, one.weight)
    return going


@given(minutes)
def test_every_unusual_minute_is_in_one_finding_and_findings_are_apart(pairs: list[tuple[str, int]]) -> None:
    going = told(pairs)
    for service, at in pairs:
        assert sum(g.service == service and g.first <= at <= g.last for g in going.values()) == 1
    for service in "ab":
        spans = sorted((g.first, g.last) for g in going.values() if g.service == service)
        assert all(b[0] - a[1] > MERGE_MINUTES for a, b in pairwise(spans))
        assert {g.first for g in going.values()} <= {at for _, at in pairs}


def test_what_never_ends_is_one_finding_and_is_then_the_new_normal() -> None:
    going = Going("k", "gone", 0, 0, 0, 5.0)
    worn: dict[str, int] = {}
    for minute in range(1, LONGEST_EPISODE + 3000):
        alive = [going] if minute - going.last <= MERGE_MINUTES else []
        done = follow(alive, [Unusual("gone", minute, 4.0)], worn)
        assert not done.opens
        going, worn = next(iter(done.extends), going), forgotten(done.ran_out, minute)
    assert going.last == LONGEST_EPISODE
    quiet = forgotten(worn, LONGEST_EPISODE + 3000 + MERGE_MINUTES)
    assert follow([], [Unusual("gone", LONGEST_EPISODE + 3050, 4.0)], quiet).opens


begun = st.builds(
    lambda n, s, f, t: Begun(f"k{n}", s, f, frozenset(t)),
    st.integers(0, 10**6),
    st.sampled_from("abcdefgh"),
    st.integers(0, 30),
    st.sets(st.sampled_from("xyz"), max_size=2),
)


@given(st.lists(begun, max_size=12, unique_by=lambda one: one.key), st.sets(st.sampled_from("abcd")))
def test_an_incident_has_the_key_of_a_finding_and_a_reason_for_each_other(
    found: list[Begun], deployed: set[str]
) -> None:
    there: list[Begun] = []
    for new in sorted(found, key=lambda one: one.first):
        incident = incident_of(new, there, deployed)
        near = [one for one in there if abs(one.first - new.first) <= NEAR_MINUTES]
        if incident != new.key:
            joined = [one for one in near if one.incident == incident]
            crowd = len({one.service for one in near} | {new.service}) >= CROWD
            both = {new.service} <= deployed and any(one.service in deployed for one in joined)
            assert joined and (crowd or both or any(one.templates & new.templates for one in joined))
        else:
            assert not any(one.templates & new.templates for one in near)
        there.append(Begun(new.key, new.service, new.first, new.templates, incident))
    assert {one.incident for one in there} <= {one.key for one in there}


@given(st.integers(0, 50), st.integers(1, 30), st.integers(0, 50))
def test_the_cap_is_kept(sent: int, cap: int, begins: int) -> None:
    now = announced(sent, cap, begins)
    assert 0 <= now <= begins and (now == 0 or sent + now <= cap)


def test_chance_takes_no_model_back() -> None:
    assert not too_noisy(4, 1, 0.5)
    assert too_noisy(5, 10, 0.5)
    # Three times the budget of 500 services is 31 an hour: 40 of them may be chance, 60 are not.
    assert not too_noisy(40, 500, 0.5) and too_noisy(60, 500, 0.5)
    assert abs(at_least(3, 2.0) - 0.3233) < 1e-4
