"""When to reconcile, what to think of a config, what is missing: the pure decisions, case by case."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onecollector.agent.commit_confirm import ConfigState, confirmed, from_json, overdue, pushed, taken_back
from onecollector.cli.reading import seconds_of
from onecollector_resources.alerting.rules import AlertGenerator, rules_to_change
from onecollector_resources.health.delivery import prove_records, ranges
from onecollector_resources.health.monitor import Discarded, parse_discarded, rises
from onecollector_resources.loki.config import LokiConfigError, loki_config, refuse_negative_durations
from onecollector_resources.loki.querier import (
    Entry,
    LokiError,
    Sample,
    Samples,
    Streams,
    parse_logql_response,
    with_caret,
)
from onecollector_resources.records import SegmentRecords
from onecollector_resources.settings import RuleSettings, Settings, SettingsError, load_settings
from sensors.decisions import Look, decide

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("look", "request_run"),
    [
        (Look(newest=5, reconciled=5, requested=5, queued=False, running=False), False),
        (Look(newest=6, reconciled=5, requested=5, queued=False, running=False), True),
        (Look(newest=6, reconciled=5, requested=5, queued=True, running=False), False),
        (Look(newest=6, reconciled=5, requested=6, queued=False, running=True), False),
        (Look(newest=7, reconciled=5, requested=6, queued=False, running=True), True),
        # The run that was asked for failed: what it did not take in is asked for again.
        (Look(newest=6, reconciled=5, requested=6, queued=False, running=False), True),
    ],
)
def test_one_run_takes_in_everything_and_nothing_is_forgotten(look: Look, request_run: bool) -> None:
    assert decide(look).request is request_run


actions = st.lists(st.sampled_from(["push", "confirm", "late", "back"]), max_size=12)


@given(actions)
def test_whatever_happens_an_unconfirmed_config_has_a_deadline_and_the_good_hash_is_confirmed(
    steps: Iterable[str],
) -> None:
    state, good, now = ConfigState("confirmed", "good"), "good", 0.0
    for number, step in enumerate(steps):
        now += 1
        if step == "push" and state.state == "confirmed":
            state = pushed(now, f"c{number}", 10)
        elif step == "confirm":
            after = confirmed(state, state.hash)
            assert (after is None) == (state.state == "confirmed")
            if after is not None:
                state, good = after, after.hash
        elif step == "late":
            now += 100
            if overdue(state, now):
                state = taken_back(state, good, "undecided", "late")
        elif step == "back" and state.state == "unconfirmed":
            state = taken_back(state, good, "rejected", "lost")
        assert from_json(state.to_json()) == state
        if state.state == "unconfirmed":
            assert state.deadline > 0
        else:
            assert state.hash == good
            assert not overdue(state, now + 1e9)


class FakeReader:
    """Loki with these record numbers of one file."""

    def __init__(self, numbers: list[int], segment: int = 0) -> None:
        self.numbers, self.labels = numbers, {"container_id": "c", **({"log_segment": str(segment)} if segment else {})}

    def samples(self, query: str, time_ns: int | None = None) -> tuple[Sample, ...]:
        value = (
            max(self.numbers, default=0)
            if "max_over" in query
            else sum(self.numbers)
            if "sum_over" in query
            else len(self.numbers)
        )
        return (Sample(self.labels, ((0.0, float(value)),)),) if self.numbers else ()

    def all_entries(self, query: str, start_ns: int, end_ns: int) -> Iterable[Entry]:
        return [Entry(1, "", {}, {"log_file_record_number": str(n)}) for n in self.numbers]


def written(records: int, joined: int = 0) -> SegmentRecords:
    return SegmentRecords("c", 0, records, 100, 100, True, "default", "web", NOW - timedelta(hours=1), joined)


@given(st.integers(1, 40), st.sets(st.integers(1, 40)), st.lists(st.integers(1, 40), max_size=5))
def test_the_proof_names_exactly_what_is_missing_also_beside_doubled_lines(
    n: int, lost: set[int], doubled: list[int]
) -> None:
    there = [k for k in range(1, n + 1) if k not in lost]
    row = prove_records([written(n)], lambda _: FakeReader(there + [k for k in doubled if k in there]), NOW)[0]
    gone = {k for k in lost if k <= n}
    assert {k for a, b in row.missing for k in range(a, b + 1)} == gone
    assert row.complete == (not gone)
    assert row.found == n - len(gone)


def test_parts_of_long_lines_are_not_missing() -> None:
    row = prove_records([written(5, joined=2)], lambda _: FakeReader([3, 4, 5]), NOW)[0]
    assert (row.complete, row.expected, row.found) == (True, 3, 3)


@given(st.sets(st.integers(0, 50)))
def test_ranges_say_the_same_numbers(numbers: set[int]) -> None:
    assert {n for a, b in ranges(numbers) for n in range(a, b + 1)} == numbers


def test_a_rise_of_discards_is_seen_also_over_a_restart() -> None:
    text = 'loki_discarded_samples_total{policy="",reason="too_far_behind",tenant="acme"} 12\n'
    assert parse_discarded(text) == (Discarded("acme", "too_far_behind", 12),)
    before = (Discarded("acme", "x", 10),)
    assert rises(before, (Discarded("acme", "x", 10),)) == ()
    assert rises(before, (Discarded("acme", "x", 13),)) == (Discarded("acme", "x", 3),)
    assert rises(before, (Discarded("acme", "x", 2),)) == (Discarded("acme", "x", 2),)


def test_every_service_gets_two_rules_and_only_the_difference_is_written() -> None:
    wanted = AlertGenerator(RuleSettings()).generate_alert_thresholds(["web", 'we"b', "shop"])
    assert {rule["alert"] for rule in wanted["web"]["rules"]} == {"ErrorBurst", "GoneSilent"}
    changes = rules_to_change(wanted, {"web": wanted["web"], "old": wanted["web"]})
    assert (changes.create, changes.update, changes.delete, changes.same) == (("shop", 'we"b'), (), ("old",), ("web",))


def test_a_negative_duration_other_than_minus_one_is_refused(tmp_path) -> None:
    settings = Settings(state_dir=tmp_path)
    config = loki_config(settings, data_dir=tmp_path, http_port=1, grpc_port=2)
    assert config["ingester"]["query_store_max_look_back_period"] == -1
    refuse_negative_durations(config)
    config["ingester"]["query_store_max_look_back_period"] = "-1s"
    with pytest.raises(LokiConfigError, match="query_store_max_look_back_period"):
        refuse_negative_durations(config)


def test_answers_of_loki_are_read_with_metadata_apart_and_inner_labels_left_out() -> None:
    stream = {
        "stream": {"a": "b", "__time_shard__": "x"},
        "values": [["5", "line", {"structuredMetadata": {"k": "v"}}]],
    }
    found = parse_logql_response({"data": {"resultType": "streams", "result": [stream]}})
    assert found == Streams((Entry(5, "line", {"a": "b"}, {"k": "v"}),))
    vector = parse_logql_response({"data": {"resultType": "vector", "result": [{"metric": {}, "value": [1, "2"]}]}})
    assert isinstance(vector, Samples)
    assert vector.series[0].value == 2
    with pytest.raises(LokiError):
        parse_logql_response({"data": {"resultType": "poem", "result": []}})


def test_a_caret_stands_under_the_spot() -> None:
    assert with_caret("{a} |= x", "parse error at line 1, col 4: no").splitlines()[-1].endswith("   ^")
    assert with_caret("{a}", "no place named") == "no place named"


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("5m", 300), ("1h30m", 5400), ("2d", 172_800)])
def test_durations(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


def test_settings_errors_name_file_key_and_what_was_expected(tmp_path) -> None:
    path = tmp_path / "onecollector.yaml"
    path.write_text("tenants: [default]\nagent: {listing_interval_s: never}\nfiles: [{glob: x, service: a}]\n")
    with pytest.raises(SettingsError) as error:
        load_settings(path)
    assert "agent.listing_interval_s" in str(error.value)
    assert "absolute path" in str(error.value)
    path.write_text("tenants: [other]\n")
    with pytest.raises(SettingsError, match="one must be called `default`"):
        load_settings(path)
    path.write_text("a: [")
    with pytest.raises(SettingsError, match="not YAML"):
        load_settings(path)
