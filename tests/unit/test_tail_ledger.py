"""A live tail shows each line once, whoever brings it when, and forgets what it no longer needs."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from onecollector_resources.loki.answers import Entry
from onecollector_resources.loki.tail_ledger import SECOND_NS, TailLedger, TailPace

PACE = TailPace(settle_s=3, again_s=20)


def entry(number: int, at_s: float) -> Entry:
    return Entry(int(at_s * SECOND_NS), f"line {number}", {"a": "b"}, {})


@given(
    st.lists(
        st.tuples(
            st.floats(0, 60),  # when the line is written
            st.floats(0, 15),  # how long it takes into Loki
            st.one_of(st.none(), st.floats(0, 2)),  # how long the socket takes to bring it; None: it loses it
            st.booleans(),  # whether the socket brings it twice
        ),
        max_size=40,
    ),
    st.lists(st.floats(0, 90), max_size=3),
)
@settings(max_examples=150, deadline=None)
def test_every_line_is_shown_once_whatever_the_socket_loses_and_while_loki_is_away(written: list, away: list) -> None:
    ledger, shown = TailLedger(0, PACE), []
    arrivals = [(at + delay, entry(n, at)) for n, (at, delay, _, _) in enumerate(written)]
    brought = [
        (at + delay + wait + (0.5 if again else 0), entry(n, at))
        for n, (at, delay, wait, twice) in enumerate(written)
        if wait is not None
        for again in ((False, True) if twice else (False,))
    ]
    for tick in range(1_300):
        now = tick / 10
        shown += [one for at, one in brought if now - 0.1 < at <= now and ledger.fresh(one)]
        if any(start <= now < start + 8 for start in away):
            continue
        while (look := ledger.due(int(now * SECOND_NS))) is not None:
            inside = [one for at, one in arrivals if at <= now and look.start_ns <= one.time_ns < look.end_ns]
            shown += [one for one in inside if ledger.fresh(one)]
            ledger.done(look, int(now * SECOND_NS))
    assert sorted(one.line for one in shown) == sorted(f"line {n}" for n in range(len(written)))


def test_memory_is_that_of_the_open_stretches() -> None:
    ledger, most = TailLedger(0, PACE), 0
    for second in range(600):
        for number in range(50):
            assert ledger.fresh(entry(number, second))
        while (look := ledger.due(second * SECOND_NS)) is not None:
            ledger.done(look, second * SECOND_NS)
        most = max(most, ledger.remembered)
    assert most <= 50 * (PACE.settle_s + PACE.again_s + 5)


def test_after_a_long_silence_the_past_is_asked_for_in_pieces_and_memory_stays_bounded() -> None:
    ledger, now, looks = TailLedger(0, PACE), 3_600 * SECOND_NS, []
    while (look := ledger.due(now)) is not None:
        looks.append(look)
        ledger.done(look, now)
        assert ledger.looked_ns - ledger.settled_ns <= 6 * PACE.stretch_s * SECOND_NS
    first = [look for look in looks if not look.last]
    assert [look.start_ns for look in first[1:]] == [look.end_ns for look in first[:-1]]
    assert first[-1].end_ns == now - PACE.settle_s * SECOND_NS
    assert max(look.end_ns - look.start_ns for look in looks) == PACE.stretch_s * SECOND_NS


def test_a_line_from_before_everything_is_shown_once() -> None:
    # A host whose clock is behind: no look will bring its lines.
    ledger = TailLedger(1_000 * SECOND_NS, PACE)
    assert ledger.fresh(entry(1, 5))
    assert not ledger.fresh(entry(1, 5))
