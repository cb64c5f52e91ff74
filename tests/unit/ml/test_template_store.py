"""What was learned is there the next day under the same ids; what is damaged is refused and told; two cannot both write."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from ml.service_templates import Template, id_of
from ml.template_days import COLUMNS, DayCounter, counts_frame, difference
from ml.template_query import query_matching
from ml.template_store import StoredTemplates, TemplateStore, TemplateStoreError, of_table, to_table
from ml.templates import OVERFLOW, TemplateMiner
from onecollector_resources.storage.file_store import FileStore
from onecollector_resources.storage.objects import PutConflict
from tests.unit.damage import flip_a_bit
from tests.unit.ml.log_kinds import SYSTEMS, lines_of

DAY = date(2026, 11, 3)
START_NS = 1_793_664_000 * 10**9
SECOND_NS = 10**9


@pytest.fixture
def kept(tmp_path: Path) -> TemplateStore:
    return TemplateStore(FileStore(tmp_path, create=True), "team/a")


def learned(seed: int = 1) -> TemplateMiner:
    miner = TemplateMiner()
    for system in SYSTEMS:
        miner.mine(pl.Series([line for line, _ in lines_of(system, 500, seed)]), system)
    return miner


def saved(kept: TemplateStore, miner: TemplateMiner) -> StoredTemplates:
    state = kept.load()
    state.take(miner)
    kept.save(state)
    return state


# The next day.


def test_a_miner_goes_on_where_another_stopped(kept: TemplateStore) -> None:
    miner = learned()
    saved(kept, miner)
    again = TemplateMiner()
    kept.load().fill(again)
    for system in SYSTEMS:
        lines = pl.Series([line for line, _ in lines_of(system, 500, seed=2)])
        assert again.mine(lines, system).ids() == miner.mine(lines, system).ids()


def test_what_is_known_comes_back_as_it_was(kept: TemplateStore) -> None:
    miner = learned()
    before = saved(kept, miner)
    after = kept.load()
    assert (after.services, after.merged_into) == (before.services, before.merged_into)
    assert any(after.merged_into.values())


def test_nothing_is_kept_at_first(kept: TemplateStore) -> None:
    assert kept.load() == StoredTemplates() and kept.days() == [] and kept.load_day(DAY) is None


def test_of_two_that_write_one_is_told(kept: TemplateStore) -> None:
    first, second = kept.load(), kept.load()
    first.take(learned())
    kept.save(first)
    with pytest.raises(PutConflict):
        kept.save(second)
    kept.save(first)


def test_only_the_newest_file_stays(kept: TemplateStore) -> None:
    saved(kept, learned(1))
    saved(kept, learned(2))
    assert len([info for info in kept.store.list(kept.prefix) if info.key.endswith(".parquet")]) == 1


def test_a_template_that_lives_again_is_itself(kept: TemplateStore) -> None:
    a, b = id_of("alpha one two"), id_of("beta one two")
    state = StoredTemplates({"web": []}, {"web": {a: b}, "db": {a: b}})
    miner = TemplateMiner()
    state.fill(miner)
    miner.mine(pl.Series(["alpha one two"]), "web")
    state.take(miner)
    assert state.current("web", a) == a and state.current("db", a) == b
    kept.save(state)
    again = kept.load()
    assert again.current("web", a) == a and again.merged_into == {"db": {a: b}}


def test_what_an_earlier_version_kept_of_one_that_lives_again_leads_to_it() -> None:
    a, b = id_of("alpha one two"), id_of("beta one two")
    state = StoredTemplates({"web": [Template(a, "alpha one two", "", ("alpha", "one", "two"))]}, {"web": {a: b, b: a}})
    assert {state.current("web", one) for one in (a, b)} <= {a, b}
    read = of_table(to_table(state))
    assert read.current("web", a) == read.current("web", b) == a
    miner = TemplateMiner()
    state.fill(miner)
    assert miner.service("web").current(a) == miner.service("web").current(b) == a


# Damage.


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (flip_a_bit, r"expected sha256 [0-9a-f]{12}…, found [0-9a-f]{12}…"),
        (lambda file: file.write_bytes(file.read_bytes()[:-1]), "expected sha256"),
        (lambda file: file.unlink(), "expected the file that its manifest names, found none"),
    ],
    ids=["a bit", "cut", "gone"],
)
def test_a_damaged_file_is_refused(kept: TemplateStore, harm: Callable[[Path], object], told: str) -> None:
    saved(kept, learned())
    assert isinstance(kept.store, FileStore)
    (file,) = (kept.store.root / kept.prefix).glob("*.parquet")
    harm(file)
    with pytest.raises(TemplateStoreError, match=told):
        kept.load()


@pytest.mark.parametrize(
    ("manifest", "told"),
    [
        (b"{", "expected a manifest of templates"),
        (b"[]", "expected a manifest of templates"),
        (b'{"schema": 1}', "expected a manifest of templates"),
        (b'{"schema": 2}', "expected schema 1, found schema 2"),
        (b'{"schema": 1, "file": 3, "sha256": "", "bytes": 1, "rows": 1, "masks": 1}', "a field of another type"),
    ],
)
def test_a_manifest_of_something_else_is_refused(kept: TemplateStore, manifest: bytes, told: str) -> None:
    kept.store.put(kept.prefix + "templates.json", manifest)
    with pytest.raises(TemplateStoreError, match=told):
        kept.load()


def test_under_other_masks_templates_are_learned_anew_and_ids_stay_known(kept: TemplateStore) -> None:
    saved(kept, learned())
    key = kept.prefix + "templates.json"
    manifest = json.loads(kept.store.get(key))
    kept.store.put(key, json.dumps({**manifest, "masks": 0}).encode())
    state = kept.load()
    assert not state.services and state.merged_into


# A day.


def frame(lines: list[str], severities: list[str | None] | None = None, step_ns: int = 60 * SECOND_NS) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "timestamp": pl.Series([START_NS + n * step_ns for n in range(len(lines))], dtype=pl.Int64).cast(
                pl.Datetime("ns", "UTC")
            ),
            "line": pl.Series(lines, dtype=pl.String),
            "severity": pl.Series(severities or [None] * len(lines), dtype=pl.Categorical),
        }
    )


def test_a_day_counts_every_line_by_template_hour_and_severity() -> None:
    counter = DayCounter(TemplateMiner(), START_NS)
    counter.add("web", frame([f"GET {n}" for n in range(90)], ["ERROR", None, "info"] * 30))
    counter.add("web", frame(["gone"]))
    counter.add("", frame(["nameless"]))
    counts = counter.frame()
    assert tuple(counts.columns) == COLUMNS
    assert counts.select("service", "template", "lines", "errors").rows() == [
        ("", "nameless", 1, 0),
        ("web", "GET <V>", 90, 30),
        ("web", "gone", 1, 0),
    ]
    row = counts.row(1, named=True)
    assert row["hours"] == [60, 30] + [0] * 22
    assert row["examples"] == ["GET 0", "GET 1", "GET 2"]
    assert (row["first_ns"], row["last_ns"]) == (START_NS, START_NS + 89 * 60 * SECOND_NS)


def test_a_day_without_lines_is_empty_and_times_may_lie_outside() -> None:
    counter = DayCounter(TemplateMiner(), START_NS)
    assert counter.frame().height == 0
    counter.add("web", frame([]))
    counter.add("web", frame(["early", "late"], step_ns=-3 * 86_400 * SECOND_NS))
    assert counter.frame()["lines"].sum() == 2


def test_lines_of_a_template_that_was_swallowed_count_for_what_it_became() -> None:
    counter = DayCounter(TemplateMiner(), START_NS)
    for name in ("ann", "bob", "carl", "dora", "emil", "fay", "gus", "hana"):
        counter.add("web", frame([f"user {name} logged out"]))
    assert counter.frame().select("template", "lines").rows() == [("user <*> logged out", 8)]


def test_counting_a_day_twice_changes_nothing(kept: TemplateStore) -> None:
    lines = frame([line for line, _ in lines_of("sshd", 600)])
    seen = []
    for _ in range(2):
        state = kept.load()
        miner = TemplateMiner()
        state.fill(miner)
        counter = DayCounter(miner, START_NS)
        counter.add("sshd", lines)
        state.take(miner)
        counter.note_seen(state)
        kept.save(state)
        kept.save_day(DAY, counter.frame(), {"lines": counter.tally.lines})
        found = kept.load_day(DAY)
        assert found is not None and found[0]["lines"] == 600
        seen.append((found[1].select("id", "lines").rows(), kept.load().seen))
    assert seen[0] == seen[1]
    assert kept.days() == [DAY]


# Two days.


def day(rows: dict[str, int]) -> pl.DataFrame:
    return counts_frame([("web", name, name, lines, 0, 0, 0, [0] * 24, []) for name, lines in rows.items()])


def test_two_days_differ_by_what_is_new_gone_and_in_both() -> None:
    found = difference(day({"a": 5, "b": 1, OVERFLOW: 9}), day({"b": 2, "c": 3}))
    assert {row["id"]: (row["what"], row["before"], row["after"]) for row in found.to_dicts()} == {
        "a": ("gone", 5, 0),
        "b": ("both", 1, 2),
        "c": ("new", 0, 3),
    }


def test_a_template_that_became_part_of_another_is_not_gone() -> None:
    state = StoredTemplates(merged_into={"web": {"a": "b", "b": "c"}})
    (row,) = difference(day({"a": 5, "b": 1}), day({"c": 3}), state).to_dicts()
    assert (row["id"], row["what"], row["before"], row["after"]) == ("c", "both", 6, 3)


# A query.


@pytest.mark.parametrize(
    ("template", "example", "query"),
    [
        ("user <*> logged in from <V>", "user ann logged in from 10.1", '|> "user <_> logged in from <_>"'),
        ("took <V> s", "took 5 s", '|> "took <_> s"'),
        ("free <V> of <V>", "free 5 KB\tof 6 MB", '|= "free"'),
        ("charge <V> ok {level,msg}", '{"level":"info","msg":"charge 5 ok"}', '|> "<_>charge <_> ok<_>"'),
        ('say "<V>', 'say "5', '|> "say \\"<_>"'),
        ("<script>", "<script>", '|= "<script>"'),
        ("<V>", "5", ""),
    ],
)
def test_a_query_finds_the_lines_of_its_template(template: str, example: str, query: str) -> None:
    found = query_matching(template, 'a"b', [example])
    assert found.removeprefix('{service_name="a\\"b"}').strip() == query
