"""Every line has one template, the same whichever way lines come, and no service takes more than its share."""

from __future__ import annotations

import time
import tracemalloc

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.grouping import grouping
from ml.service_templates import Bounds, id_of
from ml.templates import OVERFLOW, Mined, TemplateMiner, Tuning
from tests.unit.ml.log_kinds import SYSTEMS, cut_at, lines_of


def mine(lines: list[str], miner: TemplateMiner | None = None) -> Mined:
    return (miner or TemplateMiner()).mine(pl.Series(lines, dtype=pl.String), "web")


def texts(mined: Mined) -> list[str]:
    return [template.text for _, template in mined.templates]


def grouped(lines: list[str]) -> list[list[str]]:
    """Lines by template, in order."""
    mined = mine(lines)
    groups: dict[int, list[str]] = {}
    for line, at in zip(lines, mined.index.tolist(), strict=True):
        groups.setdefault(at, []).append(line)
    return list(groups.values())


# What is one kind and what is not.


@pytest.mark.parametrize("system", SYSTEMS)
def test_lines_are_grouped_as_a_person_would(system: str) -> None:
    lines = lines_of(system, 3_000)
    accuracy, groups = grouping(mine([line for line, _ in lines]).index.tolist(), [kind for _, kind in lines])
    assert (accuracy, groups) >= (0.95, 0.85), (accuracy, groups)


def test_a_word_that_varies_often_is_a_variable_and_one_of_two_is_not() -> None:
    names = ["ann", "bob", "carl", "dora", "emil", "fay", "gus", "hana", "ivo", "jan"]
    lines = [f"session {what} for user {name}" for name in names for what in ("opened", "closed")]
    assert sorted(texts(mine(lines))) == ["session closed for user <*>", "session opened for user <*>"]


def test_names_of_states_stay_apart() -> None:
    lines = [f"task {n} moved from {a} to {b}" for n in range(9) for a, b in (("NEW", "RUNNING"), ("RUNNING", "DONE"))]
    assert len(grouped(lines)) == 2


@pytest.mark.parametrize(
    "lines",
    [
        ["stored 512 B of data", "stored 1.5 KB of data", "stored 12 MB of data"],
        ["took 5ms", "took 1.2s", "took 3 seconds"],
        ["ids [a, b]", "ids [a, b, c, d]"],
        ["sizes 1 2 3", "sizes 4 5 6 7 8"],
        ["started at Fri Jul  1 07:57:30 2005", "started at Sun Nov 12 10:00:01 2026"],
        ["peer (host-1.example.net) gone", "peer () gone"],
        ["open /var/log/app/x failed", "open /usr/share/other failed"],
        ['table "orders" is full', 'table "carts" is full'],
        ["ready=true mode=fast", "ready=false mode=slow"],
        ["sent 1 kB (1,024 bytes)", "sent 2 kB (2,048 bytes)"],
    ],
    ids=lambda lines: lines[0],
)
def test_what_is_surely_a_value_is_one_at_once(lines: list[str]) -> None:
    assert len(grouped(lines)) == 1, texts(mine(lines))


def test_structured_lines_are_told_apart_by_message_and_keys() -> None:
    lines = [
        '{"level":"info","msg":"charge ok","user":"ann","n":1}',
        '{"n":2,"user":"bob","level":"error","msg":"charge ok"}',
        '{"level":"info","msg":"charge ok","n":1}',
        '{"level":"info","msg":"charge refused","user":"ann","n":1}',
        'level=info msg="charge ok" user=ann n=1',
        'n=1 user="bob b" level=info msg="charge ok"',
    ]
    assert [len(group) for group in grouped(lines)] == [4, 1, 1]
    assert "charge ok {level,msg,n,user}" in texts(mine(lines))


def test_a_service_can_have_masks_and_a_threshold_of_its_own() -> None:
    lines = pl.Series(["job alpha-run ended", "job beta-run ended"])
    plain = TemplateMiner().mine(lines, "batch")
    tuned = TemplateMiner(tuning={"batch": Tuning(masks=("[a-z]+-run",))}).mine(lines, "batch")
    assert (len(plain.templates), texts(tuned)) == (2, ["job <V> ended"])
    eager = TemplateMiner(tuning={"batch": Tuning(evidence=1)}).mine(lines, "batch")
    assert texts(eager) == ["job <*> ended"]


@pytest.mark.parametrize(
    "line",
    [
        "picked COLOUR for tenant-blue",
        '{"level":"info","msg":"picked COLOUR for tenant-blue"}',
        '{"msg":"picked COLOUR for tenant-blue","n":12,"COLOUR":1}',
        'level=info msg="picked COLOUR for tenant-blue" n=12',
        'n=12 was "odd" and picked COLOUR for tenant-blue',
        '{"cut":"picked COLOUR for tenant-blue',
    ],
)
def test_masks_of_its_own_hold_in_every_form_of_line(line: str) -> None:
    tuning = {"web": Tuning(masks=("[A-Z]{2}[0-9]{2} (red|blue|green)", "tenant-[a-z]+", "[0-9]{2,}"))}
    lines = pl.Series([line.replace("COLOUR", f"AB{n} {c}", 1) for n in (12, 34) for c in ("red", "blue", "green")])
    mined = TemplateMiner(tuning=tuning).mine(lines, "web")
    (text,) = texts(mined)
    assert "picked <V> for <V>" in text and mined.lines.sum() == len(lines)
    both = TemplateMiner(tuning=tuning).mine(pl.concat([lines, lines]), pl.Series(["web"] * 6 + ["db"] * 6))
    assert both.ids()[:6] == mined.ids() and both.ids()[6:] == TemplateMiner().mine(lines, "db").ids()


def test_a_mask_of_the_whole_sentence_holds_inside_of_a_structured_line() -> None:
    tuning = {"web": Tuning(masks=('^job "[a-z]+ [0-9]+" .*$',))}
    lines = [f'{{"msg":"job \\"{name} 7\\" ran","n":{n}}}' for n, name in enumerate(("ann", "bob", "carl"))]
    assert texts(mine(lines, TemplateMiner(tuning=tuning))) == ["<V> {msg,n}"]


@pytest.mark.parametrize("system", SYSTEMS)
def test_masks_of_its_own_that_match_nothing_change_nothing(system: str) -> None:
    lines = [line for line, _ in lines_of(system, 300)]
    tuned = TemplateMiner(tuning={"web": Tuning(masks=("never [0-9] seen",))})
    assert mine(lines, tuned).ids() == mine(lines).ids()


# The same lines, the same templates.

ANY_SYSTEM = st.sampled_from(sorted(SYSTEMS))


@settings(max_examples=30, deadline=None)
@given(system=ANY_SYSTEM, places=st.lists(st.integers(0, 10**6), max_size=12), seed=st.integers(1, 5))
def test_it_does_not_matter_how_lines_are_cut_into_batches(system: str, places: list[int], seed: int) -> None:
    lines = [line for line, _ in lines_of(system, 400, seed)]
    whole, pieces = TemplateMiner(), TemplateMiner()
    at_once = [whole.service("web").current(i) for i in mine(lines, whole).ids()]
    bit_by_bit = [one for piece in cut_at(lines, places) for one in mine(piece, pieces).ids()]
    assert [pieces.service("web").current(i) for i in bit_by_bit] == at_once


def test_services_in_one_call_are_as_each_in_its_own() -> None:
    systems = ["sshd", "cluster", "json", "application"]
    lines = {name: [line for line, _ in lines_of(name, 200)] for name in systems}
    rows = [(name, lines[name][number]) for number in range(200) for name in systems]
    together = TemplateMiner().mine(pl.Series([line for _, line in rows]), pl.Series([name for name, _ in rows]))
    for name in systems:
        alone = TemplateMiner().mine(pl.Series(lines[name]), name)
        assert [i for i, (service, _) in zip(together.ids(), rows, strict=True) if service == name] == alone.ids()


def test_an_id_is_of_the_text_that_founded_it_and_stays() -> None:
    miner = TemplateMiner()
    (first,) = mine(["user ann logged in"], miner).templates
    assert first[1].id == id_of("user ann logged in")
    for n in range(30):
        mine([f"user {'abcdefghij'[n // 10]}{'klmnopqrst'[n % 10]} logged in"], miner)
    (now,) = mine(["user zoe logged in"], miner).templates
    assert (now[1].id, now[1].text) == (first[1].id, "user <*> logged in")
    others = miner.service("web").merged_into
    assert others and {miner.service("web").current(other) for other in others} == {first[1].id}


# Anything may be a line.


@settings(max_examples=60, deadline=None)
@given(lines=st.lists(st.text(max_size=60) | st.sampled_from([line for line, _ in lines_of("json", 40)]), max_size=30))
def test_every_line_gets_exactly_one_template_or_overflow(lines: list[str]) -> None:
    mined = TemplateMiner(Bounds(templates=5, learned_per_minute=8)).mine(pl.Series(lines, dtype=pl.String), "web")
    assert len(mined.ids()) == len(mined.index) == mined.tally.lines == len(lines)
    assert mined.lines.sum() + mined.tally.overflow == len(lines)
    assert mined.tally.overflow == mined.ids().count(OVERFLOW)
    assert all(number > 0 for number in mined.lines.tolist())


def test_odd_lines() -> None:
    long = "x " * 50_000
    lines = [
        "",
        " ",
        "\x00\x01",
        "\x1b[31mred 5\x1b[0m",
        "red 6",
        "<script>alert(1)</script>",
        "<*> <V>",
        long,
        "\ufffd",
        "{",
        '{"a"',
    ]
    mined = mine(lines)
    assert mined.tally.lines == len(lines) and mined.tally.cut == 1 and mined.tally.overflow == 0
    ids = mined.ids()
    assert ids[0] == ids[1] == ids[2]
    assert ids[3] == ids[4]
    assert not any(ord(char) < 32 for text in texts(mined) for char in text)


def test_nothing_one_line_and_nulls() -> None:
    assert mine([]).tally.lines == 0
    assert texts(mine(["one"])) == ["one"]
    nulls = TemplateMiner().mine(pl.Series([None, "a"], dtype=pl.String), pl.Series(["s", None], dtype=pl.String))
    assert [service for service, _ in nulls.templates] == ["s", ""]


# Bounds.


def flood(begin: int, lines: int) -> pl.Series:
    """Lines of four words, all different, none of which looks like a value."""
    letters = pl.int_range(begin, begin + lines, eager=True).cast(pl.String)
    for digit, letter in zip("0123456789", "qwrtzpsdfg", strict=True):
        letters = letters.str.replace_all(digit, letter, literal=True)
    return "w" + letters + " x" + letters + " y" + letters + " z" + letters


def test_a_flood_of_different_lines_fills_its_own_limits_and_no_more() -> None:
    bounds = Bounds(templates=300, cached=1_000, learned_per_minute=200)
    miner = TemplateMiner(bounds)
    tallies = [miner.mine(flood(batch * 20_000, 20_000), "loud").tally for batch in range(10)]
    assert all(tally.lines == 20_000 and tally.learned <= 200 for tally in tallies)
    loud = miner.service("loud")
    assert len(loud.templates) <= 300 and len(loud.cache) <= 1_000
    assert tallies[0].overflow > 0
    quiet = miner.mine(pl.Series(["all is well"] * 3), "quiet")
    assert quiet.tally.overflow == 0


def test_few_lines_of_another_kind_are_learned_in_the_middle_of_a_flood() -> None:
    miner = TemplateMiner(Bounds(learned_per_minute=100))
    lines = pl.concat([flood(0, 5_000), pl.Series(["disk sdb of array two failed at last"])])
    assert miner.mine(lines, "loud").ids()[-1] != OVERFLOW


def ever_new_keys(begin: int, lines: int) -> pl.Series:
    """Lines of JSON, each with a key that no other has: as many kinds as lines."""
    return '{"' + flood(begin, lines).str.replace_all(" ", "_") + '":"x","msg":"done"}'


def test_a_flood_of_lines_of_ever_new_keys_leaves_nothing_behind_but_what_was_learned() -> None:
    miner = TemplateMiner()
    miner.mine(ever_new_keys(0, 5_000), "loud")
    lines = ever_new_keys(200_000, 20_000)
    tracemalloc.start()
    tally = miner.mine(lines, "loud").tally
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert tally.lines == 20_000 and tally.overflow >= 18_000
    assert kept < 8_000_000


def test_the_templates_that_were_not_seen_for_longest_are_forgotten_first() -> None:
    miner = TemplateMiner(Bounds(templates=4))
    for text in ("alpha", "beta", "gamma", "delta", "alpha", "epsilon"):
        mine([text], miner)
    assert {template.text for template in miner.service("web").templates.values()} == {
        "alpha",
        "gamma",
        "delta",
        "epsilon",
    }
    assert mine(["beta"], miner).ids() == [id_of("beta")]


def test_what_has_lines_is_not_forgotten_for_what_comes_with_it() -> None:
    miner = TemplateMiner(Bounds(templates=4), tuning={"web": Tuning(evidence=1)})
    before = mine(["user ann logged in", "user bob logged in", "alpha", "beta", "gamma"], miner).ids()[1:]
    assert OVERFLOW not in before
    batch = mine(["user jan logged in", "alpha", "beta", "gamma", "delta", "epsilon two"], miner).ids()
    assert batch == [*before, OVERFLOW, OVERFLOW]


def test_more_kinds_in_a_batch_than_there_may_be_are_counted_in_little_time() -> None:
    miner = TemplateMiner()
    began = time.process_time()
    tally = miner.mine(ever_new_keys(0, 12_000), "loud", minutes=60).tally
    # Ten times what it takes on a slow machine.
    assert time.process_time() - began < 8
    assert tally.overflow == 10_000 and len(miner.service("loud").templates) == 2_000


def test_a_template_whose_kind_was_forgotten_to_make_room_for_it_is_known() -> None:
    miner = TemplateMiner(Bounds(templates=2))
    for text in ("one alpha", "three of beta", "one delta"):
        mine([text], miner)
    assert [template.text for template in miner.service("web").templates.values()] == ["three of beta", "one delta"]


def test_what_lasts_is_never_forgotten_and_there_is_room_for_others() -> None:
    miner = TemplateMiner(Bounds(templates=4))
    ids = mine(["alpha", "beta", "gamma", "delta"], miner).ids()
    miner.service("web").lasting = frozenset(ids)
    for number in range(50):
        assert mine([f"x{'abcdefghij'[number // 10]}{'klmnopqrst'[number % 10]}"], miner).ids() != [OVERFLOW]
    known = {template.id for template in miner.service("web").templates.values()}
    assert known >= set(ids) and len(known) <= 6


def test_many_lines_take_little_time() -> None:
    # Ten times what it takes on a slow machine; the benchmark has the figure.
    lines = pl.Series([line for line, _ in lines_of("cluster", 2_000)] * 50)
    miner = TemplateMiner()
    miner.mine(lines[:2_000], "web")
    began = time.process_time()
    miner.mine(lines, "web")
    assert time.process_time() - began < 5
