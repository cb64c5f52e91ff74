"""Cuts of time: no instant is in two parts or in none, and a part is only too large when it is one instant."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from onecollector_resources.loki.chunks.plan import Weight, cut

SPANS = st.tuples(st.integers(0, 200), st.integers(0, 60), st.sampled_from([0, 1, 10, 1_000]))
WEIGHTS = st.lists(SPANS.map(lambda s: Weight(s[0], s[0] + s[1], s[2])), max_size=12)


def inside(weights: list[Weight], start: int, end: int) -> float:
    return sum(
        w.bytes * max(0, min(end, w.last_ns + 1) - max(start, w.first_ns)) / (w.last_ns + 1 - w.first_ns)
        for w in weights
    )


@given(WEIGHTS, st.integers(0, 200), st.integers(0, 200), st.sampled_from([1, 25, 500]))
def test_parts_are_the_range_and_hold_what_fits(weights: list[Weight], start: int, end: int, target: int) -> None:
    parts = list(cut(weights, start, end, target))
    assert [first for first, _ in parts] == [start, *(last for _, last in parts[:-1])][: len(parts)]
    assert (parts[-1][1] if parts else start) == max(start, end)
    for first, last in parts:
        assert first < last
        held = inside(weights, first, last)
        assert held <= target * 1.001 or last - first == 1 or held - inside(weights, last - 1, last) <= target * 1.001
    # Not more parts than needed: two neighbours together are too much for one.
    for (first, middle), (_, last) in pairwise(parts):
        assert inside(weights, first, last) > target * 0.999 or inside(weights, middle, middle + 1) > target * 0.999


def test_even_weight_is_cut_evenly_at_scale() -> None:
    hour = 3600 * 10**9
    weights = [Weight(n * hour, (n + 2) * hour, 1_000_000) for n in range(24)]
    parts = list(cut(weights, 0, 24 * hour, 2_000_000))
    held = [inside(weights, *part) for part in parts]
    assert all(abs(size - 2_000_000) < 10 for size in held[:-1])
    assert len(parts) == 12
